"""The writer: round trips, configuration, digest, idempotence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orbit4d.datasets import DatasetWriter, InputError, Rejection, WorkError, read_clip, stage_asset
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.parts import live_parts, merge_small

CONFIG = {"frames": 4, "lights": {"seed": 0}}


def test_every_clip_reads_back_equal(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", CONFIG, shard_bytes=30_000)
    clips = {
        uid: make_clips(uid, ("Run", "Jump"), n_frames=4, orbits=2) for uid in ("b", "a", "c-" + "x" * 90)
    }
    for uid, some in clips.items():
        writer.stage(uid, some)
    writer.roll(final=True)
    for some in clips.values():
        for clip in some:
            assert read_clip(tmp_path / "d", clip.uid, clip.action, clip.rig, clip.orbit) == clip
    assert len(Index(tmp_path / "d")) == sum(map(len, clips.values()))


def test_passes_and_unknown_measures_survive(tmp_path, make_clips):
    import dataclasses

    clip = make_clips("a", n_frames=3)[0]
    clip = dataclasses.replace(
        clip,
        passes={"depth": tuple(b"\x93NUMPY%d" % i for i in range(3)), "alpha2": clip.frames},
        measures={"motion_geometry": 0.25, "sparkle": 3.5},
    )
    writer = DatasetWriter(tmp_path / "d", CONFIG)
    writer.stage("a", [clip])
    writer.stage("b", make_clips("b", n_frames=3))
    writer.roll(final=True)
    assert read_clip(tmp_path / "d", "a", "Run", clip.rig) == clip


def test_a_view_of_the_uri_schemes(make_clips):
    writer = DatasetWriter("memory://writer-test", CONFIG)
    clips = make_clips("a", n_frames=3)
    writer.stage("a", clips)
    assert writer.finished() == {"a"}
    writer.roll(final=True)
    assert read_clip("memory://writer-test", "a", "Run", "front_view") == clips[2]


def test_digest_depends_on_clips_alone(tmp_path, make_clips):
    digests = set()
    for name, order, shard_bytes in (("one", "abcd", 1), ("two", "dcba", 1 << 30), ("three", "bdac", 40_000)):
        writer = DatasetWriter(tmp_path / name, CONFIG, shard_bytes=shard_bytes)
        for uid in order:
            writer.stage(uid, make_clips(uid, n_frames=3))
            if name == "three":
                writer.roll()
        writer.roll(final=True)
        before = writer.digest()
        merge_small(writer.store, force=True)
        assert len(live_parts(writer.store)[0]) == 1
        assert writer.digest() == before
        digests.add(before)
    assert len(digests) == 1
    other = DatasetWriter(tmp_path / "four", CONFIG)
    for uid in "abcd":
        other.stage(uid, make_clips(uid, n_frames=3, orbits=1 + (uid == "d")))
    other.roll(final=True)
    assert other.digest() not in digests


def test_two_attempts_give_one_row(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", CONFIG)
    writer.stage("a", make_clips("a", n_frames=3))
    writer.stage("a", make_clips("a", n_frames=3))
    writer.roll(final=True)
    digest, rows = writer.digest(), len(Index(tmp_path / "d"))
    # The late attempt of a worker that was thought lost, seen by this driver and by a restarted one.
    stage_asset(str(tmp_path / "d"), "a", make_clips("a", n_frames=3))
    writer.roll(final=True)
    stage_asset(str(tmp_path / "d"), "a", make_clips("a", n_frames=3))
    again = DatasetWriter(tmp_path / "d", CONFIG)
    assert again.finished() == {"a"}
    again.roll(final=True)
    assert (again.digest(), len(Index(tmp_path / "d"))) == (digest, rows)
    assert not list((tmp_path / "d" / "staging").iterdir())


def test_another_configuration_is_refused_by_its_key(tmp_path):
    DatasetWriter(tmp_path / "d", CONFIG)
    DatasetWriter(tmp_path / "d", {"lights": {"seed": 0}, "frames": 4})
    with pytest.raises(InputError, match=r"lights\.seed is 0, asked for 1"):
        DatasetWriter(tmp_path / "d", {"frames": 4, "lights": {"seed": 1}})


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        DatasetWriter(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(
    os.geteuid() == 0 and not os.path.exists("/proc"), reason="no unwritable place for root here"
)
def test_an_unwritable_place_is_refused(tmp_path):
    # /proc refuses new files to root as well; an ordinary user is refused by permissions.
    place = "/proc/orbit4d" if os.geteuid() == 0 else tmp_path / "locked" / "d"
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot"):
        DatasetWriter(place, CONFIG)


def test_disk_full_loses_nothing_committed(tmp_path, make_clips, monkeypatch):
    writer = DatasetWriter(tmp_path / "d", CONFIG, shard_bytes=1)
    writer.stage("a", make_clips("a", n_frames=3))
    writer.roll(final=True)
    writer.stage("b", make_clips("b", n_frames=3))
    digest = writer.digest()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorkError, match="disk is full"):
            writer.roll(final=True)
        with pytest.raises(WorkError, match="disk is full"):
            writer.stage("c", make_clips("c", n_frames=3))
    assert DatasetWriter(tmp_path / "d", CONFIG).finished() == {"a", "b"}
    assert writer.digest() == digest
    assert not [p for p in (tmp_path / "d").rglob("*") if p.name.startswith(".tmp-")]
    writer.roll(final=True)
    assert len(Index(tmp_path / "d")) == 6


def test_damaged_staged_files_are_dropped_and_not_done(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", CONFIG)
    for uid in "abc":
        writer.stage(uid, make_clips(uid, n_frames=3))
    tar = tmp_path / "d/staging/b.tar"
    tar.write_bytes(tar.read_bytes()[:-700])
    rolled = writer.roll(final=True)
    assert rolled.damaged == ["b"]
    assert (rolled.assets, rolled.clips) == (2, 6)
    assert writer.finished() == {"a", "c"}


def test_rejections_keep_the_last_word(tmp_path):
    writer = DatasetWriter(tmp_path / "d", CONFIG)
    for attempt in range(70):
        row = Rejection("x", "", "render", "quarantined:timeout", attempts=attempt, log_tail="line\nline")
        writer.reject([row, Rejection(f"y{attempt}", "Run", "curate", "bad_file:truncated")])
    assert writer.rejected()["x"].attempts == 69
    assert len(writer.rejected()) == 71
    assert len(list((tmp_path / "d/rejected").glob("*.parquet"))) < 70


def test_clips_of_another_asset_and_twins_are_refused(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", CONFIG)
    clips = make_clips("a", n_frames=3)
    with pytest.raises(InputError, match="a clip of a"):
        writer.stage("b", clips)
    with pytest.raises(InputError, match="two clips"):
        writer.stage("a", [*clips, clips[0]])
    with pytest.raises(InputError, match="no clips"):
        writer.stage("a", [])


def test_small_parts_are_merged_while_readers_stay_right(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", CONFIG, shard_bytes=1)
    clips = make_clips("a", n_frames=1, size=8, rigs=("front_view",))[0]
    import dataclasses

    for i in range(70):
        writer.stage(f"u{i:02d}", [dataclasses.replace(clips, uid=f"u{i:02d}")])
    writer.roll()
    assert len(live_parts(Store(tmp_path / "d"))[0]) == 1
    assert len(Index(tmp_path / "d")) == 70
    assert read_clip(tmp_path / "d", "u33", "Run", "front_view").uid == "u33"
    writer.stage("v", [dataclasses.replace(clips, uid="v")])
    writer.roll(final=True)
    assert DatasetWriter(tmp_path / "d", CONFIG).finished() == {"v", *(f"u{i:02d}" for i in range(70))}


def test_importing_datasets_stays_light():
    heavy = {"torch", "pyarrow", "ray", "pandas"}
    code = f"import sys, orbit4d.datasets; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_missing_clips_are_named(synthetic_dataset):
    with pytest.raises(InputError, match="no asset 'nobody'"):
        read_clip(synthetic_dataset, "nobody")
    with pytest.raises(InputError, match="'Run', 'Jump'"):
        read_clip(synthetic_dataset, "asset-002", "Fly")
    with pytest.raises(InputError, match="dynamic_orbit 0, front_view 0"):
        read_clip(synthetic_dataset, "asset-002", "Jump", "ring_8")
    with pytest.raises(InputError, match="not an orbit4d dataset"):
        read_clip(synthetic_dataset / "shards", "a")
