"""Assets and actions that did not become clips, with the reason: rejected/*.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import sealed
from orbit4d.datasets.store.parts import sequence
from orbit4d.datasets.store.schema import REJECTED_SCHEMA

FOLDER = "rejected"
#: One file per call of `write` piles up; this many are merged into one.
_MERGE_AT = 64


@dataclass(frozen=True)
class Rejection:
    """Why an asset, or one action of it, is not in the dataset."""

    uid: str
    action: str
    """Name of the action, '' for the whole asset."""
    stage: str
    """curate, render or import."""
    reason: str
    """Reason code, such as bad_file:truncated or quarantined:timeout."""
    detail: str = ""
    attempts: int = 0
    preemptions: int = 0
    log_tail: str = ""


def write(store: Store, rows: Sequence[Rejection]) -> None:
    """Add rejections in one atomic put. The last row of a (uid, action, stage) is the one that counts."""
    if not rows:
        return
    names = list(store.list(FOLDER, ".parquet"))
    number = max(map(sequence, names), default=-1) + 1
    if len(names) >= _MERGE_AT:
        rows = [*read(store), *rows]
    table = pa.Table.from_pylist([asdict(row) for row in _unique(rows)], schema=REJECTED_SCHEMA)
    store.put(f"{FOLDER}/{number:06d}.parquet", sealed.dump(table))
    if len(names) >= _MERGE_AT:
        store.delete(names)


def read(store: Store) -> list[Rejection]:
    """All rejections, one per (uid, action, stage), sorted."""
    found: list[Rejection] = []
    names = list(store.list(FOLDER, ".parquet"))
    for name, data in zip(names, store.read_many(names)):
        table = sealed.load(data, store.path(name))
        with reading(store.path(name)):
            found += [Rejection(**row) for row in table.to_pylist()]
    return _unique(found)


def _unique(rows: Sequence[Rejection]) -> list[Rejection]:
    last = {(row.uid, row.action, row.stage): row for row in rows}
    return [last[key] for key in sorted(last)]
