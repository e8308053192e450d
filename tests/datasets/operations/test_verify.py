"""`orbit4d verify`: whatever is done to a file, it is found."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets import DatasetWriter, Index, InputError, Rejection, WorkError, read_clip
from orbit4d.datasets.cli import verify as command
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.store import manifest
from orbit4d.datasets.store.parts import read_part
from orbit4d.datasets.store.schema import INDEX_SCHEMA
from orbit4d.datasets.store.sealed import dump


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_clips) -> Path:
    """A dataset with everything in it: two shards, a staged asset, rejections."""
    folder = tmp_path_factory.mktemp("verify") / "d"
    writer = DatasetWriter(folder, {"frames": 2}, shard_bytes=1)
    for uid in "ab":
        writer.stage(uid, make_clips(uid, n_frames=2, size=8))
    writer.reject([Rejection("x", "", "curate", "bad_file:truncated")])
    writer.roll(final=True)
    writer.stage("c", make_clips("c", n_frames=2, size=8))
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "d"))


def test_a_whole_dataset_is_found_whole(whole):
    seen = verify(str(whole))
    assert seen.findings == []
    assert (seen.assets, seen.clips, seen.shards, seen.staged, seen.rejected) == (2, 6, 2, 1, 1)
    result = CliRunner().invoke(command, [str(whole)])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == f"digest {seen.digest}"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(whole, data):
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files), label="file")
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1), label="byte")
    bit = data.draw(st.integers(0, 7), label="bit")
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    try:
        path.write_bytes(damaged)
        _assert_found(whole, path)
    finally:
        path.write_bytes(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncation_or_an_appended_byte_is_found(whole, data):
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files), label="file")
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(content) + 1), label="bytes")
    if kept == len(content):
        return
    try:
        path.write_bytes((content + b"\0")[:kept])
        _assert_found(whole, path)
    finally:
        path.write_bytes(content)


def _assert_found(folder: Path, path: Path) -> None:
    try:
        findings = verify(str(folder)).findings
    except InputError:
        # dataset.json so damaged that this is no dataset any more.
        assert path.name == "dataset.json"
        return
    assert any(finding.kind == "damage" for finding in findings), path


def test_a_missing_file_is_found(copy):
    for path in sorted(path for path in copy.rglob("*") if path.is_file() and path.parent.name == "shards"):
        content = path.read_bytes()
        path.unlink()
        assert [f.what for f in verify(str(copy)).findings] == [
            "missing, though the index names it for 3 clips"
        ]
        path.write_bytes(content)
    assert verify(str(copy)).ok


def test_repair_removes_what_was_never_committed_and_nothing_else(copy):
    digest = verify(str(copy)).digest
    rests = [
        "shards/000007-0badcafe.tar",
        "staging/half.tar",
        "shards/.tmp-1-x.tar",
        "index/.tmp-2-y.parquet",
    ]
    for name in rests:
        (copy / name).write_bytes(b"half")
    result = CliRunner().invoke(command, [str(copy)])
    assert result.exit_code == 1
    assert all(f"uncommitted: {name}" in result.output for name in rests)
    result = CliRunner().invoke(command, [str(copy), "--repair"])
    assert result.exit_code == 0, result.output
    assert not [name for name in rests if (copy / name).exists()]
    seen = verify(str(copy))
    assert (seen.findings, seen.digest, seen.staged) == ([], digest, 1)


def test_repair_never_removes_the_shard_of_a_damaged_index_part(copy):
    part = sorted((copy / "index").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-20])
    shards = sorted((copy / "shards").iterdir())
    result = CliRunner().invoke(command, [str(copy), "--repair"])
    assert result.exit_code == 1
    assert sorted((copy / "shards").iterdir()) == shards
    assert "no readable index part names" in result.output


def test_a_shard_that_lost_its_index_part_is_damage_and_nothing_removes_it(copy, make_clips):
    for part in (copy / "index").iterdir():
        part.unlink()
    foreign = copy / "shards/holiday.tar"
    with tarfile.open(foreign, "w") as tar:
        tar.add(copy / "dataset.json", "photo.json")
    shards = sorted((copy / "shards").iterdir())
    seen = verify(str(copy), repair=True)
    assert {f.kind for f in seen.findings} == {"damage"}
    assert {f.file for f in seen.findings} >= {f"shards/{path.name}" for path in shards}
    assert any(f.what.endswith("holds uncommitted assets (photo.json)") for f in seen.findings)
    # Nor does a run that continues in the folder.
    writer = DatasetWriter(copy, manifest.read(Store(copy)).config)
    writer.stage("new", make_clips("new", n_frames=2, size=8))
    writer.roll(final=True)
    assert set(shards) < set((copy / "shards").iterdir())


def test_duplicate_rows_are_found(copy):
    part = sorted((copy / "index").iterdir())[0]
    (copy / "index/000009-twin.parquet").write_bytes(part.read_bytes())
    found = [f.what for f in verify(str(copy)).findings]
    assert sum("stands in" in what for what in found) == 3


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("azimuth0_deg", lambda v: v + 1.0, "do not lie on the circle"),
        ("radius", lambda v: v * 1.01, "do not lie on the circle"),
        ("elevation_deg", lambda v: v + 0.5, "do not lie on the circle"),
        ("time", lambda v: [0.5, *v[1:]], "time"),
        ("c2w", lambda v: [[-x for x in v[0]], *v[1:]], "mirror"),
        ("n_frames", lambda v: v + 1, "frames but"),
        ("width", lambda v: v + 1, "the index says"),
        ("split", lambda v: "holdout", "unknown split"),
        ("sha256", lambda v: "0" * 64, "not those that were written"),
        ("offsets", lambda v: v[::-1], "not those that were written"),
    ],
)
def test_rows_that_contradict_themselves_are_found(copy, column, change, said):
    """The file is sealed again: only the content is wrong."""
    store = Store(copy)
    name = next(iter(store.list("index")))
    table = read_part(store, name)
    rows = table.to_pylist()
    for row in rows:
        row[column] = change(row[column])
    store.put(name, dump(table.from_pylist(rows, schema=INDEX_SCHEMA)))
    findings = verify(str(copy)).findings
    assert any(said in finding.what for finding in findings), findings


def test_schema_of_the_future_is_refused(copy):
    content = json.loads((copy / "dataset.json").read_text())
    content["schema_version"] = 99
    (copy / "dataset.json").write_text(json.dumps(content))
    for call in (lambda: Index(copy), lambda: verify(str(copy)), lambda: read_clip(copy, "a")):
        with pytest.raises(InputError, match="schema version 99"):
            call()


def test_foreign_files_are_refused(copy, tmp_path):
    (copy / "index/000004-foreign.parquet").write_bytes(b"PAR1 nothing of ours PAR1")
    with pytest.raises(WorkError, match="000004-foreign"):
        len(Index(copy))
    (copy / "index/000004-foreign.parquet").unlink()
    shard = sorted((copy / "shards").iterdir())[0]
    shard.write_bytes(b"\0" * shard.stat().st_size)
    assert any("not those that were written" in f.what for f in verify(str(copy)).findings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/dataset.json").write_text("{}")
    with pytest.raises(InputError, match="not an orbit4d dataset"):
        verify(str(tmp_path / "other"))


def test_a_truncated_shard_is_one_clear_line_for_a_reader(copy):
    shard = sorted((copy / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:1024])
    with pytest.raises(WorkError, match=r"truncated, run `orbit4d verify`"):
        read_clip(copy, "a", "Run", "static_orbit")


def test_unreadable_bucket_is_one_clear_line():
    with pytest.raises(InputError, match=r"s3://|gs://"):
        Index("gs://orbit4d-no-such-bucket/x")
