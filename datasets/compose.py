"""Straight RGBA bytes to float planes on a background, in one pass over the pixels that holds no lock."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _compose(rgba, background, rgb, alpha):  # type: ignore[no-untyped-def]
    frames, height, width, _ = rgba.shape
    r0, g0, b0 = background[0], background[1], background[2]
    unit = np.float32(1.0 / 255.0)
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                a = np.float32(rgba[f, y, x, 3]) * unit
                rest, scaled = np.float32(1.0) - a, a * unit
                rgb[f, 0, y, x] = np.float32(rgba[f, y, x, 0]) * scaled + rest * r0
                rgb[f, 1, y, x] = np.float32(rgba[f, y, x, 1]) * scaled + rest * g0
                rgb[f, 2, y, x] = np.float32(rgba[f, y, x, 2]) * scaled + rest * b0
                alpha[f, 0, y, x] = a


def compose(
    rgba: npt.NDArray[np.uint8], background: tuple[float, float, float]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """uint8 [F, H, W, 4] on a colour in [0, 1] to float32 (rgb [F, 3, H, W], alpha [F, 1, H, W]), in sRGB
    values.
    """
    f, h, w, _ = rgba.shape
    rgb, alpha = np.empty((f, 3, h, w), np.float32), np.empty((f, 1, h, w), np.float32)
    _compose(rgba, np.asarray(background, np.float32), rgb, alpha)
    return rgb, alpha
