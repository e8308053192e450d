"""The hand-written gradient of `blending` (numba): splats are removed again, back to front.

Gradients are gathered as sums over a tile's pixels of v = ∂L/∂ln(alpha) and its moments, and turned into
gradients of the mean and the conic once per splat. A slot's sums are `RECORD` floats (w = alpha·T, g the
gradient of a channel; the last two only for absolute gradients of the mean):

    0 v   1 v·dx   2 v·dy   3 v·dx²   4 v·dx·dy   5 v·dy²   6 to 9 w·g   10 and 11 |∂L/∂mean| / ln 2
"""

from __future__ import annotations

import math

import numpy as np

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster.binning import LANES, RECORD, TILE
from orbit4d.recon4d.raster.blending import PIXELS, sample_alpha
from orbit4d.recon4d.raster.modes import MIN_WEIGHT
from orbit4d.recon4d.raster.reference import ALPHA_MAX
from orbit4d.recon4d.raster.simd import (
    accumulate,
    append_hits,
    fma,
    load,
    load_rows,
    magnitude,
    maximum,
    reciprocal,
    select,
    splat,
    splat_at,
    take_next,
    total,
    totals,
)

_POWER_MAX = np.float32(math.log2(ALPHA_MAX))
_LN_2 = np.float32(math.log(2.0))
_MIN_WEIGHT = np.float32(MIN_WEIGHT)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
#: How a kernel knows whether to gather absolute gradients: by the length of a tuple, like `blending.MODES`.
ABSOLUTE = {False: (), True: (0,)}


@jit(forceinline=True)
def open_pixels(
    mode, expected, t, grad_image, grad_alphas, first, second, alpha_first, alpha_second, background
):
    """Gradients of sixteen pixels per channel, and what a unit of light left behind is worth."""
    g0 = load_rows(grad_image, first, second, 0, mode)
    g1 = g2 = g3 = g0
    behind = splat(_ZERO) - load_rows(grad_alphas, alpha_first, alpha_second, 0, (0,))
    if len(mode) >= 3:
        g1 = load_rows(grad_image, first, second, 1, mode)
        g2 = load_rows(grad_image, first, second, 2, mode)
        behind = fma(g0, splat_at(background, 0), behind)
        behind = fma(g1, splat_at(background, 1), behind)
        behind = fma(g2, splat_at(background, 2), behind)
    if len(mode) == 4:
        g3 = load_rows(grad_image, first, second, 3, mode)
    if len(expected) > 0 and len(mode) != 3:
        # The last channel is depth / weight: its gradient goes to both.
        weight = splat(_ONE) - t
        share = select(weight > splat(_ZERO), reciprocal(maximum(weight, splat(_MIN_WEIGHT))), splat(_ZERO))
        if len(mode) == 1:
            g0 = g0 * share
            behind = fma(g0, load_rows(expected, first, second, 0, mode), behind)
        else:
            g3 = g3 * share
            behind = fma(g3, load_rows(expected, first, second, 3, mode), behind)
    return g0, g1, g2, g3, behind


@jit(forceinline=True)
def unblend(
    mode, absolute, ax, ax2, bx, c, c2, b, log2_opacity, dx, dy, f0, f1, f2, f3, index,
    g0, g1, g2, g3, t, behind, last, v, vy, vyy, s0, s1, s2, s3, x_abs, y_abs,
):  # fmt: skip
    """Take one splat off sixteen pixels, back to front; the last eleven arguments are running sums.

    With b the value of everything behind the splat per unit of light, and f·g the splat's own,
    ∂L/∂alpha = T·(f·g - b), and b becomes b + alpha·(f·g - b).
    """
    alpha, power = sample_alpha(ax, bx, c, log2_opacity, dy)
    alpha = select(index <= last, alpha, splat(_ZERO))
    t = t * reciprocal(splat(_ONE) - alpha)
    weight = alpha * t
    worth = f0 * g0
    s0 = fma(weight, g0, s0)
    if len(mode) >= 3:
        worth = fma(f2, g2, fma(f1, g1, worth))
        s1 = fma(weight, g1, s1)
        s2 = fma(weight, g2, s2)
    if len(mode) == 4:
        worth = fma(f3, g3, worth)
        s3 = fma(weight, g3, s3)
    gain = worth - behind
    behind = fma(alpha, gain, behind)
    slope = select(power <= splat(_POWER_MAX), weight * gain, splat(_ZERO))
    v = v + slope
    along_y = slope * dy
    vy = vy + along_y
    vyy = fma(along_y, dy, vyy)
    if len(absolute) > 0:
        x_abs = x_abs + magnitude(slope * fma(b, dy, ax2))
        y_abs = y_abs + magnitude(slope * fma(c2, dy, bx))
    return t, behind, v, vy, vyy, s0, s1, s2, s3, x_abs, y_abs


