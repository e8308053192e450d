"""The three distances of ActionBench: of shapes per frame, of a shape in motion, of tracked points.

Source: ActionMesh (facebookresearch/actionmesh, evaluate_dataset.py).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from orbit4d.evaluate.geometry.alignment import Fit, align_clouds
from orbit4d.evaluate.geometry.points import Array, chamfer_of, nearest
from orbit4d.evaluate.geometry.surfaces import mesh_arrays, points_on, sample_surface

Align = Literal["published", "similarity"] | None
Mesh = tuple[npt.ArrayLike, npt.ArrayLike]

#: Points that are sampled on a predicted mesh in each frame, and the seed of the first frame.
SAMPLES, SAMPLE_SEED = 100_000, 44


def actionbench(
    predicted: npt.ArrayLike | Mesh,
    truth: npt.ArrayLike,
    align: Align = None,
    queries: int | None = 10_000,
    icp_points: int = 1_500,
) -> dict[str, float]:
    """CD-3D, CD-4D and CD-M of ActionBench, in units of the truth.

    `cd3d` is the mean Chamfer distance over the frames, each aligned by itself; `cd4d` the same with the
    alignment of frame 0 in all frames; `cdm` follows points: each point of one side is matched with the
    nearest of the other in frame 0, and the mean distance of the pairs over all frames is added up for
    both directions.

    Args:
        predicted: tracked points [T, P, 3], or a mesh in motion as the pair (vertices [T, V, 3], faces
            [M, 3]), on which 100,000 points are sampled by area (seed 44 + frame; for `cdm` once, in 0).
        truth: tracked points [T, Q, 3], or [T, Q, 6] with normals, which are ignored.
        align: None takes the coordinates as they are (then `cd3d` equals `cd4d` for tracked points);
            "published" fits a rotation, a scale per axis and a shift (nine parameters); "similarity" a
            rotation, one scale and a shift.
        queries: points of each side that ask for their nearest in `cd3d` and `cd4d` (the published
            permutation), None for all. `cdm` always takes all.
        icp_points: points of each side in a fit. The publication takes 10,000, minutes an object on a GPU.

    Raises:
        ValueError: for empty or non-finite input, other shapes, or unequal numbers of frames.
    """
    if align not in (None, "published", "similarity"):
        raise ValueError(f"align: 'published', 'similarity' or None, not {align!r}")
    tracked, frames = _predicted(predicted)
    real = _sequence(truth, "truth", (3, 6))[:, :, :3]
    if len(tracked) != len(real):
        raise ValueError(f"predicted has {len(tracked)} frames and truth {len(real)}: they must agree")
    if align is None:
        cd3d = cd4d = float(np.mean([chamfer_of(p, g, queries) for p, g in zip(frames, real, strict=True)]))
        moved = tracked
    else:
        fits = _fits(frames, real, align, icp_points)
        cd3d = float(
            np.mean([chamfer_of(f(p), g, queries) for f, p, g in zip(fits, frames, real, strict=True)])
        )
        cd4d = float(np.mean([chamfer_of(fits[0](p), g, queries) for p, g in zip(frames, real, strict=True)]))
        moved = fits[0](tracked)
    return {"cd3d": cd3d, "cd4d": cd4d, "cdm": motion_distance(moved, real)}


def motion_distance(predicted: Array, truth: Array) -> float:
    """CD-M of tracked points [T, P, 3] and [T, Q, 3]: matched in frame 0, compared in all."""
    _, i = nearest(predicted[0], truth[0])
    _, j = nearest(truth[0], predicted[0])
    forth = np.mean([np.linalg.norm(p[i] - g, axis=1).mean() for p, g in zip(predicted, truth, strict=True)])
    back = np.mean([np.linalg.norm(g[j] - p, axis=1).mean() for p, g in zip(predicted, truth, strict=True)])
    return float(forth + back)


def _predicted(predicted: npt.ArrayLike | Mesh) -> tuple[Array, Array]:
    """The prediction as points that are tracked [T, P, 3], and as points per frame [T, P, 3]."""
    if not isinstance(predicted, tuple):
        tracked = _sequence(predicted, "predicted", (3,))
        return tracked, tracked
    if len(predicted) != 2:
        raise ValueError("predicted: a mesh is the pair (vertices [T, V, 3], faces [M, 3])")
    vertices, faces = mesh_arrays(*predicted, "predicted")
    once = sample_surface(vertices[0], faces, SAMPLES, SAMPLE_SEED)
    tracked = np.stack([points_on(v, faces, *once) for v in vertices])
    each = [sample_surface(v, faces, SAMPLES, SAMPLE_SEED + k) for k, v in enumerate(vertices)]
    return tracked, np.stack([points_on(v, faces, *s) for v, s in zip(vertices, each, strict=True)])


def _sequence(points: npt.ArrayLike, name: str, widths: tuple[int, ...]) -> Array:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 3 or array.shape[2] not in widths or not array.size:
        raise ValueError(f"{name}: needs points [T, N, {' or '.join(map(str, widths))}], got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has coordinates that are not finite")
    return array


def _fits(frames: Array, truth: Array, align: Align, count: int) -> list[Fit]:
    """An alignment for each frame, from the same subset of points in all (the published one permutation)."""
    rng = np.random.RandomState(SAMPLE_SEED)
    p = rng.permutation(frames.shape[1])[:count]
    q = rng.permutation(truth.shape[1])[:count]
    return [
        align_clouds(a[p], b[q], per_axis=align == "published") for a, b in zip(frames, truth, strict=True)
    ]
