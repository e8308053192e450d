"""Flipped bits in every file of a dataset: each reader says which file is damaged, and never raises its
parser's own error; `verify` finds them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets import DatasetWriter, Index, InputError, Rejection, WorkError, read_clip
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import OrbitError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.layouts.diffusion4d import import_diffusion4d
from orbit4d.datasets.loader.dataset import OrbitDataset
from orbit4d.datasets.operations.select import select_copy
from orbit4d.datasets.operations.stats import statistics
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.sources.captions import read_captions
from orbit4d.datasets.sources.lists import read_list
from orbit4d.datasets.sources.read_table import read_table
from orbit4d.datasets.store import manifest, parts, sealed
from orbit4d.datasets.store.schema import INDEX_SCHEMA, REJECTED_SCHEMA
from orbit4d.datasets.store.staging import load_staged, staged_assets

CONFIG = {"frames": 2, "lights": ["sun", "sky"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_clips) -> Path:
    """Two shards and their index parts, a merged part, a staged asset, two files of rejections."""
    folder = tmp_path_factory.mktemp("damage") / "d"
    writer = DatasetWriter(folder, CONFIG, shard_bytes=1)
    for uid in ("hare", "stoat"):
        writer.stage(uid, make_clips(uid, n_frames=2, size=8, rigs=("static_orbit", "dynamic_orbit")))
        writer.roll(final=True)
    for uid in "xy":
        writer.reject([Rejection(uid, "Run", "render", "quarantined:timeout", "a line", 2, 1, "log\nlog")])
    waiting = [Rejection("wren", "Hop", "render", "still")]
    writer.stage("wren", make_clips("wren", n_frames=2, size=8, rigs=("dynamic_orbit",)), waiting)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flipped(folder: Path, path: Path, places: Any, bits: Any) -> Iterator[int]:
    """The dataset with one bit of a file flipped, place by place; whole again in the end."""
    content = path.read_bytes()
    try:
        for place, bit in zip(places, bits):
            damaged = bytearray(content)
            damaged[int(place)] ^= 1 << int(bit)
            path.write_bytes(damaged)
            yield int(place)
    finally:
        path.write_bytes(content)


def drawn(path: Path, seed: int, most: int) -> tuple[Any, Any]:
    """(places, bits): every byte of a small file, some of a large one, its last ones always."""
    rng = np.random.default_rng(seed)
    size = path.stat().st_size
    places = np.arange(size)
    if size > most:
        places = np.unique([*rng.choice(size, most, replace=False), *range(size - 4, size)])
    return places, rng.integers(0, 8, len(places))


def found_by_verify(folder: Path, path: Path) -> bool:
    try:
        return any(finding.kind == "damage" for finding in verify(str(folder)).findings)
    except InputError:
        # dataset.json so damaged that this is no dataset any more.
        return path.name == manifest.NAME


def test_verify_finds_a_flipped_bit_in_every_file(whole, seed):
    assert verify(str(whole)).findings == []
    for path in files_of(whole):
        for place in flipped(whole, path, *drawn(path, seed, 12)):
            assert found_by_verify(whole, path), (path.name, place)


def test_every_flipped_bit_of_dataset_json_is_found(whole):
    content = (whole / manifest.NAME).read_bytes()
    assert manifest.parse(content, "d").config == CONFIG
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(OrbitError, match="d: "):
                manifest.parse(bytes(damaged), "d")


def test_every_flipped_bit_of_a_small_sealed_file_is_found(whole):
    """Found before any parser sees it: a seal needs none."""
    path = next(path for path in files_of(whole) if path.match("rejected/*.parquet"))
    content = path.read_bytes()
    assert sealed.is_sealed(content)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        assert not sealed.is_sealed(bytes(damaged)), place
    assert not any(sealed.is_sealed(content[:n]) for n in range(0, len(content), 3))


@pytest.mark.parametrize("bit", [7, 5, 0])
def test_a_flipped_bit_in_the_name_of_any_column_is_found(whole, bit):
    """A name that is no UTF-8 any more (bit 7), or another name."""
    for folder in ("index", "staging", "rejected"):
        path = next(path for path in files_of(whole) if path.match(f"{folder}/*.parquet"))
        content = path.read_bytes()
        names = [name.encode() for name in INDEX_SCHEMA.names]
        # Thrift's field header, length, name: in the footer's list of columns, which comes first in it.
        footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        tries = [content.find(b"\x18" + bytes([len(name)]) + name, footer) for name in names]
        places = [at for at in tries if at >= 0]
        assert len(places) > 1, path
        for _ in flipped(whole, path, [at + 2 for at in places], [bit] * len(places)):
            assert found_by_verify(whole, path)
            if folder == "index":
                with pytest.raises(WorkError, match=path.name):
                    Index(whole).keys  # noqa: B018


def _index(folder: Path) -> Any:
    index = Index(folder)
    columns = [table.to_pylist() for _, table in index.read(["uid", "action", "measures", "renderer"])]
    rows = [index.row(number) for number in range(len(index))]
    return columns, rows, index.keys.uids.to_pylist(), index.rows_of("hare"), index.rows_of("stoat")


def _clips(folder: Path) -> Any:
    clips = [read_clip(folder, uid, "Run", rig) for uid in ("hare", "stoat") for rig in ("static_orbit",)]
    return [(clip.frames, clip.pixels().tobytes(), clip.time, clip.measures) for clip in clips]


def _loader(folder: Path) -> Any:
    data = OrbitDataset(folder)
    # Whether pixels are whole is `verify`'s to say: a training run does not hash what it reads.
    return [(item["uid"], item["c2w"].numpy().tobytes(), item["dynamic"].shape) for item in data]


def _writer(folder: Path) -> Any:
    writer = DatasetWriter(folder, CONFIG)
    return sorted(writer.indexed()), writer.rejections(), writer.digest()


def _staged(folder: Path) -> Any:
    store = Store(folder)
    return [
        (tar, rows.to_pylist(), told)
        for tar, rows, told in (load_staged(store, s) for s in staged_assets(store))
    ]


READERS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "index": (_index, ("index", "dataset.json")),
    "clips": (_clips, ("index", "shards", "dataset.json")),
    "loader": (_loader, ("index", "shards", "dataset.json")),
    "writer": (_writer, ("index", "rejected", "dataset.json")),
    "stats": (lambda folder: statistics(str(folder)), ("index", "rejected", "dataset.json")),
    "staged": (_staged, ("staging",)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_names_the_damaged_file_or_reads_what_was_written(whole, seed, name):
    read, places = READERS[name]
    good = read(whole)
    for path in files_of(whole):
        if path.relative_to(whole).parts[0] not in places:
            continue
        for place in flipped(whole, path, *drawn(path, seed, 25)):
            try:
                assert read(whole) == good, (path.name, place)
            except OrbitError as error:
                assert path.stem in str(error) and "\n" not in str(error), (path.name, place)


def test_damaged_frames_are_not_copied_into_another_dataset(whole, tmp_path):
    path = next(path for path in files_of(whole) if path.suffix == ".tar" and path.parent.name == "shards")
    content = path.read_bytes()
    at = content.rfind(b"VP8L") + 20
    for _ in flipped(whole, path, [at], [3]):
        with pytest.raises(WorkError, match=f"{path.name}: the frames of hare are not those"):
            select_copy(str(whole), str(tmp_path / "copy"))


def test_foreign_and_sealed_nonsense_is_damage_and_not_the_end_of_verify(whole):
    """Files with a right seal and wrong content: a column of another type, rows of nothing."""
    store = Store(whole)
    part = next(iter(store.list("index")))
    rows = parts.read_part(store, part)
    nothing = {field.name: pa.nulls(1, field.type) for field in INDEX_SCHEMA}
    odd = {
        "index/000900-odd.parquet": pa.table(nothing, schema=INDEX_SCHEMA),
        "index/000901-odd.parquet": rows.drop(["rig"]),
        "index/merged-000902-odd.parquet": rows,
        "rejected/000900.parquet": pa.table({"uid": [3]}),
        "rejected/000901.parquet": pa.table(
            {name: pa.nulls(1, REJECTED_SCHEMA.field(name).type) for name in REJECTED_SCHEMA.names}
        ),
    }
    for name, table in odd.items():
        info = {"orbit4d.replaces": "no list"} if "merged" in name else None
        store.put(name, sealed.dump(table, info))
        try:
            found = verify(str(whole)).findings
        finally:
            store.delete([name])
        assert name == "rejected/000901.parquet" or any(f.kind == "damage" for f in found), name
    assert verify(str(whole)).ok


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=100).map(str.encode),
        st.text('",;\t\n\r ab0#\ufeffé', max_size=60).map(str.encode),
    ),
    name=st.sampled_from(["x.txt", "x.csv", "x.parquet"]),
)
def test_whatever_a_list_or_table_holds_it_gets_one_line(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    for read in (read_list, read_table, read_captions):
        try:
            read(str(path))
        except InputError as error:
            assert name in str(error)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        _JSON.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {"kind": st.just("orbit4d dataset"), "schema_version": st.integers(-1, 3) | _JSON},
            optional={"config": _JSON, "software": _JSON, "shards_at": _JSON, "checksum": st.text()},
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_dataset_json_holds_it_gets_one_line(content):
    with pytest.raises(OrbitError, match=r"here/dataset\.json"):
        manifest.parse(content, "here/dataset.json")


def test_a_damaged_archive_names_itself(tmp_path, make_dataset, seed):
    """Bits of a published tar.gz: the import ends in one line, whatever zlib or tarfile raise."""
    import tarfile

    from orbit4d.datasets.layouts.exporting import export_dataset

    make_dataset(tmp_path / "d", assets=1, n_frames=2, size=8)
    export_dataset(str(tmp_path / "d"), str(tmp_path / "out"), "diffusion4d")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "out", "out")
    content = (tmp_path / "a.tar.gz").read_bytes()
    good, refused = import_diffusion4d(str(tmp_path / "a.tar.gz"), tmp_path / "in"), 0
    for place in np.random.default_rng(seed).integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(place) % 8
        (tmp_path / "bad.tar.gz").write_bytes(damaged)
        try:
            assert import_diffusion4d(str(tmp_path / "bad.tar.gz"), tmp_path / f"in{place}") == good
        except OrbitError as error:
            assert "bad.tar.gz" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyError("uid"),
        OverflowError(),
        OSError("torn\nend"),
    ],
)
def test_whatever_a_parser_raises_is_damage_with_the_file_s_name(error):
    with pytest.raises(WorkError, match="some/file: damaged") as caught, reading("some/file"):
        raise error
    assert "\n" not in str(caught.value) and "orbit4d verify" in str(caught.value)
    for own in (FileNotFoundError("gone"), InputError("some/file: bad use")):
        with pytest.raises(type(own)), reading("some/file"):
            raise own
    with pytest.raises(WorkError, match="some/file: a frame is damaged; run"), reading("some/file"):
        raise WorkError("a frame is damaged")
