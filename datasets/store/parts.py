"""Index parts: which files under index/ count, and how small ones become large ones without a reader
noticing.

Each shard gets one part. Opening an index of thousands of small parts would be slow, so the driver merges
them: it writes `merged-*.parquet`, whose footer names the parts it replaces, and then deletes those. Between
the two steps both exist; a reader leaves out what a merged part replaces, so no row is ever seen twice.

A dataset that was begun under version 1 of the schema, which had neither lights nor synchronised cameras, is
resumed: it then holds parts of both versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.storage import CONCURRENT_READS, Store
from orbit4d.datasets.store import sealed
from orbit4d.datasets.store.schema import INDEX_SCHEMA

T = TypeVar("T")

FOLDER = "index"
NOT_READABLE = "not a readable index part"
REPLACES = b"orbit4d.replaces"
#: Small parts are merged once there are this many of them...
MERGE_AT = 64
#: ...into parts of up to this many rows.
ROWS_PER_PART = 1 << 17
#: Columns that version 2 added, and what a row of version 1 says in them.
ADDED: dict[str, Any] = {
    "light": 0,
    "camera_label": None,
    "rig_draw": None,
    "metres_per_unit": None,
    "lens_mm": None,
    "sensor_mm": None,
    "camera_draw": None,
    "lighting": None,
}
VERSION_1 = pa.schema([field for field in INDEX_SCHEMA if field.name not in ADDED])


def live_parts(store: Store) -> tuple[list[str], list[str]]:
    """(parts that count, parts that a merged part replaces but that are still there), sorted by name."""
    names = list(store.list(FOLDER, ".parquet"))
    replaced: set[str] = set()
    for name in names:
        if name.startswith(f"{FOLDER}/merged-"):
            with _reading(store, name):
                # Metadata is None in a footer whose list of keys is damaged.
                replaced |= set(json.loads((footer(store, name).metadata or {}).get(REPLACES, b"[]")))
    return [n for n in names if n not in replaced], [n for n in names if n in replaced]


def footer(store: Store, name: str) -> pq.FileMetaData:
    """Parquet metadata of a part; damage raises WorkError."""
    with _reading(store, name), pq.ParquetFile(store.open(name)) as file:
        return file.metadata


def sequence(name: str) -> int:
    """Number in `shards/000012-….tar`, `index/000012-….parquet` or `index/merged-000012-….parquet`.

    -1 if none.
    """
    number = name.rsplit("/", 1)[-1].removeprefix("merged-").split("-", 1)[0].split(".", 1)[0]
    return int(number) if number.isdigit() else -1


def merge_small(store: Store, force: bool = False) -> int:
    """Merge the small parts when there are many (or more than one and `force`).

    Returns how many were replaced.
    """
    live, stale = live_parts(store)
    store.delete(stale)
    if len(live) < (2 if force else MERGE_AT):
        return 0
    rows = dict(zip(live, _at_once(store, lambda name: footer(store, name).num_rows, live)))
    small = [name for name in live if rows[name] < ROWS_PER_PART // 2]
    if len(small) < (2 if force else MERGE_AT):
        return 0
    replaced = 0
    group: list[str] = []
    for name in [*small, None]:
        if group and (name is None or sum(rows[n] for n in group) + rows[name] > ROWS_PER_PART):
            if len(group) > 1:
                _merge(store, group)
                replaced += len(group)
            group = []
        if name is not None:
            group.append(name)
    return replaced


def _merge(store: Store, names: Sequence[str]) -> None:
    # Parts of an older version become parts of the present one.
    tables = [
        completed(sealed.load(data, store.path(name))) for name, data in zip(names, store.read_many(names))
    ]
    _replace(store, names, pa.concat_tables(tables).replace_schema_metadata(INDEX_SCHEMA.metadata))


def _replace(store: Store, names: Sequence[str], table: pa.Table) -> None:
    """Put one part with the rows of `table` in the place of others."""
    stamp = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    merged = f"{FOLDER}/merged-{max(map(sequence, names)):06d}-{stamp}.parquet"
    # An asset lies in one part, so sorting keeps its rows adjacent and makes row-group statistics useful.
    order = [
        ("uid", "ascending"),
        ("action_index", "ascending"),
        ("rig", "ascending"),
        ("orbit", "ascending"),
        ("light", "ascending"),
    ]
    store.put(merged, sealed.dump(table.sort_by(order), {REPLACES.decode(): json.dumps(list(names))}))
    crash_point("compact_after_merged")
    store.delete(names[:1])
    crash_point("compact_half_deleted")
    store.delete(names[1:])


def drop_doubles(store: Store) -> int:
    """Remove the rows of assets that stand in two parts; returns how many assets did.

    Two drivers may have committed an asset, one asleep while the other took over. Its clips are the same in
    both. Those in the oldest part stay whose shard is there; whoever looks decides alike, so it may be done
    by both drivers at once.
    """
    live = sorted(live_parts(store)[0], key=lambda name: (sequence(name), name))
    found: dict[str, list[tuple[bool, int]]] = {}
    there: set[str] | None = None
    tables = list(read_parts(store, live, ["uid", "shard"]))
    seen: set[str] = set()
    double: set[str] = set()
    for table in tables:
        uids = set(table.column("uid").to_pylist())
        double |= seen & uids
        seen |= uids
    if not double:
        return 0
    there = set(store.list("shards"))
    for number, table in enumerate(tables):
        for uid, shard in set(zip(table["uid"].to_pylist(), table["shard"].to_pylist())):
            if uid in double:
                found.setdefault(uid, []).append((shard not in there, number))
    keeper = {uid: min(places)[1] for uid, places in found.items()}
    for number, name in enumerate(live):
        gone = [uid for uid, places in found.items() for _, n in places if n == number != keeper[uid]]
        if gone:
            whole = sealed.load(store.read(name), store.path(name))
            kept = whole.filter(pc.invert(pc.is_in(whole["uid"], value_set=pa.array(gone))))
            if kept.num_rows:
                _replace(store, [name], kept)
            else:
                store.delete([name])
    return len(double)


def read_part(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of one part, page checksums verified; damage raises WorkError."""
    with _reading(store, name), pq.ParquetFile(store.open(name), page_checksum_verification=True) as file:
        check_columns(file)
        table = whole(file.read(columns=None if columns is None else list(columns)))
        return completed(table, columns)


