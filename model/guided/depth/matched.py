"""Depths that posed images agree on: patches of one found along their rays in another (plane sweep)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

#: Points per image, the most textured ones; half the side of a patch; depths that are tried, evenly in 1 / z.
POINTS, HALF, DEPTHS = 600, 3, 96
#: Least correlation of a match, and by how much it must beat every depth that is not beside it.
LEAST, BEATS = 0.9, 0.02
_BESIDE = 6
#: Depths reach from the first to the second share of the camera's distance from the centre.
_NEAR, _FAR = 0.3, 3.0


def matched_depth(
    images: Floats, K: Sequence[Array], w2c: Sequence[Array], solid: npt.NDArray[np.bool_]
) -> Floats:
    """Depths [F, H, W] where a patch of an image is found in the one that stands nearest to it, else inf.

    images [F, H, W, 3] in [0, 1] of one time, K [3, 3] with pixel centres at halves, world-to-camera [4, 4]
    of OpenCV axes; solid [F, H, W] says where the object is. Normalised correlation of 7 x 7 patches at one
    depth each, whose best must be unique and found again from the other side.
    """
    grey = images.mean(-1, dtype=np.float64)
    centre = [-p[:3, :3].T @ p[:3, 3] for p in w2c]
    found = np.full(grey.shape, np.inf, np.float32)
    for i in range(len(grey)):
        apart = [float(np.linalg.norm(c - centre[i])) if k != i else np.inf for k, c in enumerate(centre)]
        j = int(np.argmin(apart))
        if not 0 < apart[j] < np.inf:
            continue
        rows, columns = _textured(grey[i], solid[i])
        pair = (K[i], w2c[i]), (K[j], w2c[j])
        depth, sure = _swept(grey[i], grey[j], rows, columns, *pair)
        x, y, z = _moved(columns + 0.5, rows + 0.5, depth, *pair)
        there = np.floor(y).astype(int), np.floor(x).astype(int)
        inside = (there[0] >= 0) & (there[0] < solid.shape[1]) & (there[1] >= 0) & (there[1] < solid.shape[2])
        keep = np.flatnonzero(sure & inside & (z > 0))
        back, again = _swept(grey[j], grey[i], there[0][keep], there[1][keep], pair[1], pair[0])
        # The place was rounded to a pixel, and a step of 1 / z is at most 3 % of it.
        keep = keep[again & (np.abs(back / z[keep] - 1) < 0.06)]
        found[i, rows[keep], columns[keep]] = depth[keep]
    return found


def _textured(grey: Array, solid: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
    """Rows and columns of the pixels with the largest gradients, whole patches on the object first."""
    steep = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    steep[~ndimage.binary_erosion(solid, iterations=HALF)] = 0
    steep[:HALF], steep[-HALF:], steep[:, :HALF], steep[:, -HALF:] = 0, 0, 0, 0
    order = np.argsort(-steep, axis=None, kind="stable")[:POINTS]
    order = order[steep.reshape(-1)[order] > 1e-3]
    return np.unravel_index(order, grey.shape)  # type: ignore[return-value]


def _swept(grey: Array, other: Array, rows: Any, columns: Any, own: Any, to: Any) -> tuple[Array, Any]:
    """The depth [P] at which each point's patch looks most like `other`, and whether that is clear."""
    if not len(rows):
        return np.zeros(0), np.zeros(0, bool)
    dy, dx = (d.reshape(-1) for d in np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1])
    at = rows[:, None] + dy, columns[:, None] + dx
    patch = _normal(ndimage.map_coordinates(grey, at, order=0, mode="nearest"))
    far = float(np.linalg.norm(own[1][:3, 3]))
    inverse = np.linspace(1 / (_FAR * far), 1 / (_NEAR * far), DEPTHS)
    scores = np.full((DEPTHS, len(rows)), -1.0)
    for k, q in enumerate(inverse):
        x, y, z = _moved(at[1] + 0.5, at[0] + 0.5, np.full(at[0].shape, 1 / q), own, to)
        inside = (z > 0) & (x >= 0) & (y >= 0) & (x <= other.shape[1]) & (y <= other.shape[0])
        seen = ndimage.map_coordinates(other, (y - 0.5, x - 0.5), order=1, mode="nearest")
        scores[k] = np.where(inside.all(1), (patch * _normal(seen)).sum(1), -1)
    best = scores.argmax(0)
    point = np.arange(len(rows))
    top = scores[best, point]
    rest = np.where(np.abs(np.arange(DEPTHS)[:, None] - best) > _BESIDE, scores, -1).max(0)
    inner = np.clip(best, 1, DEPTHS - 2)
    a, b, c = (scores[inner + d, point] for d in (-1, 0, 1))
    bend = a - 2 * b + c
    shift = np.where(bend < 0, 0.5 * (a - c) / np.where(bend < 0, bend, 1), 0).clip(-1, 1)
    depth = 1 / (inverse[inner] + shift * (inverse[1] - inverse[0]))
    return depth, (top > LEAST) & (top - rest > BEATS) & (best == inner)


def _normal(patch: Array) -> Array:
    """Patches [P, N] of mean 0 and length 1; 0 where nothing changes."""
    away = patch - patch.mean(1, keepdims=True)
    size = np.linalg.norm(away, axis=1, keepdims=True)
    return np.divide(away, size, out=np.zeros_like(away), where=size > 1e-3)


def _moved(x: Array, y: Array, depth: Array, own: Any, to: Any) -> tuple[Array, Array, Array]:
    """Pixels and depth in another camera of points at pixels and depths of one."""
    motion = to[1] @ np.linalg.inv(own[1])
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(own[0]).T * depth[..., None]
    there = (rays @ motion[:3, :3].T + motion[:3, 3]) @ to[0].T
    z = there[..., 2]
    safe = np.where(z > 1e-6, z, 1)
    return there[..., 0] / safe, there[..., 1] / safe, np.where(z > 1e-6, z, -1)
