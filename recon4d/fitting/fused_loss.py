"""L1, alpha and SSIM of one view in three passes over the image, with a hand-written gradient (numba).

Built from torch operations these terms cost several times what drawing the image does. `terms_reference` is
the slow twin.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.jit import jit
from orbit4d.datasets.images.measures import decibels
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.simd import fma, load, reciprocal, splat, splat_at, store, take_next, total

#: Gaussian window of the SSIM index (Wang et al. 2004): 11 taps, sigma 1.5.
TAPS, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
#: Image rows in one piece of work. A piece filters TAPS - 1 rows of its neighbour once more.
ROWS = 32
LANES = 16
CHANNELS = 3
#: Sums over the pixels of an image that are taken while it is put on its background.
SUMS = 7
#: Colours of two images are compared where both mattes are above this.
SOLID = np.float32(0.9)
#: Where a filter reaches over the end of a row it must still find zeros.
MARGIN = CHANNELS * (TAPS - 1)

_OFFSETS = np.arange(TAPS) - TAPS // 2
WINDOW = np.exp(-(_OFFSETS**2) / (2 * SIGMA**2))
WINDOW = (WINDOW / WINDOW.sum()).astype(np.float32)
_ONE, _TWO, _ZERO = np.float32(1.0), np.float32(2.0), np.float32(0.0)
_C1, _C2 = np.float32(C1), np.float32(C2)


def terms(color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare an image with the truth, both put on a background.

    color [H, W, 3] and truth [H, W, 4] are premultiplied, alpha is [H, W, 1], background [3]; at least 11
    pixels each way. Returns three scalars: the mean absolute difference of the colours, that of the alphas,
    and the SSIM index (Gaussian window of 11, sigma 1.5, population covariance, data range 1, valid area,
    mean over RGB: scikit-image's with `use_sample_covariance=False`). Gradients reach color and alpha.

    Computed in float32; sums are taken in a fixed order, so the result does not depend on the number of
    threads. Tensors on a GPU take the twin's way. Raises InputError for other shapes or a smaller image.
    """
    h, w = color.shape[:2]
    shapes = (tuple(color.shape), tuple(alpha.shape), tuple(truth.shape), tuple(background.shape))
    if shapes != ((h, w, 3), (h, w, 1), (h, w, 4), (3,)):
        raise InputError(f"loss: need shapes [H,W,3], [H,W,1], [H,W,4], [3], got {shapes}")
    if min(h, w) < TAPS:
        raise InputError(f"loss: SSIM needs at least {TAPS}x{TAPS} pixels, got {w}x{h}")
    if color.device.type != "cpu":
        return terms_reference(color, alpha, truth, background)
    return _Terms.apply(color, alpha, truth, background)


