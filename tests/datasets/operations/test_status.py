"""`orbit4d status`: counts from the dataset, pace from the driver's note, and how a silent driver looks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orbit4d.app.cli import command
from orbit4d.datasets import DatasetWriter, InputError, Rejection
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations import run_progress
from orbit4d.datasets.operations.run_progress import Reporter, RunProgress, read_progress
from orbit4d.datasets.operations.status import QUARANTINED, StatusReader, duration, headline, status_lines
from orbit4d.datasets.operations.status_page import status_page
from orbit4d.render.dataset import render_assets


@pytest.fixture
def half(tmp_path: Path, make_clips: Callable[..., Any]) -> DatasetWriter:
    """Two assets in shards, one staged, two rejected, one quarantined, one done after a quarantine."""
    writer = DatasetWriter(str(tmp_path / "ds"), {"frames": 2})
    for uid in ("a", "b"):
        writer.stage(uid, make_clips(uid, n_frames=2, size=8))
    writer.roll(final=True)
    writer.stage("c", make_clips("c", n_frames=2, size=8), [Rejection("c", "Rest", "render", "still")])
    writer.reject(
        [
            Rejection("d", "", "render", "bad_file:truncated", "cut"),
            Rejection("e", "", "render", "still"),
            Rejection(
                "f", "", "render", "quarantined:crash", "SIGSEGV", 2, 1, "one\n\ntwo\nthree\nfour <b>\n"
            ),
            Rejection("a", "", "render", "quarantined:time_out"),
            Rejection("b", "Rest", "render", "still"),
        ]
    )
    return writer


def note(writer: DatasetWriter, **changes: Any) -> RunProgress:
    now = time.time()
    made = RunProgress(host="head-1", pid=7, started=now - 100, updated=now, input=12, todo=12, done=3)
    made = replace(made, **{"rejected": 2, "quarantined": 1, "assets_per_s": 0.05, "workers": 4, **changes})
    writer.store.put(run_progress.NAME, json.dumps(asdict(made)).encode())
    return made


def test_counts_are_those_of_the_dataset(half: DatasetWriter) -> None:
    seen = StatusReader(half.uri).look()
    assert (seen.committed, seen.staged, seen.done) == (2, 1, 3)
    assert seen.reasons == {"bad_file:truncated": 1, "still": 1}
    # What was retried with success is not in quarantine any more.
    assert [row.uid for row in seen.quarantined] == ["f"] and seen.actions_left_out == 1
    assert seen.run is None and not seen.alive and "no driver" in headline(seen)


def test_a_second_look_reads_no_part_again(half: DatasetWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StatusReader(half.uri)
    before = reader.look()

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a part was read again")

    monkeypatch.setattr("orbit4d.datasets.store.parts.read_part", forbidden)
    assert reader.look().committed == before.committed


def test_a_running_driver_gives_pace_and_time_left(half: DatasetWriter) -> None:
    note(half, images=240, images_per_s=2.4, busy=3)
    lines = status_lines(StatusReader(half.uri).look())
    assert "running on head-1 (pid 7), last heard of 0 s ago" in lines[0]
    assert lines[1].endswith("rejected 2, quarantined 1 of 12 inputs")
    assert (
        "3.0 assets/min, 2.4 images/s; 4 workers, 3 at work; 6 of 12 assets to go, about 2 min left" in lines
    )
    assert "  f: quarantined:crash, 2 attempts, 1 preemptions" in lines and "    SIGSEGV" in lines
    assert [line for line in lines if line.startswith("    |")] == [
        "    | two",
        "    | three",
        "    | four <b>",
    ]
    assert "--retry-quarantined" in lines[-1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"updated": 1e9}, "no sign of head-1 (pid 7)"),
        ({"state": "interrupted"}, "interrupted on head-1"),
        ({"state": "failed", "message": "the bucket is gone"}, "(the bucket is gone); run the same command"),
        ({"state": "finished"}, "finished on head-1"),
        ({"updated": 4e9}, "running on head-1 (pid 7), last heard of 0 s ago"),
    ],
)
def test_who_is_not_running_is_told_apart(half: DatasetWriter, changes: dict[str, Any], says: str) -> None:
    note(half, **changes)
    assert says in headline(StatusReader(half.uri).look())


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"updated": "soon"}', b'{"host": 3, "unheard": 1}'])
def test_a_note_that_is_none_changes_no_count(half: DatasetWriter, text: bytes) -> None:
    half.store.put(run_progress.NAME, text)
    seen = StatusReader(half.uri).look()
    assert seen.done == 3 and status_lines(seen) and not (seen.alive)


def test_a_reporter_writes_while_it_works_and_says_how_it_ended(tmp_path: Path) -> None:
    store, counts = Store(tmp_path), {"done": 0, "todo": 5}
    with Reporter(store, lambda: counts, every=0.02):
        first = read_progress(store)
        assert first is not None and first.state == "running" and first.assets_per_s == 0
        counts["done"] = 4
        deadline = time.monotonic() + 30
        while (now := read_progress(store)) is None or now.done != 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert now.left == 1 and now.assets_per_s > 0 and now.seconds_left is not None
    last = read_progress(store)
    assert last is not None and (last.state, last.left, last.pid) == ("finished", 1, first.pid)
    with pytest.raises(RuntimeError), Reporter(store, lambda: counts):
        raise RuntimeError("the\ncluster is gone")
    last = read_progress(store)
    assert last is not None and (last.state, last.message) == ("failed", "the cluster is gone")


def test_a_reporter_that_cannot_write_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with Reporter(Store(tmp_path / "file" / "below"), dict):
        pass


def test_the_page_reloads_while_a_run_goes_on_and_shows_logs_as_text(half: DatasetWriter) -> None:
    note(half, message="storage: SlowDown <1>")
    page = status_page(StatusReader(half.uri).look(), 5)
    assert '<p class="holding">storage: SlowDown &lt;1&gt;</p>' in page
    assert "holding: storage: SlowDown <1>" in status_lines(StatusReader(half.uri).look())
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "four &lt;b&gt;" in page and "<b>" not in page and "--retry-quarantined" in page
    note(half, state="finished", message="was")
    assert "http-equiv" not in status_page(StatusReader(half.uri).look())


@pytest.fixture
def ends(half: DatasetWriter, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """`time.sleep` lets the run end; what was slept."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        note(half, state="finished")

    monkeypatch.setattr("time.sleep", sleep)
    yield slept


