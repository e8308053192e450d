"""Tables of tags beside the measures: columns `tag:<name>`, and the rule `keep`, an expression over them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.joined_tables import read_joined
from orbit4d.datasets.sources.lists import named

PREFIX = "tag:"


def with_tags(table: pa.Table, paths: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The table with the columns of the tables at `paths`, joined by uid, contents and address; and notes on
    assets without a row and on keys that contradict each other. A later table replaces columns of the same
    name. Raises InputError."""
    notes = []
    uids, hashes, urls = (table[name].to_pylist() for name in ("uid", "asset_sha256", "source_url"))
    for path in paths:
        joined = read_joined(path)
        found = [joined.find((uid, sha256 or "", url or "")) for uid, sha256, url in zip(uids, hashes, urls)]
        for warning in dict.fromkeys(warning for _, warning in found if warning):
            notes.append(warning)
        missing = list(dict.fromkeys(uid for uid, (row, _) in zip(uids, found) if row is None))
        if missing and not joined.complete:
            notes.append(f"{path}: no row for {len(missing)} of {len(set(uids))} assets ({named(missing)})")
        for name in joined.columns:
            absent = False if joined.complete else None
            column = pa.array([absent if row is None else row[name] for row, _ in found])
            table = _put(table, f"{PREFIX}{name}", column)
    return table, notes


def _put(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    field = pa.field(name, column.type, metadata={"description": "from a table given as --tags"})
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, column)
    return table.append_column(field, column)


def keep_mask(table: pa.Table, expression: str) -> tuple[npt.NDArray[np.bool_], int]:
    """([rows] which rows satisfy an SQL expression over tags and measures, rows on which it cannot tell since
    a value is missing; these do not). Raises InputError for a broken expression, naming the columns."""
    import duckdb

    arrays = {}
    for name in table.column_names:
        bare = name.removeprefix(PREFIX)
        if bare == name or bare not in table.column_names:
            arrays[bare] = table[name]
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", re.sub(r"'(?:[^']|'')*'", " ", expression.lower())))
    used = {name: column for name, column in arrays.items() if name.lower() in words}
    used["_row"] = pa.array(np.arange(table.num_rows))
    with duckdb.connect(config={"threads": "2"}) as connection:
        # The expression comes from a user's command line; it must not reach files or the network.
        connection.execute("SET enable_external_access = false")
        try:
            if len(connection.extract_statements(f"SELECT 1 WHERE ({expression}\n)")) != 1:
                raise InputError(f"--keep {expression!r}: give one expression, not several statements")
            connection.register("part", pa.table(used))
            rows = connection.execute(
                f"SELECT _row, CAST(({expression}\n) AS BOOLEAN) FROM part ORDER BY _row"
            ).fetchall()
        except duckdb.Error as error:
            tags = ", ".join(n.removeprefix(PREFIX) for n in table.column_names if n.startswith(PREFIX))
            why = str(error).splitlines()[0]
            raise InputError(
                f"--keep {expression!r}: {why}; tags are {tags or 'none: give --tags TABLE'}"
            ) from error
    values = [value for _, value in rows]
    return np.array([value is True for value in values], bool), sum(value is None for value in values)
