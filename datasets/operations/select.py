"""A part of a dataset as a dataset: a view (index only), or a compact copy; and several datasets as one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.added.copying import copy_added, view_added
from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.added.rows import clip_sample
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.index.splits import fallen
from orbit4d.datasets.index.where import matching
from orbit4d.datasets.sources.tables import read_table
from orbit4d.datasets.store import manifest, parts, rejections, sealed
from orbit4d.datasets.store.clip import Clip, ClipKey, sample_name
from orbit4d.datasets.store.schema import SPLITS, row_clip
from orbit4d.datasets.store.writer import SHARD_BYTES, DatasetWriter

_ORDER = [(name, "ascending") for name in ("uid", "action_index", "rig", "orbit", "light")]


def chosen(
    index: Index,
    where: str | None,
    split: str | None,
    table: str | None = None,
    notes: list[str] | None = None,
) -> npt.NDArray[np.bool_]:
    """[R] rows of an index that satisfy all that are given; lines worth showing are added to `notes`."""
    if split is not None and split not in SPLITS:
        raise InputError(f"--split {split}: known are {', '.join(SPLITS)}")
    keep = np.ones(len(index), bool) if where is None else matching(index, where)
    if split is not None:
        codes = index.keys.split.copy()
        for uid, other in table_splits(table).items():
            codes[pc.equal(index.keys.uids, uid).to_numpy(zero_copy_only=False)] = SPLITS.index(other)
        keep &= codes[index.keys.asset] == SPLITS.index(split)
    if table is not None:
        keep &= accepted(index, table, notes)
    return keep


def accepted(index: Index, table: str, notes: list[str] | None = None) -> npt.NDArray[np.bool_]:
    """[R] rows whose (uid, action_index) the curated table at `table` accepts; an action that the table does
    not name is not accepted. Accepted actions that the dataset lacks are named in `notes`. Raises InputError
    for a table without verdicts."""
    columns = ("uid", "action_index", "verdict")
    rows = read_table(table, columns)
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise InputError(f"{table}: has no column {missing[0]}; name a table that `orbit4d curate` wrote")
    rows = rows.filter(pc.fill_null(pc.equal(rows["verdict"], "accepted"), False))
    if rows["uid"].null_count or rows["action_index"].null_count:
        raise InputError(f"{table}: an accepted row has no uid or action_index; both name the action")
    uids = pc.unique(rows["uid"])

    def keys(some: pa.Table) -> npt.NDArray[np.int64]:
        known = pc.fill_null(pc.index_in(some["uid"], value_set=uids), -1).to_numpy().astype(np.int64)
        return np.where(known < 0, -1, known << 32 | some["action_index"].to_numpy())

    wanted = keys(rows)
    keep = np.zeros(len(index), bool)
    lacking = np.unique(wanted)
    for first, part in index.read(["uid", "action_index"]):
        here = keys(part)
        keep[first : first + len(part)] = np.isin(here, wanted)
        lacking = np.setdiff1d(lacking, here, assume_unique=True)
    if notes is not None and len(lacking):
        names = [f"{uids[int(key >> 32)]} {key & 0xFFFFFFFF}" for key in lacking[:4]]
        shown = ", ".join(names[:3]) + (", ..." if len(lacking) > 3 else "")
        notes.append(
            f"{table}: {len(lacking)} of {len(np.unique(wanted))} accepted actions are not in the dataset "
            f"({shown})"
        )
    return keep


def table_splits(table: str | None) -> dict[str, str]:
    """uid -> split of the assets that the curated table at `table` puts into one (objects of benchmarks that
    are kept for testing). Raises InputError for a split that is none."""
    rows = read_table(table, ("uid", "split")) if table is not None else None
    if rows is None or "split" not in rows.column_names:
        return {}
    found = {row["uid"]: row["split"] for row in rows.to_pylist() if row["split"]}
    strange = next((split for split in found.values() if split not in SPLITS), None)
    if strange is not None:
        raise InputError(f"{table}: names a split {strange!r}; known are {', '.join(SPLITS)}")
    return found


def _put_into(rows: pa.Table, splits: dict[str, str]) -> pa.Table:
    """Index rows with the splits of some uids replaced."""
    if not splits:
        return rows
    pairs = zip(rows["uid"].to_pylist(), rows["split"].to_pylist())
    column = pa.array([splits.get(uid, split) for uid, split in pairs], pa.string())
    at = rows.column_names.index("split")
    return rows.set_column(at, rows.schema.field("split"), column)


def clips(index: Index, keep: npt.NDArray[np.bool_] | None = None) -> Iterator[tuple[str, list[Clip]]]:
    """(uid, its clips) of an index, asset by asset, read and not decoded."""
    numbers = np.arange(len(index)) if keep is None else np.flatnonzero(keep)
    assets = index.keys.asset[numbers]
    for rows in np.split(numbers, np.flatnonzero(np.diff(assets)) + 1):
        if len(rows):
            found = [index.row(int(number)) for number in rows]
            yield found[0]["uid"], [row_clip(r, read_members(index.shard_store, r)) for r in found]


def select_view(
    uri: str,
    out: str,
    where: str | None = None,
    split: str | None = None,
    table: str | None = None,
    notes: list[str] | None = None,
) -> int:
    """Write a dataset that holds the chosen rows and points to the shards of `uri`; returns its clips.

    `where` is an expression on the index, `split` one of its splits, `table` a curated table whose accepted
    actions are kept; what is given holds together. Lines worth showing are added to `notes`.
    The view is good as long as the source stays where it is. An `out` that exists raises InputError.
    """
    index = Index(uri)
    keep = chosen(index, where, split, table, notes)
    check_chosen(index, keep, split, notes)
    store = Store(out)
    if store.entries():
        raise InputError(f"{out}: exists already; choose another --out")
    for number, part in enumerate(index.parts):
        rows = parts.read_part(index.store, part.name)
        rows = rows.filter(pa.array(keep[part.first_row : part.first_row + part.n_rows]))
        if rows.num_rows:
            rows = _put_into(rows, table_splits(table))
            store.put(f"{parts.FOLDER}/{number:06d}-view.parquet", sealed.dump(rows))
    view_added(index.added, _names(index, keep), store)
    # Written last: without it the folder is no dataset.
    source = manifest.Manifest(
        config=index.manifest.config, software=index.manifest.software, shards_at=index.shard_store.uri
    )
    store.put(manifest.NAME, manifest.dump(source))
    return int(keep.sum())


def _names(index: Index, keep: npt.NDArray[np.bool_]) -> dict[str, set[str]]:
    """uid -> names of its kept clips; {} where nothing was added to any."""
    names: dict[str, set[str]] = {}
    for number in np.flatnonzero(keep) if len(index.added) else ():
        row = index.row(int(number))
        names.setdefault(row["uid"], set()).add(clip_sample(row))
    return names


def select_copy(
    uri: str,
    out: str,
    where: str | None = None,
    split: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    table: str | None = None,
    notes: list[str] | None = None,
) -> int:
    """Write the chosen clips as a dataset of their own; returns its clips. Run again, it resumes."""
    index = Index(uri)
    keep = chosen(index, where, split, table, notes)
    check_chosen(index, keep, split, notes)
    writer = DatasetWriter(
        out, index.manifest.config, shard_bytes=shard_bytes, software=index.manifest.software
    )
    _copy(index, keep, writer, set(), table_splits(table))
    _roll(writer, final=True)
    return int(keep.sum())


def check_chosen(
    index: Index, keep: npt.NDArray[np.bool_], split: str | None, notes: Sequence[str] | None = None
) -> None:
    """Raise InputError, with the reason where it is known, when no row is kept."""
    if not keep.any():
        have = fallen(index) if split is not None else ""
        why = "; ".join([*([f"the splits are {have}"] if have else []), *(notes or ())])
        given = f" ({why})" if why else ""
        raise InputError(f"{index.store.uri}: no clip matches{given}; nothing was written")


@dataclass
class Merged:
    """What `merge` did."""

    clips: int = 0
    duplicates: list[tuple[ClipKey, str]] = field(default_factory=list)
    """Clips held by more than one input, with the input whose copy was left out."""


def merge(uris: Sequence[str], out: str, shard_bytes: int = SHARD_BYTES, force: bool = False) -> Merged:
    """Join datasets. A clip, known by (uid, action, rig, orbit, light), that several hold is taken from the
    first.

    Datasets of different configurations raise InputError naming the first key that differs, unless `force`;
    the merged one then records no configuration but the list of those it came from.
    """
    indices = [Index(uri) for uri in uris]
    configs: list[Any] = [index.manifest.config for index in indices]
    for uri, config in zip(uris[1:], configs[1:]):
        where = manifest.first_difference(configs[0], config)
        if where is not None and not force:
            raise InputError(
                f"{uri}: made with another configuration than {uris[0]} ({where}); --force merges them"
            )
    same = all(manifest.first_difference(configs[0], config) is None for config in configs)
    writer = DatasetWriter(out, configs[0] if same else {"merged": configs}, shard_bytes=shard_bytes)
    merged = Merged()
    taken: dict[str, list[int]] = {}
    for number, index in enumerate(indices):
        for uid in index.keys.uids.to_pylist():
            taken.setdefault(uid, []).append(number)
    # An asset whose clips are spread over several inputs must be staged whole.
    for index in indices:
        keep = np.ones(len(index), bool)
        shared = [i for i, uid in enumerate(index.keys.uids.to_pylist()) if len(taken[uid]) > 1]
        keep[np.isin(index.keys.asset, shared)] = False
        merged.clips += _copy(index, keep, writer, writer.finished())
    done = writer.finished()
    for uid, numbers in sorted(taken.items()):
        if len(numbers) == 1:
            continue
        union: dict[ClipKey, Clip] = {}
        came_from: dict[int, set[str]] = {}
        for number in numbers:
            for row in indices[number].rows_of(uid):
                clip = row_clip(row, read_members(indices[number].shard_store, row))
                if clip.key in union:
                    merged.duplicates.append((clip.key, os.fspath(uris[number])))
                else:
                    union[clip.key] = clip
                    came_from.setdefault(number, set()).add(clip_sample(row))
        merged.clips += len(union)
        if uid not in done:
            copy_added([(indices[n].added, names) for n, names in came_from.items()], uid, writer.store)
            writer.stage(uid, union.values())
    known = set(writer.rejections())
    refused = {row for index in indices for row in rejections.read(index.store)} - known
    writer.reject(sorted((row for row in refused if row.uid not in taken), key=lambda row: row.uid))
    _roll(writer, final=True)
    return merged


def _roll(writer: DatasetWriter, final: bool = False) -> None:
    """Commit what is staged, and then what belongs beside it."""
    writer.roll(final=final)
    roll_added(writer.store, writer.indexed(), writer.shard_bytes, final)


def _copy(
    index: Index,
    keep: npt.NDArray[np.bool_],
    writer: DatasetWriter,
    done: set[str],
    splits: Mapping[str, str] | None = None,
) -> int:
    """Stage and roll the kept rows; returns their number. `splits` puts assets into a split by their uid."""
    done = done or writer.finished()
    waiting = 0
    with Progress("copy", int(keep.sum()), "clip") as progress:
        for uid, some in clips(index, keep):
            if uid not in done:
                copy_added([(index.added, {sample_name(clip.key) for clip in some})], uid, writer.store)
                if splits and uid in splits:
                    some = [replace(clip, split=splits[uid]) for clip in some]
                writer.stage(uid, some)
                waiting += sum(len(member) for clip in some for member in clip.members)
                if waiting >= writer.shard_bytes:
                    _roll(writer)
                    waiting = 0
            progress.update(len(some))
    return int(keep.sum())