def read_parts(
    store: Store, names: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """`read_part` of several, in order; of a URI several at a time."""
    return _at_once(store, lambda name: read_part(store, name, columns), names)


def _at_once(store: Store, work: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
    if store.local is not None or len(names) < 2:
        yield from map(work, names)
        return
    with ThreadPoolExecutor(min(CONCURRENT_READS // 4, len(names))) as pool:
        yield from pool.map(work, names)


def whole(table: pa.Table) -> pa.Table:
    """The table, once its texts, offsets and dictionaries were found sound; raises where they are not.

    Arrow looks at them only when a value is taken out, which may be far from here.
    """
    table.validate(full=True)
    return table


def check_columns(file: pq.ParquetFile) -> None:
    """Raise unless the file has the columns of the index, by name and type.

    Checksums cover pages, not the footer that names them: a column whose name or type is damaged would be
    missing, or come as other values, where it is asked for.
    """
    found = file.schema_arrow
    if not is_known(found):
        raise pa.ArrowInvalid(f"column {first_odd(found)} is not that of the schema")


def _reading(store: Store, name: str) -> AbstractContextManager[None]:
    return reading(store.path(name), NOT_READABLE)


def is_known(schema: pa.Schema) -> bool:
    """Whether columns, by name and type, are those of a version that is read."""
    return schema.equals(INDEX_SCHEMA) or schema.equals(VERSION_1)


def first_odd(schema: pa.Schema) -> str:
    """Name of the first column that the schema lacks or has of another type."""
    return next((field.name for field in VERSION_1 if field not in schema), "one too many")


def completed(table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table with the columns it lacks of those asked for (None: of all), as its version meant them."""
    wanted = INDEX_SCHEMA.names if columns is None else columns
    for name in wanted:
        if name in ADDED and name not in table.column_names:
            field = INDEX_SCHEMA.field(name)
            table = table.append_column(field, pa.array([ADDED[name]] * table.num_rows, field.type))
    return table
