"""Reading clips back: one ranged read each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orbit4d.datasets.core.damage import VERIFY
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.clip import Clip, sample_name
from orbit4d.datasets.store.passes import PASSES
from orbit4d.datasets.store.schema import row_clip, row_spans


def read_members(store: Store, row: Mapping[str, Any], passes: bool = True) -> list[bytes]:
    """Encoded images of an index row (frames, then passes by name), by one ranged read of its shard.

    Whole clips are compared with the row's sha256: what is copied or measured from damaged bytes would look
    sound ever after. Raises WorkError.
    """
    spans = row_spans(row, passes)
    start = min(offset for offset, _ in spans)
    end = max(offset + length for offset, length in spans)
    data = read_span(store, row["shard"], start, end)
    members = [data[offset - start : offset - start + length] for offset, length in spans]
    if passes and "sha256" in row and hashlib.sha256(b"".join(members)).hexdigest() != row["sha256"]:
        where = store.path(row["shard"])
        raise WorkError(f"{where}: the frames of {row['uid']} are not those that were written; {VERIFY}")
    return members


def read_span(store: Store, shard: str, start: int, end: int) -> bytes:
    """Bytes start..end of a shard, by one read; a missing or shorter shard raises WorkError."""
    try:
        return store.read_range(shard, start, end - start)
    except FileNotFoundError:
        raise WorkError(f"{store.path(shard)}: missing, though the index names it") from None


def read_clip(
    dataset: str | os.PathLike[str] | Index,
    uid: str,
    action: str | int = "",
    rig: str = "dynamic_orbit",
    orbit: int = 0,
    light: int = 0,
) -> Clip:
    """One clip of a dataset (a path, a URI, or an open Index).

    `action` is the action's name or its index in the asset's file. '' means the action of that name, or else
    the asset's only action. A clip that is not there raises InputError listing what is.
    """
    index = dataset if isinstance(dataset, Index) else Index(dataset)
    rows = pick_action(index, uid, action)
    for row in rows:
        if (row["rig"], row["orbit"], row["light"]) == (rig, orbit, light):
            clip = row_clip(row, read_members(index.shard_store, row))
            return replace(clip, passes={**clip.passes, **added_passes(index, clip)})
    have = ", ".join(sorted({_named(row["rig"], row["orbit"], row["light"]) for row in rows}))
    asked = _named(rig, orbit, light)
    raise InputError(f"{index.store.uri}: asset {uid} has no {asked} of action {action!r}; it has {have}")


def _named(rig: str, orbit: int, light: int) -> str:
    return f"{rig} {orbit}" + (f" light {light}" if light else "")


def added_passes(index: Index, clip: Clip) -> dict[str, tuple[bytes, ...]]:
    """Passes of a clip that lie beside it: those with an image for each of its frames."""
    sample = sample_name(clip.key)
    return {
        row["kind"]: tuple(index.added.members(row))
        for row in index.added.rows_of(clip.uid)
        if row["sample"] == sample and row["kind"] in PASSES
    }


def pick_action(index: Index, uid: str, action: str | int) -> list[dict[str, Any]]:
    """Rows of one action of an asset, as `read_clip` takes its name; InputError listing what is there."""
    uri = index.store.uri
    rows = index.rows_of(uid)
    if not rows:
        raise InputError(f"{uri}: no asset {uid!r}; `orbit4d list` names what is there")
    actions = sorted({(row["action_index"], row["action"]) for row in rows})
    if isinstance(action, int):
        chosen = [index for index, _ in actions if index == action]
    else:
        chosen = [index for index, name in actions if name == action]
        if not chosen and action == "" and len(actions) == 1:
            chosen = [actions[0][0]]
    if not chosen:
        names = ", ".join(repr(name) for _, name in actions)
        raise InputError(f"{uri}: asset {uid} has no action {action!r}; it has {names}")
    return [row for row in rows if row["action_index"] == chosen[0]]
