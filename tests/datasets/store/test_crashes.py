"""The promises of the commit protocol, held by killing processes at each of its points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orbit4d.datasets import DatasetWriter, Index
from orbit4d.datasets.core.crashpoints import COMMIT_POINTS
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.operations.verify import verify

UIDS = [f"u{i}" for i in range(6)]
# A run: stage what is not done, roll as shards fill, roll the rest. Says on stdout what it reports done.
RUN = """
import sys
import numpy as np
from orbit4d.datasets import Clip, DatasetWriter, encode_webp, orbit
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store import parts
parts.MERGE_AT = 3
def clips(uid):
    rng = np.random.default_rng(list(uid.encode()))
    for rig in ("dynamic_orbit", "front_view"):
        frames = tuple(encode_webp(rng.integers(0, 255, (8, 8, 4), dtype=np.uint8)) for _ in range(2))
        cameras = tuple(orbit(2, size=(8, 8))) if rig == "dynamic_orbit" else (orbit(2, size=(8, 8))[0],) * 2
        yield Clip(uid, "", 0, rig, 0, frames, cameras, (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), 1.0, (0, 0, 0),
        0.0, 0.0, 2.0)
def run(folder, uids):
    writer = DatasetWriter(folder, {"n": 2}, shard_bytes=8000)
    done = writer.finished()
    for uid in uids:
        if uid not in done:
            writer.stage(uid, clips(uid), [Rejection(uid, "Rest", "render", "still", "nothing moves")])
            print("done", uid, flush=True)
        writer.roll()
    writer.roll(final=True)
    return writer
"""


def _run(folder: Path, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{RUN}\nrun(sys.argv[1], sys.argv[2:])", str(folder), *UIDS],
        env={**os.environ, "ORBIT4D_CRASH_AT": crash_at, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def same_run():
    """`same_run(folder)`: the same run in this process."""
    from orbit4d.datasets.store import parts

    space: dict = {}
    merge_at = parts.MERGE_AT
    exec(RUN, space)
    yield lambda folder: space["run"](folder, UIDS)
    parts.MERGE_AT = merge_at


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, same_run) -> str:
    return same_run(tmp_path_factory.mktemp("undisturbed") / "d").digest()


# Every point, and every single put of the run up to its first merge.
POINTS = [
    *(p for p in COMMIT_POINTS if p != "put_before_rename"),
    *(f"put_before_rename:{i}" for i in range(1, 13)),
]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_loses_and_doubles_nothing(point, tmp_path, undisturbed, same_run):
    folder = tmp_path / "d"
    killed = _run(folder, point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    reported = {line.split()[1] for line in killed.stdout.splitlines()}
    if (folder / "dataset.json").exists():
        # A reader of the torn state sees whole clips only, each of them once.
        index = Index(folder)
        for number in range(len(index)):
            row = index.row(number)
            assert len(read_members(index.shard_store, row)) == 2
        torn = verify(str(folder))
        assert [f for f in torn.findings if f.kind == "damage"] == []
        assert DatasetWriter(folder, {"n": 2}).finished() >= reported
        verify(str(folder), repair=True)
        assert verify(str(folder)).ok
        assert DatasetWriter(folder, {"n": 2}).finished() >= reported
    writer = same_run(folder)
    assert writer.digest() == undisturbed
    assert verify(str(folder)).findings == []
    assert len(Index(folder)) == 2 * len(UIDS)
    # An action that became no clip is told of once, whenever the driver died after its asset was staged.
    told = [(row.uid, row.action, row.reason) for row in writer.rejections()]
    assert told == [(uid, "Rest", "still") for uid in UIDS]


def test_resuming_without_repair_cleans_up_by_itself(tmp_path, undisturbed, same_run):
    folder = tmp_path / "d"
    for point in ("stage_after_tar", "roll_after_shard", "put_before_rename:3", "compact_after_merged"):
        assert _run(folder, point).returncode == -signal.SIGKILL
    assert same_run(folder).digest() == undisturbed
    assert verify(str(folder)).findings == []
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in files if name.startswith(".tmp-")]
    assert len([name for name in files if name.endswith(".tar")]) == len(list((folder / "shards").iterdir()))


def test_a_rerun_of_finished_work_writes_nothing(tmp_path, undisturbed, same_run):
    folder = tmp_path / "d"
    same_run(folder)
    before = {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()
    }
    assert same_run(folder).digest() == undisturbed
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()} == before


def test_crash_point_counts_and_ignores_other_names():
    code = (
        "from orbit4d.datasets.core.crashpoints import crash_point as c\n"
        "c('other'); c('here'); print('once', flush=True); c('here'); print('never')"
    )
    env = {**os.environ, "ORBIT4D_CRASH_AT": "here:2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")
