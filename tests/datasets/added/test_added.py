"""What lies beside clips: nothing of theirs changes, nothing is lost, every byte is checked, copies take it
along.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orbit4d.datasets import (
    DatasetWriter,
    Index,
    InputError,
    OrbitDataset,
    merge,
    read_clip,
    read_geometry,
    verify,
)
from orbit4d.datasets.added.rolling import CRASH_POINTS, roll_added
from orbit4d.datasets.added.rows import Added, extended_digest
from orbit4d.datasets.added.staging import stage_added
from orbit4d.datasets.operations.select import select_copy, select_view
from orbit4d.datasets.store import rejections

NORMAL = np.zeros((4, 4, 3), np.float16)


def npy(array: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_clips_stay_as_they_are_and_the_digest_grows(make_clips, beside, tmp_path: Path) -> None:
    out = tmp_path / "d"
    writer = DatasetWriter(out, {"frames": 8})
    writer.stage("a", make_clips("a"))
    writer.roll(final=True)
    before, digest = files(out), verify(str(out)).digest
    assert digest == writer.digest()
    stage_added(writer.store, "a", beside(make_clips("a")))
    assert roll_added(writer.store, writer.indexed(), final=True).rows == 4
    after = files(out)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("passes/") for name in after.keys() - before.keys())
    seen = verify(str(out))
    assert seen.ok and seen.image_digest == digest == writer.digest() and seen.added == 4
    assert seen.digest != digest
    # The same additions in two turns give the same digest, and adding them again changes nothing.
    again = tmp_path / "e"
    other = DatasetWriter(again, {"frames": 8})
    other.stage("a", make_clips("a"))
    other.roll(final=True)
    rows = beside(make_clips("a"))
    for part in (rows[:1], rows[1:], rows[1:]):
        stage_added(other.store, "a", part)
        roll_added(other.store, other.indexed(), final=True)
    assert verify(str(again)).digest == seen.digest


def test_the_digest_without_additions_is_that_of_the_clips() -> None:
    assert extended_digest("ab", []) == "ab"
    assert extended_digest("ab", [b"x"]) != extended_digest("ab", [b"y"])


def test_a_refusal_is_told_in_the_table_of_rejections_too(geometry_dataset: Path) -> None:
    rows = rejections.read(Index(geometry_dataset).store)
    assert [(row.uid, row.action, row.stage, row.reason) for row in rows] == [
        ("c", "Run", "geometry", "geometry:topology")
    ]


def test_an_added_pass_is_read_with_its_clip(make_clips, tmp_path: Path) -> None:
    out = tmp_path / "d"
    writer = DatasetWriter(out, {"frames": 8})
    clip = make_clips("a")[1]
    writer.stage("a", [clip])
    writer.roll(final=True)
    members = tuple(npy(NORMAL + i) for i in range(8))
    stage_added(writer.store, "a", [Added("a", "Run", 0, "a__a0__dynamic_orbit__o0", "normal", members)])
    roll_added(writer.store, writer.indexed(), final=True)
    found = read_clip(out, "a")
    assert found.pass_arrays("normal").shape == (8, 4, 4, 3)
    assert found.pass_arrays("normal")[5, 0, 0, 0] == 5
    with pytest.raises(InputError, match="stored: normal"):
        found.pass_arrays("albedo")
    sample = OrbitDataset(out, passes=("normal",))[0]
    assert sample["normal_dynamic"].shape == (8, 3, 32, 32) and sample["normal_dynamic"][5].min() == 5
    with pytest.raises(InputError, match="no pass 'albedo' is stored"):
        OrbitDataset(out, passes=("albedo",))


def test_verify_finds_every_flipped_byte(make_geometry_dataset, tmp_path: Path) -> None:
    out = make_geometry_dataset(tmp_path / "d", ("a",))
    assert verify(str(out)).ok
    for path in [f for f in (out / "passes").rglob("*") if f.is_file()]:
        data = path.read_bytes()
        for place in range(7, len(data), len(data) // 6):
            broken = bytearray(data)
            broken[place] ^= 0x10
            path.write_bytes(bytes(broken))
            seen = verify(str(out))
            assert not seen.ok and any(f.file.startswith("passes/") for f in seen.findings), (path, place)
        path.write_bytes(data)
    next((out / "passes" / "shards").iterdir()).unlink()
    assert any("missing" in finding.what for finding in verify(str(out)).findings)


def test_views_copies_and_merges_take_it_along(
    geometry_dataset: Path, tmp_path: Path, make_geometry_dataset
) -> None:
    true = read_geometry(geometry_dataset, "b").surface_map(3)[0]
    for name, select in (("view", select_view), ("copy", select_copy)):
        out = str(tmp_path / name)
        select(str(geometry_dataset), out, where="rig = 'dynamic_orbit' and uid <> 'a'")
        found = read_geometry(out, "b")
        assert found.clips == [("dynamic_orbit", 0)]
        np.testing.assert_array_equal(found.surface_map(3)[0], true)
        with pytest.raises(InputError, match="geometry:topology"):
            read_geometry(out, "c")
        assert len(Index(out).added) == 3 and verify(out).ok
    other = make_geometry_dataset(tmp_path / "other", ("x",))
    merge([str(geometry_dataset), str(other)], str(tmp_path / "both"))
    both = Index(tmp_path / "both")
    assert len(both.added) == len(Index(geometry_dataset).added) + len(Index(other).added)
    np.testing.assert_array_equal(read_geometry(both, "b").surface_map(3)[0], true)
    assert verify(str(tmp_path / "both")).ok


def test_what_never_became_a_clip_is_not_committed(make_clips, beside, tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "d", {"frames": 8})
    writer.stage("a", make_clips("a"))
    writer.roll(final=True)
    stage_added(writer.store, "ghost", beside(make_clips("ghost")))
    assert roll_added(writer.store, writer.indexed()).rows == 0
    assert writer.store.list("passes/staging")
    assert roll_added(writer.store, writer.indexed(), final=True).dropped == 1
    assert not writer.store.list("passes/staging") and verify(str(tmp_path / "d")).ok


def test_a_kind_has_members_or_a_reason() -> None:
    for how in ({}, {"members": (b"x",), "refused": "a:b"}):
        with pytest.raises(ValueError, match="either members or a reason"):
            Added("a", "", 0, "a__a0", "geometry", **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower-case"):
        Added("a", "", 0, "a__a0", "Geometry", (b"x",))


# Killed at every step -------------------------------------------------------------------------------------

RUN = """
import sys
from orbit4d.datasets import Index
from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.added.rows import Added
from orbit4d.datasets.added.staging import stage_added
from orbit4d.datasets.core.storage import Store
store = Store(sys.argv[1])
committed = set(Index(store).keys.uids.to_pylist())
have = {(r["sample"], r["kind"]) for r in Index(store).added.table.to_pylist()}
for i, uid in enumerate(sorted(committed)):
    sample = f"{uid}__a0"
    if (sample, "geometry") not in have:
        if i == 1:
            row = Added(uid, "Run", 0, sample, "geometry", refused="geometry:topology", detail="x")
        else:
            row = Added(uid, "Run", 0, sample, "geometry", (uid.encode() * 700,))
        stage_added(store, uid, [row])
    roll_added(store, committed, shard_bytes=3000)
