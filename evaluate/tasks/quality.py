"""`eval dataset`: the technical quality of a rendered dataset, clip by clip, from its pixels and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.index.splits import fallen
from orbit4d.datasets.sources.lists import absent
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import row_clip
from orbit4d.evaluate.metrics import pixel
from orbit4d.evaluate.metrics.suite import Row
from orbit4d.evaluate.tasks.cases import Case
from orbit4d.evaluate.tasks.frames import clip_frames

#: Alpha below this is background: half of the smallest 8-bit step away from zero.
_SOLID = 0.5 / 255


def measure_clip(clip: Clip) -> Row:
    """Coverage, border contact, centring, exposure and flicker of one clip.

    coverage: mean share of solid pixels. border: share of frames whose alpha touches the image border.
    blank: share of frames without a solid pixel. flat: share of frames whose solid pixels have one colour.
    off_centre: largest distance of the silhouette's box centre from the image centre, as a share of the side.
    dark, bright: mean share of solid pixels below 2 % and above 98 % in all channels.
    """
    frames = clip_frames(clip)
    alpha = frames.alpha.numpy()[:, 0]  # type: ignore[union-attr]
    rgba = clip.pixels()
    n, h, w = alpha.shape
    solid = alpha > _SOLID
    edge = np.concatenate([solid[:, 0], solid[:, -1], solid[:, :, 0], solid[:, :, -1]], axis=1)
    covered = solid.reshape(n, -1).mean(1)
    off_centre, dark, bright, flat = [], [], [], []
    for i in range(n):
        rows, columns = np.nonzero(solid[i])
        if len(rows) == 0:
            continue
        centre = (
            (columns.min() + columns.max() + 1) / 2 / w - 0.5,
            (rows.min() + rows.max() + 1) / 2 / h - 0.5,
        )
        off_centre.append(float(np.hypot(*centre)))
        colours = rgba[i][solid[i]][:, :3]
        dark.append(float((colours <= 5).all(1).mean()))
        bright.append(float((colours >= 250).all(1).mean()))
        flat.append(float(colours.max(0).astype(int).max() - colours.min(0).min() < 3))
    values = {
        "coverage": float(covered.mean()),
        "border": float(edge.any(1).mean()),
        "blank": float((covered == 0).mean()),
        "flat": float(np.mean(flat)) if flat else 0.0,
        "off_centre": max(off_centre, default=0.0),
        "dark": float(np.mean(dark)) if dark else 0.0,
        "bright": float(np.mean(bright)) if bright else 0.0,
        "flicker": pixel.flicker(frames.rgb).item(),
        **{key: clip.measures[key] for key in ("motion_magnitude",) if key in clip.measures},
    }
    name = f"{clip.uid}:{clip.action}:{clip.rig}:{clip.orbit}"
    return Row(name, clip.rig, values, {"coverage": covered.tolist()}, frames=n, size=(h, w))


def quality_cases(
    dataset: str, split: str | None = None, ids: Sequence[str] | None = None
) -> tuple[list[Case], dict[str, str]]:
    """One case per clip of a dataset, and by uid, why one of `ids` has none; names are read from the key
    columns alone. Raises InputError when there is nothing to measure.
    """
    wanted = None if ids is None else set(ids)
    seen = set()
    place = Store(dataset).uri
    cases, number = [], 0
    for _, table in Index(dataset).read(["uid", "action", "rig", "orbit", "split"]):
        for row in table.to_pylist():
            kept = row["uid"] in wanted if wanted is not None else split in (None, row["split"])
            if kept:
                seen.add(row["uid"])
                name = f"{row['uid']}:{row['action']}:{row['rig']}:{row['orbit']}"
                cases.append(Case(name, partial(_measured, place, number)))
            number += 1
    if not cases:
        which = "the listed uids" if ids is not None else f"the split {split!r}" if split else "it"
        have = fallen(Index(dataset))
        raise InputError(f"{dataset}: no clip in {which}; it has {have or 'none at all'}")
    return cases, dict.fromkeys(absent(ids or (), seen), f"{dataset} has no such asset")


@lru_cache(maxsize=2)
def _index(dataset: str) -> Index:
    return Index(dataset)


def _measured(dataset: str, number: int) -> Row:
    index = _index(dataset)
    row = index.row(number)
    return measure_clip(row_clip(row, read_members(index.shard_store, row)))
