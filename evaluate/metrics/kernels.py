"""CPU kernels of the metrics: one pass over the frames where tensor operations would take a dozen.

float32, over planes that lie one after another in memory. Their slow twins are in `pixel.py`
(`psnr_reference`, `ssim_reference`) and in torch (convolution); tests hold each against the other.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.jit import jit

#: Sums may be taken in any order; infinities and NaN keep their meaning.
FAST: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def use_torch_threads() -> None:
    """As many threads as torch takes: a Ray worker with one core must not start two."""
    most = getattr(numba.config, "NUMBA_NUM_THREADS")  # noqa: B009  numba declares it at run time
    numba.set_num_threads(max(1, min(torch.get_num_threads(), most)))


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels take these: float32 on a CPU, without gradients."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and not t.requires_grad for t in tensors)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of a[i] and b[i], [N] float32."""
    use_torch_threads()
    x, y = (t.detach().contiguous().flatten(1).numpy() for t in (a, b))
    return torch.from_numpy(_squared_error(x, y))


@jit(parallel=True, **FAST)
def _squared_error(a: Any, b: Any) -> Any:
    n, size = a.shape
    # Blocks, so that few frames still keep all threads busy and float32 sums stay short.
    block = 4096
    per = (size + block - 1) // block
    parts = np.empty((n, per), np.float64)
    for k in numba.prange(n * per):
        i, start = k // per, k % per * block
        # Slices: an index that might be negative, as far as the compiler knows, is no vector.
        p, q = a[i, start : start + block], b[i, start : start + block]
        total = np.float32(0)
        for x in range(len(p)):
            d = p[x] - q[x]
            total += d * d
        parts[i, k % per] = total
    out = np.empty(n, np.float32)
    for i in range(n):
        out[i] = parts[i].sum() / size
    return out


def ssim_planes(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """Mean SSIM over the valid area of planes [P, H, W] in [0, 1], [P]; `window` [K], K odd."""
    use_torch_threads()
    x, y = (t.detach().contiguous().numpy() for t in (a, b))
    return torch.from_numpy(_ssim(x, y, window.float().numpy()))


# Not fast mathematics: a fused p p + q q is not twice p q where p = q, and equal images would not score 1.
@jit
def _moments(p: Any, q: Any, row: Any) -> None:
    """p, q, p^2 + q^2 and p q of one row. Around 1/2: variances do not change, their rounding shrinks."""
    half = np.float32(0.5)
    for x in range(len(p)):
        u, v = p[x] - half, q[x] - half
        row[0, x] = u
        row[1, x] = v
        row[2, x] = u * u + v * v
        row[3, x] = u * v


@jit
def _score(sums: Any, scores: Any) -> None:
    """SSIM of one row of filtered moments, in float64: variances are small differences of squares."""
    c1, c2 = 0.01**2, 0.03**2
    for x in range(len(scores)):
        mu, nu = np.float64(sums[0, x]), np.float64(sums[1, x])
        covariance = np.float64(sums[3, x]) - mu * nu
        variances = np.float64(sums[2, x]) - (mu * mu + nu * nu)
        mu, nu = mu + 0.5, nu + 0.5
        scores[x] = ((2.0 * mu * nu + c1) * (2.0 * covariance + c2)) / (
            (mu * mu + nu * nu + c1) * (variances + c2)
        )


@jit(parallel=True, **FAST)
def _ssim(a: Any, b: Any, window: Any) -> Any:
    planes, h, w = a.shape
    k = window.shape[0]
    high, wide = h - k + 1, w - k + 1
    # Bands of rows: a batch of one frame has but three planes for all threads.
    bands = min(8, high)
    parts = np.empty((planes, bands), np.float64)
    for job in numba.prange(planes * bands):
        plane, band = job // bands, job % bands
        first, last = band * high // bands, (band + 1) * high // bands
        ring = np.empty((k, 4, wide), np.float32)
        row = np.empty((4, w), np.float32)
        sums = np.empty((4, wide), np.float32)
        scores = np.empty(wide, np.float64)
        total = 0.0
        for y in range(first, last + k - 1):
            _moments(a[plane, y], b[plane, y], row)
            for m in range(4):
                filtered, middle = ring[y % k, m], row[m, k // 2 :]
                for x in range(wide):
                    filtered[x] = window[k // 2] * middle[x]
                # The window is symmetric: two taps share a weight.
                for i in range(k // 2):
                    weight, left, right = window[i], row[m, i:], row[m, k - 1 - i :]
                    for x in range(wide):
                        filtered[x] += weight * (left[x] + right[x])
            if y < first + k - 1:
                continue
            for m in range(4):
                summed, middle = sums[m], ring[(y - k // 2) % k, m]
                for x in range(wide):
                    summed[x] = window[k // 2] * middle[x]
                for i in range(k // 2):
                    weight, above, below = window[i], ring[(y - i) % k, m], ring[(y - k + 1 + i) % k, m]
                    for x in range(wide):
                        summed[x] += weight * (above[x] + below[x])
            _score(sums, scores)
            for x in range(wide):
                total += scores[x]
        parts[plane, band] = total
    out = np.empty(planes, np.float32)
    for plane in range(planes):
        out[plane] = parts[plane].sum() / (high * wide)
    return out


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


# LPIPS ------------------------------------------------------------------------------------------------------


# No "contract": a fused product would leave a rest where two equal products are subtracted.
@jit(parallel=True, fastmath={"reassoc", "nsz"})
def lpips_distance(a: Any, b: Any, weight: Any) -> Any:
    """Weighted squared distance of channel-normalised features [N, P, C], averaged over positions: [N]."""
    n, positions, channels = a.shape
    block = 64
    per = (positions + block - 1) // block
    parts = np.empty((n, per), np.float64)
    for job in numba.prange(n * per):
        i, j = job // per, job % per
        total = np.float32(0)
        for p in range(j * block, min((j + 1) * block, positions)):
            aa, bb = np.float32(0), np.float32(0)
            for c in range(channels):
                aa += a[i, p, c] * a[i, p, c]
                bb += b[i, p, c] * b[i, p, c]
            # The published epsilon stands outside the root.
            u = np.float32(1) / (np.sqrt(aa) + np.float32(1e-10))
            v = np.float32(1) / (np.sqrt(bb) + np.float32(1e-10))
            for c in range(channels):
                difference = a[i, p, c] * u - b[i, p, c] * v
                total += weight[c] * difference * difference
        parts[i, j] = total
    out = np.empty(n, np.float32)
    for i in range(n):
        out[i] = parts[i].sum() / positions
    return out
