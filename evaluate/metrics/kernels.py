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
