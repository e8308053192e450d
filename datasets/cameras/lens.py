"""Lens distortion of cameras that are no pinholes, taken out of their images.

Models and names are OpenCV's, as COLMAP, nerfstudio and instant-ngp write them: radial k1 .. k4 and
tangential p1, p2, or the fisheye of Kannala and Brandt with k1 .. k4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lens:
    """How far a lens strays from a pinhole."""

    fisheye: bool = False
    k: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Radial coefficients: of r², r⁴, r⁶, r⁸, or of a fisheye's θ², θ⁴, θ⁶, θ⁸."""
    p: tuple[float, float] = (0.0, 0.0)
    """Tangential coefficients; a fisheye has none."""

    def __bool__(self) -> bool:
        return self.fisheye or any(self.k) or any(self.p)

    def __str__(self) -> str:
        named = [(f"k{i + 1}", k) for i, k in enumerate(self.k)] + [
            (f"p{i + 1}", p) for i, p in enumerate(self.p)
        ]
        values = " ".join(f"{name} {value:g}" for name, value in named if value)
        return f"{'fisheye' if self.fisheye else 'lens distortion'} {values}".strip()

    def distort(self, x: Float, y: Float) -> tuple[Float, Float, npt.NDArray[np.bool_]]:
        """Where the lens puts points at (x, y) of the plane at depth 1, and whether it can see them.

        Beyond the radius at which the polynomial stops growing the lens folds back: nothing is seen there,
        and the place of that radius is given.
        """
        radius = np.hypot(x, y)
        angle = np.arctan(radius) if self.fisheye else radius
        limit = self._limit()
        seen = angle <= limit
        held = np.minimum(angle, limit)
        u = held**2
        bent = held * (1 + u * (self.k[0] + u * (self.k[1] + u * (self.k[2] + u * self.k[3]))))
        if self.fisheye:
            scale = bent / np.maximum(radius, 1e-12)
            scale = np.where(radius < 1e-12, 1.0, scale)
            return x * scale, y * scale, seen
        ratio = np.where(radius < 1e-12, 1.0, bent / np.maximum(radius, 1e-12))
        inward = np.where(seen, 1.0, limit / np.maximum(radius, 1e-12)) if np.isfinite(limit) else 1.0
        xs, ys = x * inward, y * inward
        p1, p2 = self.p
        return (
            x * ratio + 2 * p1 * xs * ys + p2 * (u + 2 * xs**2),
            y * ratio + p1 * (u + 2 * ys**2) + 2 * p2 * xs * ys,
            seen,
        )

    def _limit(self) -> float:
        """Radius (or angle) up to which the radial polynomial grows."""
        # d/da of a (1 + k1 a² + k2 a⁴ + ...) as a polynomial in u = a².
        slopes = [9 * self.k[3], 7 * self.k[2], 5 * self.k[1], 3 * self.k[0], 1.0]
        roots = np.roots(slopes)
        real = roots[np.abs(roots.imag) < 1e-9].real
        positive = real[real > 0]
        return float(np.sqrt(positive.min())) if len(positive) else float("inf")


def undistorted(image: npt.NDArray[np.uint8], camera: Camera, lens: Lens) -> npt.NDArray[np.uint8]:
    """The image [H, W, C] that a pinhole with the intrinsics of `camera` (of the image's size) sees.

    Sampled bilinearly, colours weighed by alpha where there are four channels. What the lens did not see is
    transparent there, else continued from the rim (a flat background continues).
    """
    column, row, seen = _map(camera.intrinsics, lens)
    h, w = image.shape[:2]
    seen = seen & (column > -1) & (column < w) & (row > -1) & (row < h)
    values = image.astype(np.float32)
    if image.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255
    out = _bilinear(values, column, row)
    if image.shape[2] == 4:
        out *= seen[..., None]
        out[..., :3] *= 255 / np.maximum(out[..., 3:], 1e-3)
    return (out.clip(0, 255) + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def _map(
    intrinsics: tuple[float, float, float, float, int, int], lens: Lens
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Columns and rows [H, W] in the distorted image, pixel centres at whole numbers, and what is seen."""
    fl_x, fl_y, cx, cy, w, h = intrinsics
    x, y = np.meshgrid((np.arange(w) + 0.5 - cx) / fl_x, (np.arange(h) + 0.5 - cy) / fl_y)
    bent_x, bent_y, seen = lens.distort(x, y)
    column, row = fl_x * bent_x + cx - 0.5, fl_y * bent_y + cy - 0.5
    return column.astype(np.float32), row.astype(np.float32), seen


def _bilinear(
    values: npt.NDArray[np.float32], column: npt.NDArray[np.float32], row: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    h, w = values.shape[:2]
    column, row = column.clip(0, w - 1), row.clip(0, h - 1)
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    dx, dy = (column - left)[..., None], (row - top)[..., None]
    upper = values[top, left] * (1 - dx) + values[top, right] * dx
    lower = values[bottom, left] * (1 - dx) + values[bottom, right] * dx
    return upper * (1 - dy) + lower * dy
