"""Motion-80: meshes in motion, normalised by their first frame, compared by Chamfer distance and F-score.

Source: Motion 3-to-4 (Motion324, its evaluation code). That code applies the transform it finds (prediction
to truth) to the truth, and composes the increments of its ICP in the wrong order; for sequences that are
nearly aligned neither matters. `align="published"` repeats both, to stand beside published rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from orbit4d.evaluate.geometry.points import Array, chamfer_of, f_score, nearest
from orbit4d.evaluate.geometry.surfaces import Faces, mesh_arrays, points_on, sample_surface

Mesh = tuple[npt.ArrayLike, npt.ArrayLike]

#: Points per mesh and frame, points of the truth in the ICP, distance of the F-score in a box of edge 2.
SAMPLES, ICP_SAMPLES, TAU = 50_000, 10_000, 0.02
ICP_STEPS, ICP_STOP = 1_000, 1e-7


def motion80(
    predicted: Mesh, truth: Mesh, align: Literal["icp", "published"] | None = "icp", seed: int = 0
) -> dict[str, float]:
    """Chamfer distance `cd` and F-score `f` (at 0.02) of Motion-80: means over the frames.

    Each sequence is moved by its own first frame (box centre to 0, longest edge to 2), then a rigid
    point-to-point ICP of frame 0 aligns them. 50,000 points by area of each mesh and frame.

    Args:
        predicted: vertices [T, V, 3] and faces [M, 3].
        truth: vertices [T, W, 3] and faces [L, 3].
        align: "icp" (right), "published" (with the two faults of the publication), None.
        seed: of the samples; the publication does not seed them.

    Raises:
        ValueError: for other shapes, unequal numbers of frames, or a first frame without extent.
    """
    if align not in ("icp", "published", None):
        raise ValueError(f"align: 'icp', 'published' or None, not {align!r}")
    a, faces_a = mesh_arrays(*predicted, "predicted")
    b, faces_b = mesh_arrays(*truth, "truth")
    if len(a) != len(b):
        raise ValueError(f"predicted has {len(a)} frames and truth {len(b)}: they must agree")
    a, b = normalised(a), normalised(b)
    if align is not None:
        target = _samples(b[0], faces_b, ICP_SAMPLES, seed)
        rotation, shift = icp(a[0], target, published=align == "published")
        if align == "published":
            b = b @ rotation.T + shift
        else:
            a = a @ rotation.T + shift
    scores = [
        _scores(
            _samples(p, faces_a, SAMPLES, seed + 2 * k + 1), _samples(q, faces_b, SAMPLES, seed + 2 * k + 2)
        )
        for k, (p, q) in enumerate(zip(a, b, strict=True))
    ]
    cd, f = np.mean(scores, axis=0)
    return {"cd": float(cd), "f": float(f)}


def normalised(vertices: Array) -> Array:
    """Vertices [T, V, 3] whose first frame has its box at the origin, with a longest edge of 2."""
    low, high = vertices[0].min(0), vertices[0].max(0)
    edge = float((high - low).max())
    if not edge > 0:
        raise ValueError("the first frame has no extent")
    return np.asarray((vertices - (low + high) / 2) * (2 / edge))


def icp(source: Array, target: Array, *, published: bool = False) -> tuple[Array, Array]:
    """Rotation [3, 3] and shift [3] that take `source` [N, 3] to `target` [M, 3], point to point.

    Besl and McKay 1992, at most 1,000 steps, until the mean distance changes by less than 1e-7.
    `published` composes the increments as Motion-80's code does.
    """
    rotation, shift = np.eye(3), np.zeros(3)
    moved, before = source, float("inf")
    for _ in range(ICP_STEPS):
        distance, index = nearest(target, moved)
        step, by = rigid(moved, target[index])
        moved = moved @ step.T + by
        rotation = rotation @ step if published else step @ rotation
        shift = step @ shift + by
        now = float(distance.mean())
        if abs(before - now) < ICP_STOP:
            break
        before = now
    return rotation, shift


def rigid(source: Array, target: Array) -> tuple[Array, Array]:
    """The rotation and shift that best take `source` [N, 3] to `target` [N, 3] (Kabsch 1976)."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((target - mean_t).T @ (source - mean_s))
    rotation = (u * np.array([1, 1, np.sign(np.linalg.det(u @ vt))])) @ vt
    return rotation, mean_t - rotation @ mean_s


def _samples(vertices: Array, faces: Faces, count: int, seed: int) -> Array:
    return points_on(vertices, faces, *sample_surface(vertices, faces, count, seed))


def _scores(predicted: Array, truth: Array) -> tuple[float, float]:
    return chamfer_of(predicted, truth), f_score(predicted, truth, TAU)