roll_added(store, committed, final=True)
"""


def run(folder: Path, crash_at: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)],
        env={**os.environ, "ORBIT4D_CRASH_AT": crash_at},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode


@pytest.fixture(scope="module")
def plain(make_clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "d"
    writer = DatasetWriter(out, {"frames": 2})
    for uid in ("u0", "u1", "u2", "u3"):
        writer.stage(uid, make_clips(uid, n_frames=2, size=8, rigs=("front_view",)))
    writer.roll(final=True)
    return out


def truth(folder: Path) -> tuple[bool, list]:
    rows = Index(folder).added.table.sort_by("sample").to_pylist()
    kept = [(r["sample"], r["kind"], r["refused"], r["sha256"]) for r in rows]
    return not Index(folder).store.list("passes/staging"), kept


@pytest.mark.parametrize("point", [*CRASH_POINTS, "put_before_rename:1", "put_before_rename:3"])
def test_killed_anywhere_and_run_again_it_is_as_if_undisturbed(
    plain: Path, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d"
    shutil.copytree(plain, out)
    before = files(out)
    assert run(out, point) == -signal.SIGKILL
    half = files(out)
    assert {name: half[name] for name in before} == before
    for row in Index(out).added.table.to_pylist():
        Index(out).added.members(row)  # whatever is named is whole
    monkeypatch.setattr(sys, "argv", ["", str(out)])
    exec(RUN, {})
    clean, kept = truth(out)
    assert clean and len(kept) == 4 and [row[2] for row in kept] == ["", "geometry:topology", "", ""]
    after = files(out)
    assert {name: after[name] for name in before} == before
    assert [row.uid for row in rejections.read(Index(out).store)] == ["u1"]
    assert not [name for name in after if "/.tmp-" in name]


def test_statistics_count_what_lies_beside(geometry_dataset: Path, synthetic_dataset: Path) -> None:
    from orbit4d.datasets import statistics

    assert statistics(str(geometry_dataset))["beside"] == {"geometry": 2, "surface": 6}
    assert "beside" not in statistics(str(synthetic_dataset))
