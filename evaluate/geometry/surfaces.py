"""Surfaces: seeded samples of a mesh, and the volume that two meshes share over time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.evaluate.geometry.winding import inside

Array = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]

#: A mesh with more boundary edges than this share has no inside to speak of.
MOST_OPEN = 0.01


def mesh_arrays(vertices: npt.ArrayLike, faces: npt.ArrayLike, name: str = "mesh") -> tuple[Array, Faces]:
    """Vertices as float64 [T, V, 3] and faces as int64 [M, 3] of one mesh in motion.

    Raises:
        ValueError: for other shapes, no vertex or face, indices out of range, coordinates not finite.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if v.ndim != 3 or v.shape[2] != 3 or not v.size:
        raise ValueError(f"{name}: needs vertices [T, V, 3], got {v.shape}")
    if f.ndim != 2 or f.shape[1] != 3 or not len(f) or f.dtype.kind not in "iu":
        raise ValueError(f"{name}: needs faces [M, 3] of integers, got {f.shape} {f.dtype}")
    if f.min() < 0 or f.max() >= v.shape[1]:
        raise ValueError(f"{name}: has faces that name vertices it does not have ({v.shape[1]})")
    if not np.isfinite(v).all():
        raise ValueError(f"{name}: has coordinates that are not finite")
    return v, f.astype(np.int64)


def areas(vertices: Array, faces: Faces) -> Array:
    """Area of each triangle [M] of vertices [V, 3]."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)


def sample_surface(vertices: Array, faces: Faces, count: int, seed: int) -> tuple[Faces, Array]:
    """`count` points drawn by area: triangle of each [N] and its barycentrics [N, 3].

    The draws are those of trimesh's `sample_surface` with the same seed, in which ActionBench samples a
    predicted mesh.

    Raises:
        ValueError: for a mesh without area.
    """
    summed = np.cumsum(areas(vertices, faces))
    if not summed[-1] > 0:
        raise ValueError("a mesh whose triangles have no area cannot be sampled")
    draw = np.random.default_rng(seed).random
    triangle = np.searchsorted(summed, draw(count) * summed[-1])
    lengths = draw((count, 2, 1))[:, :, 0]
    lengths[lengths.sum(1) > 1] -= 1
    lengths = np.abs(lengths)
    return triangle, np.column_stack([1 - lengths.sum(1), lengths])


def points_on(vertices: Array, faces: Faces, triangle: Faces, barycentric: Array) -> Array:
    """Positions [N, 3] of points that are carried by triangles [N] and barycentrics [N, 3]."""
    return np.asarray((vertices[faces[triangle]] * barycentric[:, :, None]).sum(1))


def open_share(faces: Faces) -> float:
    """Share of edges that do not belong to exactly two triangles, in [0, 1]: 0 for a closed surface."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    return float((count != 2).mean())


def volume_iou(
    predicted: tuple[npt.ArrayLike, npt.ArrayLike],
    truth: tuple[npt.ArrayLike, npt.ArrayLike],
    *,
    points: int = 100_000,
    seed: int = 0,
) -> float:
    """Volume that two closed meshes in motion share, in [0, 1]: the mean over time of
    `|A and B| / |A or B|`.

    Measured on `points` uniform points of the joint box of both sequences (after Occupancy Flow, Niemeyer et
    al. 2019); inside is where the winding number is above a half. A frame in which neither has a volume
    counts as 1. NaN where over 1 % of the edges of a surface do not join two triangles: it has no inside.

    Args:
        predicted: vertices [T, V, 3] and faces [M, 3].
        truth: vertices [T, W, 3] and faces [L, 3].

    Raises:
        ValueError: for other shapes or unequal numbers of frames.
    """
    a, faces_a = mesh_arrays(*predicted, "predicted")
    b, faces_b = mesh_arrays(*truth, "truth")
    if len(a) != len(b):
        raise ValueError(f"predicted has {len(a)} frames and truth {len(b)}")
    if max(open_share(faces_a), open_share(faces_b)) > MOST_OPEN:
        return float("nan")
    low = np.minimum(a.min((0, 1)), b.min((0, 1)))
    high = np.maximum(a.max((0, 1)), b.max((0, 1)))
    x = low + (high - low) * np.random.default_rng(seed).random((points, 3))
    return float(
        np.mean([_iou(inside(x, p, faces_a), inside(x, q, faces_b)) for p, q in zip(a, b, strict=True)])
    )


def _iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
