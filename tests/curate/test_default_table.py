"""The table that nobody named, reports at URIs, and the exit code where nothing was accepted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orbit4d.curate.cli import command
from orbit4d.curate.tables import is_dataset
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.storage import Store


@pytest.fixture
def dataset(make_dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_dataset(Path("takes 9:15") / "set", assets=2, n_frames=4, size=16)


def test_a_table_beside_its_source(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, [str(dataset), "--min-motion", "0"]) == 0
    assert "table takes 9:15/set.curated.parquet" in capsys.readouterr().out
    table = tmp_path / "takes 9:15" / "set.curated.parquet"
    before = pq.read_table(table)
    assert run(command, [str(dataset), "--min-motion", "0"]) == 0, "the same rules: resumed"
    assert run(command, [str(dataset), "--min-motion", "0.5"]) == 2, "others: refused"
    err = capsys.readouterr().err.splitlines()[-1]
    assert "set.curated.parquet" in err and "min_motion" in err and "--out" in err
    assert pq.read_table(table).equals(before)
    assert run(command, ["takes 9:15/set.curated.parquet", "--min-motion", "0"]) == 0
    assert (tmp_path / "takes 9:15" / "set.curated.curated.parquet").is_file()
    assert run(command, [str(dataset), str(dataset)]) == 2
    assert "--out" in capsys.readouterr().err


def test_another_file_under_the_name_is_kept(dataset: Path, tmp_path: Path) -> None:
    table = tmp_path / "takes 9:15" / "set.curated.parquet"
    table.write_bytes(b"precious")
    assert run(command, [str(dataset)]) == 2
    assert table.read_bytes() == b"precious"


def test_a_uri_gets_its_table_in_the_current_folder(
    make_dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = make_dataset(f"memory://sets-{uuid.uuid4().hex}/walkers", assets=1, n_frames=4, size=16)
    report = f"memory://reports-{uuid.uuid4().hex}/r"
    assert run(command, [uri, "--min-motion", "0", "--report", report]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["walkers.curated.parquet"]
    assert b"Curation report" in Store(report).read("index.html")


def test_nothing_accepted_is_a_failure_with_the_counts(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, [str(dataset), "--min-coverage", "0.99", "--out", "strict.parquet"]) == 1
    out, err = capsys.readouterr()
    assert "accepted 0, rejected 2" in out and "table strict.parquet" in out, "the table is written"
    assert "no action was accepted" in err.splitlines()[-1] and Path("strict.parquet").is_file()
    assert run(command, [str(dataset), "--min-motion", "0", "--out", "mild.parquet"]) == 0


def test_a_colon_in_a_folder_hides_no_dataset(dataset: Path) -> None:
    assert is_dataset(str(dataset)) and is_dataset(str(dataset.absolute()))
    assert not is_dataset("objaverse:animated") and not is_dataset("takes 9:15")
