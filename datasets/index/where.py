"""Filters in SQL on the index: `license = 'CC0-1.0' and motion_magnitude between 0.001 and 0.1`.

DuckDB evaluates the expression on the columns it names, part by part. Measures may be written with or without
`measures.` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.store.schema import INDEX_SCHEMA, MEASURES

if TYPE_CHECKING:
    from orbit4d.datasets.index.index import Index


def columns_of(expression: str) -> list[str]:
    """Columns (dotted for measures) an expression may refer to: every word outside quotes that is one."""
    bare = re.sub(r"'(?:[^']|'')*'", " ", expression)
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", bare.lower()))
    found = [name for name in INDEX_SCHEMA.names if name in words and name != "measures"]
    measures = [name for name in MEASURES if name in words]
    if "measures" in words and not measures:
        measures = list(MEASURES)
    return found + [f"measures.{name}" for name in measures]


def matching(index: Index, expression: str) -> npt.NDArray[np.bool_]:
    """[R] whether each row of the index satisfies the expression; NULL counts as no.

    A broken expression raises InputError with DuckDB's first line.
    """
    keep = np.zeros(len(index), bool)
    for first, rows in _matches(index, expression):
        keep[first + rows] = True
    return keep


def _matches(index: Index, expression: str) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    import duckdb

    columns = columns_of(expression)
    with duckdb.connect(config={"threads": "2"}) as connection:
        # The expression comes from a user's command line; it must not reach files or the network.
        connection.execute("SET enable_external_access = false")
        try:
            parsed = connection.extract_statements(f"SELECT 1 WHERE ({expression}\n)")
            if len(parsed) != 1:
                raise InputError(f"where {expression!r}: give one expression, not several statements")
        except duckdb.Error as error:
            raise _broken(expression, error) from error
        for first, table in index.read(columns or ["orbit"]):
            arrays = {name: table.column(name) for name in table.column_names if name != "measures"}
            if "measures" in table.column_names:
                measures = table.column("measures")
                arrays["measures"] = measures
                for field in measures.type:
                    arrays[field.name] = pa.chunked_array(
                        [chunk.field(field.name) for chunk in measures.chunks], field.type
                    )
            arrays["_row"] = pa.array(np.arange(table.num_rows))
            connection.register("part", pa.table(arrays))
            try:
                hits = connection.execute(f"SELECT _row FROM part WHERE ({expression}\n)").fetchnumpy()[
                    "_row"
                ]
            except duckdb.Error as error:
                raise _broken(expression, error) from error
            finally:
                connection.unregister("part")
            yield first, np.sort(np.asarray(hits, np.int64))


def _broken(expression: str, error: Exception) -> InputError:
    return InputError(f"where {expression!r}: {str(error).splitlines()[0]}; columns are listed in the README")
