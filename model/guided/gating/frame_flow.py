"""Dense flow between two small images by polynomial expansion (Farneback 2003), in numpy."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float64]

#: Half width and sigma of the window that a quadratic is fitted in, the window that flow is averaged over,
#: rounds on each level, levels at most, and the side below which no coarser level is made.
POLY, POLY_SIGMA, WINDOW, ROUNDS, LEVELS, LEAST_SIDE = 5, 1.2, 15, 3, 3, 32
#: Trust of what lies 0, 1, .. pixels from the border.
_BORDER = np.array([0.14, 0.14, 0.4472, 0.4472, 0.4472])


def frame_flow(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> Array:
    """Where each pixel of `first` lies in `second`: (x, y) offsets in pixels [H, W, 2].

    Images are [H, W] of values from 0 to 255 (the regulariser of flat places belongs to that scale).
    """
    images = [np.asarray(image, dtype=np.float64) for image in (first, second)]
    h, w = images[0].shape
    levels = 0
    while levels < LEVELS and min(h, w) * 0.5 ** (levels + 1) >= LEAST_SIDE:
        levels += 1
    flow = np.zeros((h, w, 2))
    for level in range(levels, -1, -1):
        scale = 0.5**level
        size = (h, w) if level == 0 else (round(h * scale), round(w * scale))
        old = flow.shape[:2]
        if level == levels:
            flow = np.zeros((*size, 2))
        else:
            flow = _resized(flow, size) * (np.array(size[::-1]) / np.array(old[::-1]))
        parts = [_expanded(_resized(_blurred(image, scale), size)) for image in images]
        for _ in range(ROUNDS):
            flow = _solved(_equations(parts[0], parts[1], flow))
    return flow


def _blurred(image: Array, scale: float) -> Array:
    if scale == 1:
        kernel = np.array([0.25, 0.5, 0.25])
    else:
        sigma = (1 / scale - 1) * 0.5
        half = max(round(sigma * 5) | 1, 3) // 2
        kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
        kernel /= kernel.sum()
    for axis in (0, 1):
        image = ndimage.correlate1d(image, kernel, axis=axis, mode="mirror")
    return image


def _resized(image: Array, size: tuple[int, int]) -> Array:
    """Bilinear, centres of pixels at halves."""
    if image.shape[:2] == size:
        return image
    at = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, image.shape)]
    grid = np.stack(np.meshgrid(*at, indexing="ij"))
    planes = image if image.ndim == 3 else image[..., None]
    made = [
        ndimage.map_coordinates(planes[..., c], grid, order=1, mode="nearest") for c in range(planes.shape[2])
    ]
    return np.stack(made, -1) if image.ndim == 3 else cast(Array, made[0])


def _expanded(image: Array) -> Array:
    """Coefficients (y, x, y^2, x^2, xy) [H, W, 5] of a weighted least-squares quadratic at each pixel."""
    x = np.arange(-POLY, POLY + 1, dtype=np.float64)
    weight = np.exp(-(x**2) / (2 * POLY_SIGMA**2))
    weight /= weight.sum()
    two, four = float((weight * x**2).sum()), float((weight * x**4).sum())
    # Moments 1, x^2, y^2 are the only ones that mix: [1, a, a; a, b, a^2; a, a^2, b].
    normal = np.array([[1, two, two], [two, four, two**2], [two, two**2, four]])
    inverse = np.linalg.inv(normal)

    def moment(rows: int, columns: int) -> Array:
        part = ndimage.correlate1d(image, weight * x**rows, axis=0, mode="nearest")
        return cast(Array, ndimage.correlate1d(part, weight * x**columns, axis=1, mode="nearest"))

    one, by_x, by_y = moment(0, 0), moment(0, 2), moment(2, 0)
    return np.stack(
        [
            moment(1, 0) / two,
            moment(0, 1) / two,
            inverse[2, 0] * one + inverse[2, 1] * by_x + inverse[2, 2] * by_y,
            inverse[1, 0] * one + inverse[1, 1] * by_x + inverse[1, 2] * by_y,
            moment(1, 1) / two**2,
        ],
        -1,
    )


def _equations(first: Array, second: Array, flow: Array) -> Array:
    """Normal equations of the offset at each pixel [H, W, 5]: matrix (yy, xy, xx), then right side."""
    h, w = flow.shape[:2]
    rows, columns = np.mgrid[:h, :w]
    dx, dy = flow[..., 0], flow[..., 1]
    x, y = columns + dx, rows + dy
    inside = (np.floor(x) >= 0) & (np.floor(y) >= 0) & (np.floor(x) < w - 1) & (np.floor(y) < h - 1)
    there = np.stack(
        [ndimage.map_coordinates(second[..., k], [y, x], order=1, mode="nearest") for k in range(5)], -1
    )
    there = np.where(inside[..., None], there, first)
    mean = (first + there) / 2
    yy, xx, xy = mean[..., 2], mean[..., 3], mean[..., 4] / 2
    by_y = np.where(inside, (first[..., 0] - there[..., 0]) / 2, 0) + yy * dy + xy * dx
    by_x = np.where(inside, (first[..., 1] - there[..., 1]) / 2, 0) + xy * dy + xx * dx
    trust = _trust(h)[:, None] * _trust(w)
    yy, xx, xy, by_y, by_x = (part * trust for part in (yy, xx, xy, by_y, by_x))
    parts = [yy**2 + xy**2, (yy + xx) * xy, xx**2 + xy**2, yy * by_y + xy * by_x, xy * by_y + xx * by_x]
    return np.stack(parts, -1)


def _trust(side: int) -> Array:
    at = np.arange(side)
    out = np.ones(side)
    for away in (at, side - 1 - at):
        near = away < len(_BORDER)
        out[near] *= _BORDER[away[near]]
    return out


def _solved(equations: Array) -> Array:
    parts = ndimage.uniform_filter(equations, size=(WINDOW, WINDOW, 1), mode="nearest")
    yy, xy, xx, by_y, by_x = np.moveaxis(parts, -1, 0)
    scale = 1 / (yy * xx - xy**2 + 1e-3)
    return np.stack([(yy * by_x - xy * by_y) * scale, (xx * by_y - xy * by_x) * scale], -1)
