"""Reading and writing curated tables, and what may be reused from one that is there."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orbit4d.curate.columns import COLUMNS, METADATA_KEY, conformed, info_of, lacking
from orbit4d.curate.duplicates import mark_duplicates
from orbit4d.datasets.assets.inspection import PASSING
from orbit4d.datasets.core import paths
from orbit4d.datasets.core.damage import reading, reason
from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.datasets.core.paths import is_uri, suffix_of
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.sources.lists import named
from orbit4d.datasets.store.sealed import read_bytes

if TYPE_CHECKING:
    from orbit4d.curate.measuring import MeasureSettings
    from orbit4d.curate.rule_settings import Rules


def _place(path: str) -> tuple[Store, str]:
    folder, _, name = path.rpartition("/")
    return Store(folder or ("/" if path.startswith("/") else ".")), name


def check_writable(path: str) -> None:
    """Raise InputError now and not after an hour's work when a table cannot be written to `path`."""
    if is_uri(path):
        _place(path)[0].entries()
        return
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file ending in .parquet")
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"{path}: cannot be written, {folder} is no folder you may write to; give another --out"
        )


def write_table(table: pa.Table, path: str) -> None:
    """Write a Parquet file in one atomic put, local or fsspec."""
    memory = io.BytesIO()
    # Previews are compressed already, and row groups of 8k rows keep readers that want few rows cheap.
    pq.write_table(table, memory, compression="zstd", row_group_size=8192, write_page_checksum=True)
    store, name = _place(path)
    store.put(name, memory.getvalue())


def read_table(path: str) -> pa.Table:
    """A table of measures: written by `write_table`, or by another program that kept its columns.

    Assets that look like one that is not in the table any more are compared with those that are. Raises
    InputError where it is none, or damaged.
    """
    store, name = _place(path)
    try:
        table = read_bytes(store.read(name))
        table.validate(full=True)
        info_of(table)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; check the path") from None
    except OrbitError:
        raise
    except Exception as error:
        # Damaged bytes make Arrow raise anything.
        raise InputError(f"{path}: is no Parquet file, or damaged ({reason(error)})") from error
    if not is_measured(table.schema):
        raise InputError(f"{path}: is not a table that `orbit4d curate` wrote; name its sources instead")
    table = conformed(table, path)
    for name in ("uid", "status"):
        if table[name].null_count:
            raise InputError(f"{path}: a row without {name}; every measured row has one")
    earlier = table["duplicate_of"].drop_null()
    if len(earlier) and not pc.all(pc.is_in(earlier, value_set=pc.unique(table["uid"]))).as_py():
        table = mark_duplicates(table)
    return table


def is_measured(schema: pa.Schema) -> bool:
    """Whether a table holds measures to decide on: its metadata says so, or it has all of their columns.

    Metadata is lost when another program filters the table.
    """
    if METADATA_KEY in (schema.metadata or {}):
        return {"uid", "action", "status", "motion_geometry"} <= set(schema.names)
    return not lacking(schema.names)


def unheeded(source: str) -> str | None:
    """The note on a Parquet table whose measures cannot be reused, since some of its columns are gone."""
    if not source.endswith(".parquet"):
        return None
    store, name = _place(source)
    with reading(source):
        names = pq.read_schema(store.open(name)).names
    if "motion_geometry" not in names:
        return None
    gone = lacking(names)
    return (
        f"{source}: has measures, but not all columns of a curated table ({named(gone)} missing): its assets "
        "are measured again; keep all columns to decide without measuring"
    )


def check_same_rules(path: str, rules: Rules) -> None:
    """Raise InputError for a table at `path` that other rules decided, naming one that differs."""
    store, name = _place(path)
    if not store.exists(name):
        return
    held = info_of(read_table(path)).get("rules") or {}
    now = json.loads(json.dumps(asdict(rules)))
    for key in now:
        # A rule that the table is older than is no other choice.
        if key in held and held[key] != now[key]:
            raise InputError(
                f"{path}: was decided with {key} {held.get(key)}, now it is {now[key]}; "
                "name another table as --out"
            )


def read_measured(source: str) -> pa.Table | None:
    """The table at `source` if `curate` wrote it; None if it is any other kind of source."""
    if not source.endswith(".parquet"):
        return None
    store, name = _place(source)
    try:
        if not store.exists(name):
            return None
        schema = pq.read_schema(store.open(name))
        measured = is_measured(schema)
    except OrbitError:
        raise
    except Exception as error:
        raise InputError(f"{source}: is no Parquet file, or damaged ({reason(error)})") from error
    return read_table(source) if measured else None


def is_dataset(source: str) -> bool:
    """Whether a local folder or a URI is a rendered dataset."""
    # A file at a URI is not asked for what would lie below it.
    return not (is_uri(source) and suffix_of(source)) and paths.is_dataset(source)


def known_rows(path: str, settings: MeasureSettings) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(uid, contents) -> rows of every asset that the table at `path` holds completely; {} without a table.
    Contents are a SHA-256, or the version of a file in object storage (`measuring.contents_of`).

    Raises InputError when the table was measured with other settings, which would make its rows and new
    ones incomparable, and when something else lies there.
    """
    from orbit4d.curate.measuring import MEASURE_VERSION, contents_of

    store, name = _place(path)
    if not store.exists(name):
        return {}
    table = read_table(path)
    info = info_of(table)
    if "measure_version" not in info:
        raise InputError(
            f"{path}: does not say how it was measured (another program wrote it), so new rows may not fit; "
            "write to another file, or use --remeasure"
        )
    before = {**info.get("measure", {}), "measure_version": info.get("measure_version")}
    now = {**asdict(settings), "measure_version": MEASURE_VERSION}
    for key in now:
        if before.get(key) != now[key]:
            raise InputError(
                f"{path}: was measured with {key} {before.get(key)}, now it is {now[key]}; "
                "write to another file, or use --remeasure"
            )
    found = {key: rows for key, rows in _by_asset(table) if _is_complete(rows)}
    for (uid, _), rows in list(found.items()):
        # An asset whose hash nobody takes before it is downloaded is known by its version there.
        if named_version := contents_of("", rows[0]["path"] or "", rows[0]["asset_version"] or ""):
            found[uid, named_version] = rows
    return found


def _by_asset(table: pa.Table) -> Iterator[tuple[tuple[str, str], list[dict[str, Any]]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names = [name for name in COLUMNS if name in table.column_names and name not in ("verdict", "reasons")]
    for row in table.select(names).to_pylist():
        if row["asset_sha256"]:
            found.setdefault((row["uid"], row["asset_sha256"]), []).append(row)
    yield from found.items()


def _is_complete(rows: list[dict[str, Any]]) -> bool:
    if any(row["status"] == "failed" or row.get("failure") in PASSING for row in rows):
        return False
    # A table made from another table may hold only some of an asset's actions. A file that was refused as a
    # whole has one row and no count.
    return len(rows) == max(rows[0]["n_actions"] or 0, 1)
