"""A journal on a disk and in object storage: what was added is found again, whatever ended the run."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from orbit4d.curate import journal as module
from orbit4d.curate.journal import Journal, remove_journal
from orbit4d.datasets.core.errors import InputError, StorageFailed
from orbit4d.datasets.core.storage import Store

ABOUT = {"measure_version": 3, "previews": "none"}
ROWS = [{"action": "hop", "motion_geometry": 0.5}]


@pytest.fixture(params=["disk", "storage"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    return str(tmp_path / f"{name}.journal") if request.param == "disk" else f"memory://{name}/t.journal"


def test_what_was_added_is_found_again_and_removed_in_the_end(place: str) -> None:
    first = Journal(place, ABOUT)
    for i in range(3):
        first.add(f"asset{i}", "a" * 64, [{**ROWS[0], "i": i}])
    first.flush()
    second = Journal(place, ABOUT)
    assert second.rows == {(f"asset{i}", "a" * 64): [{**ROWS[0], "i": i}] for i in range(3)}
    second.add("asset0", "b" * 64, ROWS)
    second.flush()
    assert len(Journal(place, ABOUT).rows) == 4
    # Another way to measure makes the rows worthless.
    assert Journal(place, {**ABOUT, "previews": "both"}).rows == {}
    remove_journal(place)
    assert Journal(place, ABOUT).rows == {}
    remove_journal(place)
    remove_journal(place)


def test_torn_and_foreign_lines_cost_their_own_asset_alone(place: str) -> None:
    book = Journal(place, ABOUT)
    book.add("whole", "a" * 64, ROWS)
    book.flush()
    torn = json.dumps({"uid": "torn", "sha256": "b" * 64, "rows": ROWS})[:-9]
    if "://" in place:
        head = json.dumps(ABOUT, sort_keys=True)
        Store(place).put("9-torn.jsonl", f"{head}\n[]\n{{}}\n{torn}".encode())
        Store(place).put("9-empty.jsonl", b"")
    else:
        with open(place, "a", encoding="utf-8") as file:
            file.write(f"[]\n{{}}\n{torn}")
    again = Journal(place, ABOUT)
    assert list(again.rows) == [("whole", "a" * 64)]
    again.add("next", "c" * 64, ROWS)
    again.flush()
    assert list(Journal(place, ABOUT).rows) == [("whole", "a" * 64), ("next", "c" * 64)]


def test_in_storage_a_few_seconds_of_work_are_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}/t.journal")
    monkeypatch.setattr(module, "PUT_EVERY", 100)
    book = Journal(store.uri, ABOUT)
    for i in range(250):
        book.add(f"asset{i}", "a" * 64, ROWS)
    # The first at once, two by their number, the rest when the run ends; each readable on its own.
    assert len(store.list("", ".jsonl")) == 1 + 3
    book.flush()
    assert len(store.list("", ".jsonl")) == 1 + 4
    assert len(Journal(store.uri, ABOUT).rows) == 250
    assert len(store.list("", ".jsonl")) == 1


def test_storage_that_fails_in_the_middle_costs_no_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}/t.journal")
    book = Journal(store.uri, ABOUT)
    put = Store.put

    def fail(self: Store, name: str, data: bytes) -> None:
        raise StorageFailed(f"cannot write {name}: SlowDown")

    monkeypatch.setattr(Store, "put", fail)
    book.add("asset0", "a" * 64, ROWS)
    assert "SlowDown; tried again later" in capsys.readouterr().err
    monkeypatch.setattr(Store, "put", put)
    book.flush()
    assert list(Journal(store.uri, ABOUT).rows) == [("asset0", "a" * 64)]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="choose another --out"):
        Journal(str(tmp_path / "file" / "t.journal"), ABOUT)


def test_entries_are_one_line_each(tmp_path: Path) -> None:
    book = Journal(str(tmp_path / "j"), ABOUT)
    rows: list[dict[str, Any]] = [{"detail": "two\nlines"}]
    book.add("a", "b", rows)
    assert len((tmp_path / "j").read_text().splitlines()) == 2
    assert Journal(str(tmp_path / "j"), ABOUT).rows == {("a", "b"): rows}
