"""Measure a rendered dataset on its images: border, coverage, blank and flat frames, motion, preview rule.

One row per (uid, action). What was measured on the geometry before rendering is reused from the index.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.curate import columns
from orbit4d.curate.duplicates import look_hash, mark_duplicates
from orbit4d.curate.leaks import mark_benchmarks
from orbit4d.curate.measuring import MEASURE_VERSION, software_versions
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.images import measures as image_measures

_PREVIEW = 128


def measure_rendered(dataset: str, threads: int = 4) -> pa.Table:
    """The undecided table of a dataset (path or URI). Raises InputError for one that holds no clip."""
    from orbit4d.datasets.index.index import Index

    index = Index(dataset)
    groups: dict[tuple[str, int], list[int]] = {}
    for first, part in index.read(["uid", "action_index"]):
        for i, key in enumerate(zip(part["uid"].to_pylist(), part["action_index"].to_pylist())):
            groups.setdefault(key, []).append(first + i)
    if not groups:
        raise InputError(f"{dataset}: the dataset holds no clip yet; render into it first")
    rows = []
    # Decoding WebP releases the interpreter lock.
    with Progress("measure", len(groups), "action") as progress, ThreadPoolExecutor(threads) as pool:
        for row in pool.map(lambda numbers: _measure_group(index, dataset, numbers), groups.values()):
            rows.append(row)
            progress.update()
    info = {"measure_version": MEASURE_VERSION, "rendered": dataset, "versions": software_versions()}
    return mark_benchmarks(mark_duplicates(columns.build(rows, info)))


def _measure_group(index: Any, dataset: str, numbers: Sequence[int]) -> dict[str, Any]:
    """One row from the clips (rigs and orbits) of one action."""
    from orbit4d.datasets.index.reader import read_members
    from orbit4d.datasets.store.schema import row_clip

    touch, cover, blank, flat = [], [], [], []
    pixels: dict[tuple[str, int], np.ndarray] = {}
    clip = None
    rows = [index.row(number) for number in numbers]
    # Synchronised cameras may turn away or stand near: they say nothing of the asset where orbits do.
    for row in [row for row in rows if row["camera_label"] is None] or rows:
        clip = row_clip(row, read_members(index.shard_store, row))
        frames = clip.pixels()
        touch += image_measures.boundary_touch(frames[..., 3]).tolist()
        cover += image_measures.coverage(frames[..., 3]).tolist()
        blank += [image_measures.is_blank(frame) for frame in frames]
        flat += [image_measures.is_flat(frame) for frame in frames]
        pixels[clip.rig, clip.orbit] = frames
    assert clip is not None
    pairs = [
        image_measures.motion_magnitude(frames, pixels["static_orbit", orbit])
        for (rig, orbit), frames in pixels.items()
        if rig == "dynamic_orbit" and ("static_orbit", orbit) in pixels
    ]
    found: dict[str, Any] = {
        "uid": clip.uid,
        "path": dataset,
        "action": clip.action,
        "action_index": clip.action_index,
        "asset_sha256": clip.asset_sha256,
        "license": clip.license,
        "author": clip.author,
        "source_url": clip.source_url,
        "caption": clip.caption,
        "status": "measured",
        "window_start": clip.window[0],
        "window_end": clip.window[1],
        "seconds": clip.window[1] - clip.window[0],
        "boundary_touch": max(touch),
        "boundary_frames": float(np.mean(np.array(touch) > 0.0)),
        "coverage": float(np.mean(cover)),
        "blank_frames": float(np.mean(blank)),
        "flat_frames": float(np.mean(flat)),
        "flat": all(flat) and image_measures.is_flat(np.concatenate(list(pixels.values()))),
        "motion_magnitude": float(np.mean(pairs)) if pairs else None,
    }
    found |= {name: clip.measures.get(name) for name in ("motion_geometry", "union_growth")}
    front = pixels.get(("front_view", 0))
    if front is not None:
        found |= _front_rule(front)
    shown = front if front is not None else next(iter(pixels.values()))
    picked = shown[[0, len(shown) // 4, len(shown) // 2]]
    return {**found, "phash": look_hash(picked[0]), "preview": _strip(picked)}


def look_of_clip(index: Any, number: int) -> str | None:
    """`look_hash` of the first frame of an index row's clip."""
    from orbit4d.datasets.images.codec import decode
    from orbit4d.datasets.index.reader import read_members

    row = index.row(number, ["shard", "offsets", "lengths"])
    return look_hash(decode(read_members(index.shard_store, row, passes=False)[0]))


def _front_rule(frames: np.ndarray) -> dict[str, Any]:
    """SSIM of frame 0 and those a quarter and half of the clip later, on white."""
    if min(frames.shape[1:3]) < 11:
        return {}
    white = [image_measures.composite(frames[i]) for i in (0, len(frames) // 4, len(frames) // 2)]
    return {
        "ssim_quarter": image_measures.ssim(white[0], white[1]),
        "ssim_half": image_measures.ssim(white[0], white[2]),
    }


def _strip(frames: np.ndarray) -> bytes:
    from PIL import Image

    small = [Image.fromarray(frame).resize((_PREVIEW, _PREVIEW), Image.Resampling.BOX) for frame in frames]
    memory = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(s) for s in small], axis=1)).save(memory, "WEBP", quality=80)
    return memory.getvalue()
