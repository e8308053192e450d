"""What a dataset holds: counts, bytes, motion, licences."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store import rejections
from orbit4d.datasets.store.schema import SPLITS

_COLUMNS = ("uid", "action_index", "rig", "n_frames", "width", "height", "license", "shard", "shard_bytes")
_DICTIONARIES = ("rig", "license", "shard")
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def statistics(uri: str) -> dict[str, Any]:
    """Numbers of a dataset, as JSON holds them. Motion is the raw magnitude of the dynamic orbits.

    InputError for what is no dataset.
    """
    index = Index(uri)
    keys = index.keys
    rigs, licences, sizes, frames = Counter[str](), Counter[str](), Counter[str](), 0
    shards: dict[str, int] = {}
    licence_of_asset: dict[int, str] = {}
    motion: list[np.ndarray] = []
    seconds = 0.0
    columns = [*_COLUMNS, "measures.motion_magnitude", "render_seconds"]
    for first, table in index.read(columns):
        for row in (
            table.select(["rig", "license", "width", "height"])
            .group_by(["rig", "license", "width", "height"])
            .aggregate([([], "count_all")])
            .to_pylist()
        ):
            rigs[row["rig"]] += row["count_all"]
            sizes[f"{row['width']}x{row['height']}"] += row["count_all"]
        frames += int(np.sum(table["n_frames"].to_numpy()))
        seconds += float(np.sum(table["render_seconds"].to_numpy()))
        found = table.group_by(["shard", "shard_bytes"]).aggregate([])
        shards.update(zip(found["shard"].to_pylist(), found["shard_bytes"].to_pylist()))
        numbers = keys.asset[first : first + table.num_rows]
        at = np.flatnonzero(np.diff(numbers, prepend=-1))
        licence_of_asset.update(zip(numbers[at].tolist(), table["license"].take(at).to_pylist()))
        values = table["measures"].combine_chunks().field("motion_magnitude").to_numpy(zero_copy_only=False)
        motion.append(values[table["rig"].to_numpy(zero_copy_only=False) == "dynamic_orbit"])
    licences.update(name or "unknown" for name in licence_of_asset.values())
    values = np.concatenate(motion) if motion else np.empty(0)
    values = values[np.isfinite(values.astype(float))].astype(float)
    actions = len(np.unique(keys.asset.astype(np.int64) * (1 << 16) + keys.action_index))
    refused = Counter(row.reason for row in rejections.read(index.store))
    return {
        "dataset": index.store.uri,
        "schema_version": index.manifest.schema_version,
        "assets": len(keys.uids),
        "actions": actions,
        "clips": len(index),
        "frames": frames,
        "shards": len(shards),
        "bytes": sum(shards.values()),
        "render_seconds": round(seconds, 3),
        "rigs": dict(sorted(rigs.items())),
        "sizes": dict(sorted(sizes.items())),
        "splits": {name: int((keys.split == i).sum()) for i, name in enumerate(SPLITS)},
        "licences": dict(sorted(licences.items(), key=lambda item: (-item[1], item[0]))),
        "motion_magnitude": (
            {f"q{q:g}": float(v) for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES))}
            if len(values)
            else {}
        ),
        "rejected": dict(sorted(refused.items())),
        **({"beside": index.added.kinds()} if len(index.added) else {}),
    }


def table_lines(numbers: dict[str, Any]) -> list[str]:
    """The numbers as aligned lines for a terminal."""
    lines = []
    for name, value in numbers.items():
        if not isinstance(value, dict):
            shown = f"{value:,}" if isinstance(value, int) and name != "schema_version" else str(value)
            lines.append(f"{name.replace('_', ' '):<18} {shown}")
            continue
        for i, (key, number) in enumerate(value.items()):
            shown = f"{number:.6f}" if isinstance(number, float) else f"{number:,}"
            lines.append(f"{name.replace('_', ' ') if i == 0 else '':<18} {key:<28} {shown:>12}")
    return lines
