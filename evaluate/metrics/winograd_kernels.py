"""Numba kernels of `winograd.py`: tiles of images into products' places, and back to outputs."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from orbit4d.evaluate.metrics.kernels import FAST, jit

# Winograd's F(4x4, 3x3): see winograd.py ----------------------------------------------------------------
# Arrays are indexed whole and are contiguous: of a slice the compiler does not know that its last axis is.


@jit(parallel=True, **FAST)
def winograd_into(x: Any, first: int, down: int, across: int, out: Any) -> None:
    """Transformed 6 x 6 tiles of images x [N, H, W, C], stride 4: out [T, 36, C], T tiles from `first` on."""
    channels = x.shape[3]
    two, four, five = np.float32(2), np.float32(4), np.float32(5)  # an integer would make it float64
    for t in numba.prange(out.shape[0]):
        tile = first + t
        n, y, z = tile // (down * across), tile // across % down * 4, tile % across * 4
        r = np.empty((6, 6, channels), np.float32)
        for j in range(6):
            k = z + j
            for c in range(channels):
                r[0, j, c] = four * x[n, y, k, c] - five * x[n, y + 2, k, c] + x[n, y + 4, k, c]
            for c in range(channels):
                even = x[n, y + 4, k, c] - four * x[n, y + 2, k, c]
                odd = x[n, y + 3, k, c] - four * x[n, y + 1, k, c]
                r[1, j, c] = even + odd
                r[2, j, c] = even - odd
            for c in range(channels):
                even = x[n, y + 4, k, c] - x[n, y + 2, k, c]
                odd = two * (x[n, y + 3, k, c] - x[n, y + 1, k, c])
                r[3, j, c] = even + odd
                r[4, j, c] = even - odd
            for c in range(channels):
                r[5, j, c] = four * x[n, y + 1, k, c] - five * x[n, y + 3, k, c] + x[n, y + 5, k, c]
        for i in range(6):
            o = 6 * i
            for c in range(channels):
                out[t, o, c] = four * r[i, 0, c] - five * r[i, 2, c] + r[i, 4, c]
            for c in range(channels):
                even = r[i, 4, c] - four * r[i, 2, c]
                odd = r[i, 3, c] - four * r[i, 1, c]
                out[t, o + 1, c] = even + odd
                out[t, o + 2, c] = even - odd
            for c in range(channels):
                even = r[i, 4, c] - r[i, 2, c]
                odd = two * (r[i, 3, c] - r[i, 1, c])
                out[t, o + 3, c] = even + odd
                out[t, o + 4, c] = even - odd
            for c in range(channels):
                out[t, o + 5, c] = four * r[i, 1, c] - five * r[i, 3, c] + r[i, 5, c]


@jit(parallel=True, **FAST)
def winograd_back(d: Any, bias: Any, relu: bool, first: int, down: int, across: int, out: Any) -> None:
    """Tiles d [T, 36, O] to 4 x 4 outputs plus bias, into out [N, H, W, O] as far as they lie in it."""
    high, wide, channels = out.shape[1:]
    floor = np.float32(0 if relu else -np.inf)
    twice, fourth, eighth = np.float32(2), np.float32(4), np.float32(8)
    for t in numba.prange(d.shape[0]):
        tile = first + t
        n, y, z = tile // (down * across), tile // across % down * 4, tile % across * 4
        r = np.empty((4, 6, channels), np.float32)
        for j in range(6):
            for c in range(channels):
                plus, minus = d[t, 6 + j, c] + d[t, 12 + j, c], d[t, 6 + j, c] - d[t, 12 + j, c]
                more, less = d[t, 18 + j, c] + d[t, 24 + j, c], d[t, 18 + j, c] - d[t, 24 + j, c]
                r[0, j, c] = d[t, j, c] + plus + more
                r[1, j, c] = minus + twice * less
                r[2, j, c] = plus + fourth * more
                r[3, j, c] = minus + eighth * less + d[t, 30 + j, c]
        for i in range(min(4, high - y)):
            for k in range(min(4, wide - z)):
                # Powers of the points ±1 and ±2, by the number of the output.
                one, two = np.float32(1 - 2 * (k % 2)), np.float32(2**k)
                start, end = np.float32(k == 0), np.float32(k == 3)
                for c in range(channels):
                    value = (
                        bias[c]
                        + start * r[i, 0, c]
                        + r[i, 1, c]
                        + one * r[i, 2, c]
                        + two * (r[i, 3, c] + one * r[i, 4, c])
                        + end * r[i, 5, c]
                    )
                    out[n, y + i, z + k, c] = max(value, floor)


# F(4x4, 5x5) on tiles of 8 x 8, points 0, ±1, ±2, ±1/2 and infinity: polynomials of x², so even and odd
# places part and every pair of points shares their sums.


@jit(parallel=True, **FAST)
def winograd8_into(x: Any, first: int, down: int, across: int, out: Any) -> None:
    """Transformed 8 x 8 tiles of images x [N, H, W, C], stride 4: out [T, 64, C], T tiles from `first` on."""
    channels = x.shape[3]
    a, b, c5 = np.float32(5.25), np.float32(4.25), np.float32(5)
    d, e, two, four, half = np.float32(1.25), np.float32(0.25), np.float32(2), np.float32(4), np.float32(0.5)
    for t in numba.prange(out.shape[0]):
        tile = first + t
        n, y, z = tile // (down * across), tile // across % down * 4, tile % across * 4
        r = np.empty((8, 8, channels), np.float32)
        for j in range(8):
            k = z + j
            for c in range(channels):
                r[0, j, c] = x[n, y + 6, k, c] - x[n, y, k, c] + a * (x[n, y + 2, k, c] - x[n, y + 4, k, c])
            for c in range(channels):
                even = x[n, y + 2, k, c] - b * x[n, y + 4, k, c] + x[n, y + 6, k, c]
                odd = x[n, y + 1, k, c] - b * x[n, y + 3, k, c] + x[n, y + 5, k, c]
                r[1, j, c] = even + odd
                r[2, j, c] = even - odd
            for c in range(channels):
                even = e * x[n, y + 2, k, c] - d * x[n, y + 4, k, c] + x[n, y + 6, k, c]
                odd = two * (e * x[n, y + 1, k, c] - d * x[n, y + 3, k, c] + x[n, y + 5, k, c])
                r[3, j, c] = even + odd
                r[4, j, c] = even - odd
            for c in range(channels):
                even = four * x[n, y + 2, k, c] - c5 * x[n, y + 4, k, c] + x[n, y + 6, k, c]
                odd = half * (four * x[n, y + 1, k, c] - c5 * x[n, y + 3, k, c] + x[n, y + 5, k, c])
                r[5, j, c] = even + odd
                r[6, j, c] = even - odd
            for c in range(channels):
                r[7, j, c] = (
                    x[n, y + 7, k, c] - x[n, y + 1, k, c] + a * (x[n, y + 3, k, c] - x[n, y + 5, k, c])
                )
        for i in range(8):
            o = 8 * i
            for c in range(channels):
                out[t, o, c] = r[i, 6, c] - r[i, 0, c] + a * (r[i, 2, c] - r[i, 4, c])
            for c in range(channels):
                even = r[i, 2, c] - b * r[i, 4, c] + r[i, 6, c]
                odd = r[i, 1, c] - b * r[i, 3, c] + r[i, 5, c]
                out[t, o + 1, c] = even + odd
                out[t, o + 2, c] = even - odd
            for c in range(channels):
                even = e * r[i, 2, c] - d * r[i, 4, c] + r[i, 6, c]
                odd = two * (e * r[i, 1, c] - d * r[i, 3, c] + r[i, 5, c])
                out[t, o + 3, c] = even + odd
                out[t, o + 4, c] = even - odd
            for c in range(channels):
                even = four * r[i, 2, c] - c5 * r[i, 4, c] + r[i, 6, c]
                odd = half * (four * r[i, 1, c] - c5 * r[i, 3, c] + r[i, 5, c])
                out[t, o + 5, c] = even + odd
                out[t, o + 6, c] = even - odd
            for c in range(channels):
                out[t, o + 7, c] = r[i, 7, c] - r[i, 1, c] + a * (r[i, 3, c] - r[i, 5, c])


@jit(parallel=True, **FAST)
def winograd8_back(d: Any, bias: Any, relu: bool, first: int, down: int, across: int, out: Any) -> None:
    """Tiles d [T, 64, O] to 4 x 4 outputs plus bias, into out [N, H, W, O] as far as they lie in it."""
    high, wide, channels = out.shape[1:]
    floor = np.float32(0 if relu else -np.inf)
    for t in numba.prange(d.shape[0]):
        tile = first + t
        n, y, z = tile // (down * across), tile // across % down * 4, tile % across * 4
        r = np.empty((4, 8, channels), np.float32)
        for i in range(min(4, high - y)):
            # Powers of the points 1, 2 and 1/2 by the number of the output; odd ones change sign with them.
            one, two, half = np.float32(1 - 2 * (i % 2)), np.float32(2.0**i), np.float32(0.5**i)
            start, end = np.float32(i == 0), np.float32(i == 3)
            for j in range(8):
                for c in range(channels):
                    r[i, j, c] = (
                        start * d[t, j, c]
                        + d[t, 8 + j, c] + one * d[t, 16 + j, c]
                        + two * (d[t, 24 + j, c] + one * d[t, 32 + j, c])
                        + half * (d[t, 40 + j, c] + one * d[t, 48 + j, c])
                        + end * d[t, 56 + j, c]
                    )  # fmt: skip
        for i in range(min(4, high - y)):
            for k in range(min(4, wide - z)):
                one, two, half = np.float32(1 - 2 * (k % 2)), np.float32(2.0**k), np.float32(0.5**k)
                start, end = np.float32(k == 0), np.float32(k == 3)
                for c in range(channels):
                    value = (
                        bias[c]
                        + start * r[i, 0, c]
                        + r[i, 1, c] + one * r[i, 2, c]
                        + two * (r[i, 3, c] + one * r[i, 4, c])
                        + half * (r[i, 5, c] + one * r[i, 6, c])
                        + end * r[i, 7, c]
                    )  # fmt: skip
                    out[n, y + i, z + k, c] = max(value, floor)
