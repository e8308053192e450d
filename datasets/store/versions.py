"""Older versions of the index schema: what they lack, and their tables as tables of the present version.

Version 1 had neither lights nor synchronised cameras. A dataset may hold parts of both versions, since one
that was begun under version 1 is gone on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orbit4d.datasets.store.schema import INDEX_SCHEMA

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