@jit
def composite_backward(counter, mode, absolute, bands, centres, kept, target, grad_records):
    """Fill `grad_records` [slots · RECORD] (see the top of this file) from `arguments.TargetGradients`.

    `bands` and `kept` are those of `blending.composite`.
    """
    order, band_rows, tiles_x, tiles_y, band_start = bands
    records, span_first, span_width, transmittance, lasts = kept
    grad_image, grad_alphas, background, expected = target
    pieces, channels = len(order), len(mode)
    row_floats = tiles_x * TILE
    columns = load(centres, 0)
    zero = splat(_ZERO)
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        band = order[piece]
        first_slot, last_slot = band_start[band], band_start[band + 1]
        slots = last_slot - first_slot
        band_top, band_bottom = band * band_rows, min((band + 1) * band_rows, tiles_y)
        members = np.empty(slots + LANES, np.int32)
        for at in range(first_slot * RECORD, last_slot * RECORD):
            grad_records[at] = _ZERO
        for tile in range(band_top * tiles_x, band_bottom * tiles_x):
            at = tile * PIXELS
            deepest = _ZERO
            for pixel in range(PIXELS):
                deepest = max(deepest, lasts[at + pixel])
            if deepest == _ZERO:
                continue
            # The forward pass listed the same members in the same order.
            row_span = first_slot * band_rows + (tile // tiles_x - band_top) * slots
            depth, scanned, listed = int(deepest), 0, 0
            while listed < depth:
                listed = append_hits(
                    span_first, span_width, row_span + scanned, np.int32(tile % tiles_x), members, listed
                )
                scanned += LANES
            t0, t1 = load(transmittance, at), load(transmittance, at + 16)
            t2, t3 = load(transmittance, at + 32), load(transmittance, at + 48)
            l0, l1, l2, l3 = (
                load(lasts, at),
                load(lasts, at + 16),
                load(lasts, at + 32),
                load(lasts, at + 48),
            )
            left = np.float32((tile % tiles_x) * TILE)
            top = np.float32((tile // tiles_x) * TILE)
            at = ((tile // tiles_x) * row_floats + tile % tiles_x) * TILE
            row = row_floats
            r0, g0, b0, d0, back0 = open_pixels(
                mode, expected, t0, grad_image, grad_alphas, at * channels, (at + row) * channels, at,
                at + row, background,
            )  # fmt: skip
            at += 2 * row
            r1, g1, b1, d1, back1 = open_pixels(
                mode, expected, t1, grad_image, grad_alphas, at * channels, (at + row) * channels, at,
                at + row, background,
            )  # fmt: skip
            at += 2 * row
            r2, g2, b2, d2, back2 = open_pixels(
                mode, expected, t2, grad_image, grad_alphas, at * channels, (at + row) * channels, at,
                at + row, background,
            )  # fmt: skip
            at += 2 * row
            r3, g3, b3, d3, back3 = open_pixels(
                mode, expected, t3, grad_image, grad_alphas, at * channels, (at + row) * channels, at,
                at + row, background,
            )  # fmt: skip
            for k in range(depth - 1, -1, -1):
                slot = (np.int64(members[k]) - row_span + first_slot) * RECORD
                dx = columns - splat(records[slot] - left)
                y = splat(records[slot + 1] - top)
                log2_opacity = splat_at(records, slot + 5)
                adx = splat_at(records, slot + 2) * dx
                ax = fma(adx, dx, log2_opacity)
                ax2 = adx + adx
                b = splat_at(records, slot + 3)
                bx = b * dx
                c = splat_at(records, slot + 4)
                c2 = c + c
                f0, f1 = splat_at(records, slot + 6), splat_at(records, slot + 7)
                f2, f3 = splat_at(records, slot + 8), splat_at(records, slot + 9)
                index = splat(np.float32(k + 1))
                v = vy = vyy = s0 = s1 = s2 = s3 = xa = ya = zero
                t0, back0, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                    mode, absolute, ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 16) - y, f0, f1,
                    f2, f3, index, r0, g0, b0, d0, t0, back0, l0, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                )  # fmt: skip
                t1, back1, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                    mode, absolute, ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 32) - y, f0, f1,
                    f2, f3, index, r1, g1, b1, d1, t1, back1, l1, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                )  # fmt: skip
                t2, back2, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                    mode, absolute, ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 48) - y, f0, f1,
                    f2, f3, index, r2, g2, b2, d2, t2, back2, l2, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                )  # fmt: skip
                t3, back3, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                    mode, absolute, ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 64) - y, f0, f1,
                    f2, f3, index, r3, g3, b3, d3, t3, back3, l3, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                )  # fmt: skip
                vx = v * dx
                accumulate(grad_records, slot, totals(v, vx, vy, vx * dx, vy * dx, vyy, s0, s1))
                if len(mode) >= 3:
                    grad_records[slot + 8] += total(s2)
                if len(mode) == 4:
                    grad_records[slot + 9] += total(s3)
                if len(absolute) > 0:
                    grad_records[slot + 10] += total(xa)
                    grad_records[slot + 11] += total(ya)