def terms_reference(
    color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`terms` in plain torch operations, any floating dtype."""
    drawn = over_premultiplied(color, alpha, background)
    wanted = over_premultiplied(truth[..., :3], truth[..., 3:], background)
    kernel = _window(color.device, color.dtype)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image.permute(2, 0, 1)[None], kernel, groups=CHANNELS)

    mean_x, mean_y = blur(drawn), blur(wanted)
    variances = blur(drawn**2) - mean_x**2 + blur(wanted**2) - mean_y**2
    covariance = blur(drawn * wanted) - mean_x * mean_y
    top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    ssim = (top / ((mean_x**2 + mean_y**2 + C1) * (variances + C2))).mean()
    return (drawn - wanted).abs().mean(), (alpha - truth[..., 3:]).abs().mean(), ssim


@lru_cache(maxsize=8)
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    """[3, 1, 11, 11], made once: a CUDA graph cannot copy from the CPU."""
    window = torch.tensor(np.exp(-(_OFFSETS**2) / (2 * SIGMA**2))).to(device, dtype)
    window = window / window.sum()
    return torch.outer(window, window).expand(CHANNELS, 1, TAPS, TAPS).contiguous()


class Judged(NamedTuple):
    """How a view stands, whatever background a step draws: sums over its pixels."""

    loss: float
    """Mean absolute difference of premultiplied RGBA."""
    psnr: float
    """PSNR on white, dB."""
    ours: float
    """Summed colours where both mattes are solid."""
    theirs: float
    """The truth's there."""
    solid: float
    """Number of such pixels."""


class Comparison:
    """`terms` and its gradient without autograd, in buffers that are kept for images [H, W] of one size."""

    def __init__(self, h: int, w: int, differentiate: bool = True) -> None:
        self.h, self.w = h, w
        stride = -(-w * CHANNELS // LANES) * LANES + MARGIN + LANES
        self.rows = h - TAPS + 1
        # Where a filter reaches over the end of a row it must find zeros, now and in every later call.
        self.drawn, self.wanted = np.zeros((h, stride), np.float32), np.zeros((h, stride), np.float32)
        self.inside = np.zeros(stride, np.float32)
        self.inside[: (w - TAPS + 1) * CHANNELS] = 1.0
        self.slopes = np.zeros((3, self.rows * stride if differentiate else 0), np.float32)
        self.sums, self.ssim_sums = np.zeros((-(-h // ROWS), SUMS)), np.zeros(-(-self.rows // ROWS))
        self.grad_color, self.grad_alpha = np.empty((h, w, 3), np.float32), np.empty((h, w, 1), np.float32)

    def terms(self, color: Any, alpha: Any, truth: Any, background: Any) -> tuple[float, float, float]:
        """`terms` of arrays."""
        self._inputs = (alpha, truth, background)
        pieces, pixels = len(self.sums), self.h * self.w
        threads.run(
            _put_on_background, pieces, color, alpha, truth, background, self.drawn, self.wanted, self.sums
        )
        threads.run(
            _similarity, len(self.ssim_sums), self.drawn, self.wanted, WINDOW, self.inside, self.slopes,
            self.rows, self.ssim_sums,
        )  # fmt: skip
        self._totals = self.sums.sum(axis=0).tolist()
        ssim = self.ssim_sums.sum() / (self.rows * (self.w - TAPS + 1) * CHANNELS)
        return self._totals[0] / (pixels * CHANNELS), self._totals[1] / pixels, float(ssim)

    def judged(self) -> Judged:
        """Of the images that `terms` compared last."""
        _, apart, far, square, ours, theirs, solid = self._totals
        pixels = self.h * self.w
        psnr = decibels(square / (pixels * CHANNELS))
        return Judged((far + apart) / (4 * pixels), psnr, ours, theirs, solid)

    def pull(self, by_l1: float, by_alpha: float, by_ssim: float) -> tuple[Any, Any]:
        """Gradients by color [H, W, 3] and alpha [H, W, 1], overwritten by the next call."""
        pixels, valid = self.h * self.w * CHANNELS, self.rows * (self.w - TAPS + 1) * CHANNELS
        scales = np.array([by_l1 / pixels, by_alpha * CHANNELS / pixels, by_ssim / valid], np.float32)
        threads.run(
            _pull_back, len(self.sums), *self._inputs, self.drawn, self.wanted, self.slopes, self.rows,
            WINDOW, scales, self.grad_color, self.grad_alpha,
        )  # fmt: skip
        return self.grad_color, self.grad_alpha


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, color, alpha, truth, background):
        h, w = color.shape[:2]
        ctx.comparison = Comparison(h, w, any(ctx.needs_input_grad))
        inputs = [t.detach().float().contiguous().numpy() for t in (color, alpha, truth, background)]
        return tuple(color.new_tensor(value) for value in ctx.comparison.terms(*inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_l1, grad_alpha, grad_ssim):
        pulled = ctx.comparison.pull(float(grad_l1), float(grad_alpha), float(grad_ssim))
        return *(torch.from_numpy(gradient) for gradient in pulled), None, None


@jit
def _put_on_background(counter, color, alpha, truth, background, drawn, wanted, sums):
    """Rows of color and truth over the background, channels interleaved.

    `sums` [pieces, 7] are those of absolute differences on the background, of alpha, and of premultiplied
    colour; of squares on white; of both colours where both mattes are solid, and the number of such pixels.
    """
    h, w = alpha.shape[:2]
    pieces = (h + ROWS - 1) // ROWS
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        for column in range(SUMS):
            sums[piece, column] = 0.0
        for row in range(piece * ROWS, min(h, (piece + 1) * ROWS)):
            far, apart, bare, square, ours, theirs, both = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for column in range(w):
                rest, rest_wanted = _ONE - alpha[row, column, 0], _ONE - truth[row, column, 3]
                off = rest - rest_wanted
                apart += abs(off)
                solid = _ZERO
                if alpha[row, column, 0] > SOLID and truth[row, column, 3] > SOLID:
                    solid = _ONE
                both += solid
                for c in range(CHANNELS):
                    mine, true = color[row, column, c], truth[row, column, c]
                    x = mine + rest * background[c]
                    y = true + rest_wanted * background[c]
                    drawn[row, column * CHANNELS + c], wanted[row, column * CHANNELS + c] = x, y
                    far += abs(x - y)
                    bare += abs(mine - true)
                    white = mine - true + off
                    square += white * white
                    ours += solid * mine
                    theirs += solid * true
            row_sums = (far, apart, bare, square, ours, theirs, both)
            for column in range(SUMS):
                sums[piece, column] += float(row_sums[column])


@jit
def _similarity(counter, drawn, wanted, window, inside, slopes, rows, sums):
    """SSIM of each window position and, if `slopes` has room, its derivatives by three of the moments.

    The five moments are E[x], E[y], E[xx], E[yy], E[xy]. `slopes` [3, rows * stride] receives ∂SSIM/∂E[x],
    ∂SSIM/∂E[xx] and ∂SSIM/∂E[xy]. Rows are filtered along themselves first, into a ring of TAPS rows.
    """
    stride = drawn.shape[1]
    pieces = (rows + ROWS - 1) // ROWS
    length = stride - LANES - MARGIN
    flat_drawn, flat_wanted = drawn.reshape(-1), wanted.reshape(-1)
    ring = np.empty(TAPS * 5 * stride, np.float32)
    differentiate = slopes.shape[1] > 0
    zero, two, c1, c2 = splat(_ZERO), splat(_TWO), splat(_C1), splat(_C2)
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        summed = zero
        first, last = piece * ROWS, min(rows, (piece + 1) * ROWS)
        for row in range(first, last + TAPS - 1):
            base, at = (row % TAPS) * 5 * stride, row * stride
            for j in range(0, length, LANES):
                ex = ey = exx = eyy = exy = zero
                for k in range(TAPS):
                    tap = splat_at(window, k)
                    x, y = load(flat_drawn, at + j + k * CHANNELS), load(flat_wanted, at + j + k * CHANNELS)
                    tx, ty = tap * x, tap * y
                    ex, ey = ex + tx, ey + ty
                    exx, eyy, exy = fma(tx, x, exx), fma(ty, y, eyy), fma(tx, y, exy)
                store(ring, base + j, ex)
                store(ring, base + stride + j, ey)
                store(ring, base + 2 * stride + j, exx)
                store(ring, base + 3 * stride + j, eyy)
                store(ring, base + 4 * stride + j, exy)
            top = row - (TAPS - 1)
            if top < first:
                continue
            for j in range(0, length, LANES):
                ex = ey = exx = eyy = exy = zero
                for k in range(TAPS):
                    tap = splat_at(window, k)
                    base = ((top + k) % TAPS) * 5 * stride + j
                    ex = fma(tap, load(ring, base), ex)
                    ey = fma(tap, load(ring, base + stride), ey)
                    exx = fma(tap, load(ring, base + 2 * stride), exx)
                    eyy = fma(tap, load(ring, base + 3 * stride), eyy)
                    exy = fma(tap, load(ring, base + 4 * stride), exy)
                xx, yy, xy = ex * ex, ey * ey, ex * ey
                a1, a2 = fma(two, xy, c1), fma(two, exy - xy, c2)
                b1, b2 = xx + yy + c1, (exx - xx) + (eyy - yy) + c2
                inverse1, inverse2 = reciprocal(b1), reciprocal(b2)
                valid = load(inside, j)
                inverse = inverse1 * inverse2 * valid
                ssim = a1 * a2 * inverse
                summed = summed + ssim
                if differentiate:
                    at = top * stride + j
                    by_x = two * (ey * (a2 - a1) * inverse + ex * ssim * (inverse2 - inverse1))
                    store(slopes[0], at, by_x)
                    store(slopes[1], at, zero - ssim * inverse2)
                    store(slopes[2], at, two * a1 * inverse)
        sums[piece] = total(summed)


@jit
def _pull_back(
    counter, alpha, truth, background, drawn, wanted, slopes, rows, window, scales, grad_color, grad_alpha
):
    """Gradients of color [H, W, 3] and alpha [H, W, 1]; `scales` are those of the three terms per element.

    With w the window, x and y the images: ∂SSIM/∂x = w*s0 + 2x·(w*s1) + y·(w*s2), * a correlation with the
    slopes, which are zero outside the valid area.
    """
    # Loose arguments: with a named tuple it measured 0.80 ms against 0.78, 2.4 % more.
    h, w = alpha.shape[:2]
    stride = drawn.shape[1]
    pieces = (h + ROWS - 1) // ROWS
    length = stride - LANES - MARGIN
    flat_drawn, flat_wanted = drawn.reshape(-1), wanted.reshape(-1)
    # MARGIN zeros, then one row, for each of the three slopes.
    width = MARGIN + stride
    column = np.zeros(3 * width, np.float32)
    pull = np.empty(stride, np.float32)
    zero, two = splat(_ZERO), splat(_TWO)
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        for row in range(piece * ROWS, min(h, (piece + 1) * ROWS)):
            start, stop = max(0, row - rows + 1), min(TAPS, row + 1)
            for j in range(0, length, LANES):
                s0 = s1 = s2 = zero
                for k in range(start, stop):
                    tap, at = splat_at(window, k), (row - k) * stride + j
                    s0 = fma(tap, load(slopes[0], at), s0)
                    s1 = fma(tap, load(slopes[1], at), s1)
                    s2 = fma(tap, load(slopes[2], at), s2)
                store(column, MARGIN + j, s0)
                store(column, MARGIN + width + j, s1)
                store(column, MARGIN + 2 * width + j, s2)
            scale = splat(scales[2])
            for j in range(0, length, LANES):
                s0 = s1 = s2 = zero
                for k in range(TAPS):
                    tap, at = splat_at(window, k), MARGIN + j - k * CHANNELS
                    s0 = fma(tap, load(column, at), s0)
                    s1 = fma(tap, load(column, at + width), s1)
                    s2 = fma(tap, load(column, at + 2 * width), s2)
                x, y = load(flat_drawn, row * stride + j), load(flat_wanted, row * stride + j)
                store(pull, j, scale * fma(two * x, s1, fma(y, s2, s0)))
            for i in range(w):
                hidden = _ZERO
                for c in range(CHANNELS):
                    at = i * CHANNELS + c
                    gradient = pull[at] + scales[0] * np.sign(drawn[row, at] - wanted[row, at])
                    grad_color[row, i, c] = gradient
                    hidden += gradient * background[c]
                apart = np.sign(alpha[row, i, 0] - truth[row, i, 3])
                grad_alpha[row, i, 0] = scales[1] * apart - hidden
