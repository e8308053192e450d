"""The clips of a dataset, one by one: what `orbit4d list` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.operations.select import chosen

COLUMNS = ("uid", "action", "rig", "orbit", "split", "n_frames", "license")


def listed(dataset: str, where: str | None = None, split: str | None = None) -> Iterator[dict[str, Any]]:
    """A row with the columns COLUMNS for each chosen clip (see `orbit4d select`), in the index's order.

    Rows are read part by part. Raises InputError when no clip matches, before the first row.
    """
    index = Index(dataset)
    keep = chosen(index, where, split)
    if not keep.any():
        asked = " that matches" if where is not None or split is not None else ""
        raise InputError(f"{dataset}: no clip{asked}; `orbit4d stats` counts what is there")
    return _rows(index, keep)


def _rows(index: Index, keep: Any) -> Iterator[dict[str, Any]]:
    for first, table in index.read(list(COLUMNS)):
        here = table.filter(pa.array(keep[first : first + table.num_rows]))
        for row in here.to_pylist():
            yield {name: row[name] for name in COLUMNS}