def test_the_command_watches_until_the_run_ends(
    half: DatasetWriter, ends: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note(half)
    page = tmp_path / "pages" / "status.html"
    assert run(command, ["status", half.uri, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert ends == [10.0] and "running on" in out and "finished on" in out and out.endswith(f"page {page}\n")
    assert "http-equiv" not in page.read_text()
    assert run(command, ["status", half.uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == 3 and found["run"]["left"] == 6 and found["quarantined"][0]["log_tail"]
    assert run(command, ["status", half.uri, "--log-lines", "0"]) == 0
    assert "    |" not in capsys.readouterr().out


def test_a_dataset_in_object_storage_is_seen_from_elsewhere(
    make_dataset: Any, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_dataset(f"{bucket}/seen", assets=2, n_frames=2, size=8)
    assert run(command, ["status", made, "--html", f"{bucket}/pages/status.html"]) == 0
    assert "done 2 (2 in shards, 0 staged)" in capsys.readouterr().out
    assert b"2 in shards" in Store(f"{bucket}/pages").read("status.html")
    with pytest.raises(InputError):
        StatusReader(f"{bucket}/nothing")


def test_the_words_of_quarantine_are_renders() -> None:
    assert QUARANTINED == render_assets.QUARANTINED


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h 0 min"),
        (7260, "2 h 1 min"),
        (180000, "2 d 2 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