#: Splats per piece of work when slots are summed.
BLOCK = 1024


@jit
def gather_gradients(counter, mode, absolute, drawn, grad_records, conics, opacities, gradients):
    """Sum each splat's slots, band after band, and turn moments into `arguments.SplatGradients`.

    Splats are taken in depth order, in which their slots lie in memory. Those not drawn are left alone.
    """
    order, splat_start, splat_slots = drawn
    grad_means2d, grad_conics, grad_opacities, grad_colors, grad_depths, abs_means2d = gradients
    n = len(order)
    blocks = (n + BLOCK - 1) // BLOCK
    while True:
        block = take_next(counter)
        if block >= blocks:
            break
        for rank in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            i = order[rank]
            v = vx = vy = vxx = vxy = vyy = s0 = s1 = s2 = s3 = xa = ya = _ZERO
            for entry in range(splat_start[i], splat_start[i + 1]):
                at = np.int64(splat_slots[entry]) * RECORD
                v += grad_records[at]
                vx += grad_records[at + 1]
                vy += grad_records[at + 2]
                vxx += grad_records[at + 3]
                vxy += grad_records[at + 4]
                vyy += grad_records[at + 5]
                s0 += grad_records[at + 6]
                s1 += grad_records[at + 7]
                s2 += grad_records[at + 8]
                s3 += grad_records[at + 9]
                xa += grad_records[at + 10]
                ya += grad_records[at + 11]
            a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
            grad_means2d[i, 0] = a * vx + b * vy
            grad_means2d[i, 1] = b * vx + c * vy
            grad_conics[i, 0] = np.float32(-0.5) * vxx
            grad_conics[i, 1] = -vxy
            grad_conics[i, 2] = np.float32(-0.5) * vyy
            grad_opacities[i] = v / opacities[i]
            if len(mode) >= 3:
                grad_colors[i, 0], grad_colors[i, 1], grad_colors[i, 2] = s0, s1, s2
                if len(mode) == 4:
                    grad_depths[i] = s3
            else:
                grad_depths[i] = s0
            if len(absolute) > 0:
                abs_means2d[i, 0], abs_means2d[i, 1] = xa * _LN_2, ya * _LN_2
