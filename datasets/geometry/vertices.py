"""Vertex positions over time as whole steps: quantised with a stated bound, and packed by prediction.

x = origin + step * q, with q a whole number and one step for all axes. The largest error is half a step an
axis. `bits_for` chooses the fewest bits whose error stays below `MOST_PIXELS` in every image of the action.
Vertices that are equal at all times after quantising (files split them by normal and texture place) are kept
once. Each coordinate is predicted from the two times before it; the prediction's errors are small numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.jit import jit

#: Error in the image that quantising may make, pixels.
MOST_PIXELS = 0.01
#: Bits that are tried, fewest first.
BITS = (16, 18, 20, 22)


@dataclass(frozen=True)
class Quantised:
    """Positions of `U` different vertices at `T` times, and which of them each of `V` vertices is."""

    steps: npt.NDArray[np.int32]
    """[T, U, 3]"""
    weld: npt.NDArray[np.int32]
    """[V] number of the vertex among the different ones."""
    origin: tuple[float, float, float]
    step: float
    bits: int

    @property
    def bound(self) -> float:
        """Largest error of a coordinate, units of the clip's world: half a step, and float32's rounding."""
        largest = max(map(abs, self.origin)) + self.step * ((1 << self.bits) - 1)
        return 0.5 * self.step + largest * 2.0**-24

    def positions(self) -> npt.NDArray[np.float32]:
        """[T, U, 3]"""
        return _positions(self.steps, np.array(self.origin), self.step)


def bits_for(vertices: npt.NDArray[np.floating], cameras: Sequence[Camera]) -> int:
    """Fewest bits of `BITS` with an error of at most `MOST_PIXELS` in the images of `cameras`; the most bits
    where a camera stands in the asset.
    """
    low, high = vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1))
    extent = float((high - low).max())
    corners = np.array(
        [[(low, high)[k][i] for i, k in enumerate(pick)] for pick in np.ndindex(2, 2, 2)], np.float64
    )
    # Depth is linear, so a box is nearest at a corner.
    nearest = min((float(camera.project(corners)[1].min()) for camera in cameras), default=1.0)
    focal = max((max(camera.fl_x, camera.fl_y) for camera in cameras), default=1.0)
    for bits in BITS:
        step = extent / ((1 << bits) - 1)
        # Half a step on each of two axes of the image is a length of step / sqrt(2).
        if nearest > 0.0 and focal * step / (np.sqrt(2.0) * nearest) <= MOST_PIXELS:
            return bits
    return BITS[-1]


def quantise(vertices: npt.NDArray[np.floating], bits: int) -> Quantised:
    """`vertices` [T, V, 3] in steps of the largest extent over 2^bits - 1."""
    points = np.asarray(vertices, np.float64)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    step = float((high - low).max()) / ((1 << bits) - 1) or 1.0
    steps = np.rint((points - low) / step).astype(np.int32)
    columns = np.ascontiguousarray(np.moveaxis(steps, 1, 0)).reshape(steps.shape[1], -1)
    if columns.shape[1] == 0:
        weld, kept = np.arange(len(columns)), np.arange(len(columns))
    else:
        rows = columns.view(np.dtype((np.void, columns.dtype.itemsize * columns.shape[1]))).reshape(-1)
        _, first, sorted_place = np.unique(rows, return_index=True, return_inverse=True)
        # Numbered as they come, since neighbours in the file are neighbours in space.
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        weld, kept = rank[sorted_place.reshape(-1)], first[order]
    origin = float(low[0]), float(low[1]), float(low[2])
    return Quantised(steps[:, kept], weld.astype(np.int32), origin, step, bits)


def residual(steps: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """[T, U, 3] what prediction leaves of `steps`: at the first time from the vertex before, at the second
    from the time before, then from the two times before.
    """
    left = steps.copy()
    left[0, 1:] -= steps[0, :-1]
    if len(steps) > 1:
        left[1] -= steps[0]
    left[2:] -= 2 * steps[1:-1] - steps[:-2]
    return left


def restored(left: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Inverse of `residual`."""
    steps = np.empty_like(left)
    _restore(left, steps)
    return steps


@jit
def _restore(left, steps):  # type: ignore[no-untyped-def]
    n_times, n_vertices, _ = left.shape
    for t in range(n_times):
        for i in range(n_vertices):
            for k in range(3):
                value = left[t, i, k]
                if t == 0:
                    if i > 0:
                        value += steps[0, i - 1, k]
                elif t == 1:
                    value += steps[0, i, k]
                else:
                    value += 2 * steps[t - 1, i, k] - steps[t - 2, i, k]
                steps[t, i, k] = value


@jit
def _positions(steps, origin, step):  # type: ignore[no-untyped-def]
    out = np.empty(steps.shape, np.float32)
    for t in range(steps.shape[0]):
        for i in range(steps.shape[1]):
            for k in range(3):
                out[t, i, k] = np.float32(origin[k] + step * steps[t, i, k])
    return out
