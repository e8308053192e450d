"""What is reviewed: a curated table, or a rendered dataset by its index, and where its images come from."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.curate import columns
from orbit4d.curate.duplicates import mark_duplicates
from orbit4d.curate.labels import without_labels
from orbit4d.curate.leaks import mark_benchmarks
from orbit4d.curate.rendered import look_of_clip
from orbit4d.curate.review.media import Previews, dataset_frames
from orbit4d.curate.rule_settings import PRESETS, Rules
from orbit4d.curate.tables import is_dataset, read_measured
from orbit4d.datasets.core.errors import InputError, OrbitError

#: Assets of a dataset whose first image is decoded to find those that look alike.
MOST_LOOKS = 5000
#: The rig that shows best what moves, if a dataset has it: its camera stands still.
_SHOWN = ("front_view", "dynamic_orbit")


@dataclass
class Opened:
    """A source that can be reviewed."""

    source: str
    """As it was named."""
    table: pa.Table
    """Measured rows without previews."""
    previews: Previews
    rules: Rules
    """Those that decided the table, or the defaults."""
    frames: Callable[[int], bytes] | None = None
    """Row -> animated WebP, where frames were rendered."""
    notes: list[str] = field(default_factory=list)


def open_source(source: str, rules: Rules | None = None) -> Opened:
    """Open a table that `curate` wrote, or a dataset (path or URI). Raises InputError for anything else."""
    if is_dataset(source):
        table, read, notes = _from_dataset(source)
        previews = Previews(table["preview"])
        table = table.drop_columns(["preview"])
        return Opened(source, table, previews, rules or PRESETS["default"], read, notes)
    found = read_measured(source)
    if found is None:
        if not os.path.exists(source) and "://" not in source:
            raise InputError(f"{source}: no such table or dataset; check the path")
        raise InputError(
            f"{source}: is neither a table that `orbit4d curate` wrote nor a rendered dataset; "
            "run `orbit4d curate` on it first"
        )
    if not found.num_rows:
        raise InputError(f"{source}: the table has no row; there is nothing to review")
    stored = columns.info_of(found).get("rules")
    if rules is None:
        rules = Rules(**{**stored, "license": tuple(stored["license"])}) if stored else PRESETS["default"]
    frames, notes = _rendered_frames(found)
    previews = Previews(found["preview"])
    return Opened(source, without_labels(found).drop_columns(["preview"]), previews, rules, frames, notes)


def _rendered_frames(table: pa.Table) -> tuple[Callable[[int], bytes] | None, list[str]]:
    """The frames of a table that was measured on a rendered dataset, where that is still there."""
    place = columns.info_of(table).get("rendered")
    if not place:
        return None, []
    try:
        clips = _clips(place)[1]
    except OrbitError as error:
        return None, [f"the frames are not shown, only previews: {error}"]
    keys = zip(table["uid"].to_pylist(), table["action_index"].to_pylist())
    numbers = [clips.get(key) for key in keys]
    return _by_row(place, numbers), []


def _by_row(place: str, numbers: list[int | None]) -> Callable[[int], bytes]:
    from orbit4d.datasets.index.index import Index

    read = dataset_frames(Index(place))

    def of(row: int) -> bytes:
        number = numbers[row]
        return b"" if number is None else read(number)

    return of


_READ = ["uid", "action", "action_index", "rig", "orbit", "light", "camera_label", "window_start",
         "window_end", "measures", "measures_more", "license", "author", "source_url", "caption",
         "asset_sha256"]  # fmt: skip


def _clips(place: str) -> tuple[list[list[dict[str, Any]]], dict[tuple[str, int], int]]:
    """The rows of every action, and (uid, action_index) -> index row of the clip that is shown."""
    from orbit4d.datasets.index.index import Index

    index = Index(place)
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for first, part in index.read(_READ):
        for i, row in enumerate(part.to_pylist()):
            groups.setdefault((row["uid"], row["action_index"]), []).append({**row, "number": first + i})
    if not groups:
        raise InputError(f"{place}: the dataset holds no clip yet; render into it first")
    shown = {key: min(rows, key=_rank)["number"] for key, rows in groups.items()}
    return list(groups.values()), shown


def _rank(row: dict[str, Any]) -> tuple[int, int, int, int]:
    rig = _SHOWN.index(row["rig"]) if row["rig"] in _SHOWN else len(_SHOWN)
    return rig, row["orbit"], row["light"] or 0, row["number"]


def _from_dataset(place: str) -> tuple[pa.Table, Callable[[int], bytes], list[str]]:
    """The table of a dataset from what its index says of the clips; no clip is decoded but one an asset, for
    its look."""
    groups, shown = _clips(place)
    rows = [_row(place, group) for group in groups]
    notes = []
    if len({row["uid"] for row in rows}) <= MOST_LOOKS:
        _add_looks(place, rows, shown)
    else:
        notes.append(
            f"near-duplicates are not searched among more than {MOST_LOOKS:,} assets: review the table of "
            f"`orbit4d curate {place}`, which knows them"
        )
    table = columns.build(rows, {"rendered": place})
    table = mark_benchmarks(mark_duplicates(table))
    return table, _by_row(place, [shown[row["uid"], row["action_index"]] for row in rows]), notes


def _row(place: str, group: list[dict[str, Any]]) -> dict[str, Any]:
    first = min(group, key=_rank)
    # Synchronised cameras may turn away or stand near: they say nothing of the asset where orbits do.
    orbits = [row for row in group if row["camera_label"] is None] or group
    found: dict[str, list[float]] = {}
    for row in orbits:
        for name, value in (*(row["measures"] or {}).items(), *(row["measures_more"] or ())):
            if value is not None and name in columns.COLUMNS:
                found.setdefault(name, []).append(value)
    # A border that one clip touches is touched; everything else is one number, or a mean.
    measures = {n: max(v) if n == "boundary_touch" else float(np.mean(v)) for n, v in found.items()}
    text = ("uid", "action", "action_index", "license", "author", "source_url", "caption", "asset_sha256")
    start, end = first["window_start"], first["window_end"]
    return {
        **{name: value for name, value in measures.items() if columns.COLUMNS[name][0] == pa.float64()},
        **{name: first[name] for name in text},
        "path": place,
        "status": "measured",
        "window_start": start,
        "window_end": end,
        "seconds": None if start is None or end is None else end - start,
    }


def _add_looks(place: str, rows: list[dict[str, Any]], shown: dict[tuple[str, int], int]) -> None:
    from orbit4d.datasets.index.index import Index

    index = Index(place)
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(row["uid"], shown[row["uid"], row["action_index"]])
    with ThreadPoolExecutor(4) as pool:
        looks = dict(zip(first, pool.map(lambda number: look_of_clip(index, number), first.values())))
    for row in rows:
        row["phash"] = looks[row["uid"]]
