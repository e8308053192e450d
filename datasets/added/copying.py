"""Taking along what was added to clips, when clips are copied or selected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orbit4d.datasets.added.reading import AddedIndex
from orbit4d.datasets.added.rows import INDEX, SCHEMA, Added
from orbit4d.datasets.added.staging import stage_added
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import sealed

#: Kinds of a clip that rest on a kind of its action.
_TOGETHER = ("geometry", "surface")


def kept_rows(added: AddedIndex, uid: str, samples: set[str]) -> list[dict[str, Any]]:
    """Rows of an asset that belong to the clips named `samples`, or to an action that one of them is of."""
    actions = {sample.rsplit("__", 2)[0] for sample in samples}
    return [row for row in added.rows_of(uid) if row["sample"] in samples or row["sample"] in actions]


def copy_added(sources: Sequence[tuple[AddedIndex, set[str]]], uid: str, out: Store) -> int:
    """Stage in `out` what was added to clips of an asset; returns the rows.

    `sources` are datasets and the names of the clips that come from each. What clips of one action share is
    taken from the first dataset that has it, and what rests on it from there alone.
    """
    taken: dict[tuple[str, str], tuple[AddedIndex, dict[str, Any]]] = {}
    for added, samples in sources:
        rows = kept_rows(added, uid, samples)
        strange = {row["action_index"] for row in rows if (row["sample"], row["kind"]) in taken}
        for row in rows:
            if row["kind"] not in _TOGETHER or row["action_index"] not in strange:
                taken.setdefault((row["sample"], row["kind"]), (added, row))
    if taken:
        stage_added(
            out,
            uid,
            [
                Added(
                    uid,
                    row["action"],
                    row["action_index"],
                    row["sample"],
                    row["kind"],
                    tuple(added.members(row)),
                    row["refused"],
                    row["detail"],
                    json.loads(row["facts"] or "{}"),
                )
                for added, row in taken.values()
            ],
        )
    return len(taken)


def view_added(added: AddedIndex, samples: dict[str, set[str]], out: Store) -> int:
    """Write the index part of a view, whose clips are `samples` (uid -> names), into `out`."""
    rows = [row for uid in sorted(samples) for row in kept_rows(added, uid, samples[uid])]
    if rows:
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        out.put(f"{INDEX}/000000-view.parquet", sealed.dump(table))
    return len(rows)
