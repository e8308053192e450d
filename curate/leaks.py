"""Leak guard: marks objects of published benchmarks, so that nobody trains on what is tested with them.

An asset is marked by its uid, its address or its contents. A renamed copy is caught where the contents of the
listed object are known: from the lists, from a table of hashes, or since an asset of a listed uid was seen in
this run, among its exact duplicates, or in an earlier run (whose hashes stand in the table's information).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.curate.columns import COLUMNS, info_of, with_info
from orbit4d.datasets.core.paths import stem_of
from orbit4d.datasets.sources.benchmarks import Benchmarks, load_benchmarks

#: Key of the table's information: SHA-256 -> benchmarks.
HASHES = "benchmark_hashes"
#: The same: [listed uids whose contents nobody knows, listed uids].
UNHASHED = "benchmark_unhashed"


def mark_benchmarks(
    table: pa.Table,
    benchmarks: Benchmarks | None = None,
    duplicates: Iterable[tuple[str, str]] = (),
) -> pa.Table:
    """The table with `benchmarks`, the names of those that hold each row's asset; marks that are there stay.

    `duplicates` are (path, uid of the asset with the same contents), as `resolve` gives them: exact copies
    share the mark, whichever of their names is the listed one.
    """
    known = benchmarks or load_benchmarks()
    known = known.knowing(info_of(table).get(HASHES, {}))
    rows = [
        (uid, sha256 or "", url or "")
        for uid, sha256, url in zip(*(_texts(table, name) for name in ("uid", "asset_sha256", "source_url")))
    ]
    contents = {uid: sha256 for uid, sha256, _ in rows}
    copies = [(stem_of(path), contents.get(uid, ""), "") for path, uid in duplicates]
    known = known.seen([*rows, *copies])
    before = _lists(table)
    marks = [sorted({*had, *known.of(*row)}) for had, row in zip(before, rows)]
    table = _with_column(table, "benchmarks", pa.array(marks, pa.list_(pa.string())))
    hashes = {row[1]: names for row, names in zip(rows, marks) if names and row[1]}
    hashes = {**info_of(table).get(HASHES, {}), **hashes}
    unknown = len(known.uids) - len(known.hashed)
    return with_info(table, {HASHES: hashes, UNHASHED: [unknown, len(known.uids)]})


def benchmark_masks(table: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """`benchmark:<name>` -> [rows] which rows are marked so."""
    if "benchmarks" not in table.column_names or not len(pc.list_flatten(table["benchmarks"])):
        return {}
    marks = _lists(table)
    names = sorted({name for row in marks for name in row})
    return {f"benchmark:{name}": np.array([name in row for row in marks], bool) for name in names}


def counted(table: pa.Table) -> dict[str, int]:
    """Benchmark -> how many assets of the table it holds."""
    found: dict[str, set[str]] = {}
    for uid, names in zip(table["uid"].to_pylist(), _lists(table)):
        for name in names:
            found.setdefault(name, set()).add(uid)
    return {name: len(uids) for name, uids in sorted(found.items())}


def _texts(table: pa.Table, name: str) -> list[str | None]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _lists(table: pa.Table) -> Sequence[Sequence[str]]:
    if "benchmarks" not in table.column_names:
        return [()] * table.num_rows
    return [row or () for row in table["benchmarks"].to_pylist()]


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), table.schema.field(name), values)
    kind, text = COLUMNS[name]
    return table.append_column(pa.field(name, kind, metadata={"description": text}), values)


def with_split(table: pa.Table, mode: str) -> pa.Table:
    """The table with `split`: `test` for marked rows when benchmarks go there, else null (by the uid)."""
    marked = [bool(row) and mode == "test" for row in _lists(table)]
    return _with_column(table, "split", pa.array(["test" if mark else None for mark in marked], pa.string()))
