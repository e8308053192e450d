"""`eval dataset`: the technical quality of a rendered dataset, clip by clip, from its pixels and cameras."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orbit4d.datasets.clips import Clip
from orbit4d.datasets.index import Index
from orbit4d.datasets.reader import read_members
from orbit4d.datasets.schema import row_clip
from orbit4d.evaluate import pixel
from orbit4d.evaluate.suite import Row
from orbit4d.evaluate.tasks import clip_frames

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
    return Row(name, clip.rig, values, {"coverage": covered.tolist()})


def dataset_rows(dataset: str, split: str | None = None) -> Iterator[tuple[str, Clip]]:
    """Clips of a dataset one at a time, with their names."""
    index = Index(dataset)
    for number in range(len(index)):
        row = index.row(number)
        if split and row["split"] != split:
            continue
        clip = row_clip(row, read_members(index.shard_store, row))
        yield f"{clip.uid}:{clip.action}:{clip.rig}:{clip.orbit}", clip
