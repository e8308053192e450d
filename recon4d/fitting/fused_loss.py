"""L1, alpha and SSIM of one view in three passes over the image, with a hand-written gradient (numba).

Built from torch operations these terms cost several times what drawing the picture does. `terms_reference` is
the slow twin.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.jit import jit
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
#: Where a filter reaches over the end of a row it must still find zeros.
MARGIN = CHANNELS * (TAPS - 1)

_OFFSETS = np.arange(TAPS) - TAPS // 2
WINDOW = np.exp(-(_OFFSETS**2) / (2 * SIGMA**2))
WINDOW = (WINDOW / WINDOW.sum()).astype(np.float32)
_ONE, _TWO, _ZERO = np.float32(1.0), np.float32(2.0), np.float32(0.0)
_C1, _C2 = np.float32(C1), np.float32(C2)


def terms(color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare a picture with the truth, both put on a background.

    color [H, W, 3] and truth [H, W, 4] are premultiplied, alpha is [H, W, 1], background [3]; at least 11
    pixels each way. Returns three scalars: the mean absolute difference of the colours, that of the alphas,
    and the SSIM index (Gaussian window of 11, sigma 1.5, population covariance, data range 1, valid area,
    mean over RGB: scikit-image's with `use_sample_covariance=False`). Gradients reach color and alpha.

    Computed in float32; sums are taken in a fixed order, so the result does not depend on the number of
    threads. Tensors on a GPU take the twin's way. Raises InputError for other shapes or a smaller picture.
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
    window = torch.tensor(np.exp(-(_OFFSETS**2) / (2 * SIGMA**2))).to(color)
    window = window / window.sum()
    kernel = torch.outer(window, window).expand(CHANNELS, 1, TAPS, TAPS)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image.permute(2, 0, 1)[None], kernel, groups=CHANNELS)

    mean_x, mean_y = blur(drawn), blur(wanted)
    variances = blur(drawn**2) - mean_x**2 + blur(wanted**2) - mean_y**2
    covariance = blur(drawn * wanted) - mean_x * mean_y
    top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    ssim = (top / ((mean_x**2 + mean_y**2 + C1) * (variances + C2))).mean()
    return (drawn - wanted).abs().mean(), (alpha - truth[..., 3:]).abs().mean(), ssim


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, color, alpha, truth, background):
        h, w = color.shape[:2]
        stride = -(-w * CHANNELS // LANES) * LANES + MARGIN + LANES
        inputs = [t.detach().float().contiguous().numpy() for t in (color, alpha, truth, background)]
        drawn, wanted = np.zeros((h, stride), np.float32), np.zeros((h, stride), np.float32)
        pieces, valid_rows = -(-h // ROWS), h - TAPS + 1
        sums = np.zeros((pieces, 2))
        threads.run(_put_on_background, pieces, *inputs, drawn, wanted, sums)
        inside = np.zeros(stride, np.float32)
        inside[: (w - TAPS + 1) * CHANNELS] = 1.0
        slopes = np.zeros((3, valid_rows, stride) if any(ctx.needs_input_grad) else (3, 0, 0), np.float32)
        valid_pieces = -(-valid_rows // ROWS)
        ssim_sums = np.zeros(valid_pieces)
        threads.run(
            _similarity,
            valid_pieces,
            drawn,
            wanted,
            WINDOW,
            inside,
            slopes.reshape(3, -1),
            valid_rows,
            ssim_sums,
        )
        ctx.kept = (*inputs, drawn, wanted, slopes)
        pixels = h * w
        l1, alpha_l1 = sums.sum(axis=0) / (pixels * CHANNELS, pixels)
        ssim = ssim_sums.sum() / (valid_rows * (w - TAPS + 1) * CHANNELS)
        return tuple(color.new_tensor(float(value)) for value in (l1, alpha_l1, ssim))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_l1, grad_alpha, grad_ssim):
        color, alpha, truth, background, drawn, wanted, slopes = ctx.kept
        h, w = color.shape[:2]
        scales = np.array(
            [
                float(grad_l1) / (h * w * CHANNELS),
                float(grad_alpha) / (h * w),
                float(grad_ssim) / (slopes.shape[1] * (w - TAPS + 1) * CHANNELS),
            ],
            np.float32,
        )
        grad_color, grad_alphas = torch.empty(h, w, 3), torch.empty(h, w, 1)
        threads.run(
            _pull_back, -(-h // ROWS), alpha, truth, background, drawn, wanted, slopes.reshape(3, -1),
            slopes.shape[1], WINDOW, scales, grad_color.numpy(), grad_alphas.numpy(),
        )  # fmt: skip
        return grad_color, grad_alphas, None, None


@jit
def _put_on_background(counter, color, alpha, truth, background, drawn, wanted, sums):
    """Rows of color and truth over the background, channels interleaved; sums of absolute differences."""
    h, w = alpha.shape[:2]
    pieces = (h + ROWS - 1) // ROWS
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        far, apart = 0.0, 0.0
        for row in range(piece * ROWS, min(h, (piece + 1) * ROWS)):
            far_row, apart_row = _ZERO, _ZERO
            for column in range(w):
                rest, rest_wanted = _ONE - alpha[row, column, 0], _ONE - truth[row, column, 3]
                apart_row += abs(rest - rest_wanted)
                for c in range(CHANNELS):
                    x = color[row, column, c] + rest * background[c]
                    y = truth[row, column, c] + rest_wanted * background[c]
                    drawn[row, column * CHANNELS + c], wanted[row, column * CHANNELS + c] = x, y
                    far_row += abs(x - y)
            far += float(far_row)
            apart += float(apart_row)
        sums[piece, 0], sums[piece, 1] = far, apart


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

    With w the window, x and y the pictures: ∂SSIM/∂x = w*s0 + 2x·(w*s1) + y·(w*s2), * a correlation with the
    slopes, which are zero outside the valid area.
    """
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
