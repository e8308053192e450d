"""Front-to-back blending of one band of tiles and its hand-written gradient (numba).

A tile's 64 pixels are four vectors of sixteen: vector k holds rows 2k and 2k + 1, columns 0 to 7. The loop
over splats is outside, the state of all pixels stays in registers.

Opacity, the factor of the exponent and log2 e are folded into a splat's record: a sample's opacity is 2^power,
power = log2(opacity) - log2(e)·σ. The record of a slot is `RECORD` floats:

    0 mean x   1 mean y   2 -½·log2e·A   3 -log2e·B   4 -½·log2e·C   5 log2(opacity)   6.. channels

Gradients are gathered as sums over a tile's pixels of v = ∂L/∂ln(alpha) and its moments, and turned into
gradients of the mean and the conic once per splat:

    0 v   1 v·dx   2 v·dy   3 v·dx²   4 v·dx·dy   5 v·dy²   6 w·g0   7 w·g1   8 w·g2   9 w·g3   10, 11 absolute
"""

from __future__ import annotations

import math

import numpy as np

from orbit4d.recon4d.rasterize.binning import LANES, RECORD, TILE, open_band
from orbit4d.recon4d.rasterize.jit import jit
from orbit4d.recon4d.rasterize.reference import ALPHA_MAX, ALPHA_MIN, T_STOP
from orbit4d.recon4d.rasterize.simd import (
    accumulate, any_lane, append_hits, exp2, fma, fnma, load, load_rows, magnitude, maximum, minimum, negative_magnitude,
    reciprocal, select, splat, splat_at, store, store_rows1, store_rows3, store_rows4, take_next, total, totals,
)  # fmt: skip

PIXELS = TILE * TILE
#: Splats between two looks at whether every pixel of the tile is finished (a power of two).
CHECK_EVERY = 8
#: Slots looked through at once for members of a tile.
SCAN = 512

_LOG2_E = math.log2(math.e)
_POWER_MIN = np.float32(math.log2(ALPHA_MIN))
_POWER_MAX = np.float32(math.log2(ALPHA_MAX))
_ALPHA_MAX = np.float32(ALPHA_MAX)
_T_STOP = np.float32(T_STOP)
_LN_2 = np.float32(math.log(2.0))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

#: Pixel centres inside a tile: columns of any vector, rows of each of the four.
_COLUMNS = (np.arange(16) % 8 + 0.5).astype(np.float32)
_ROWS = np.concatenate([2 * k + np.arange(16) // 8 + 0.5 for k in range(4)]).astype(np.float32)
CENTRES = np.concatenate([_COLUMNS, _ROWS])


@jit(forceinline=True)
def _alpha(ax, bx, c, log2_opacity, dy):
    """Opacity of sixteen samples, 0 where it is skipped; and the power of two it came from."""
    power = fma(fma(c, dy, bx), dy, ax)
    drawn = (power <= log2_opacity) & (power >= splat(_POWER_MIN))
    return select(drawn, minimum(exp2(power), splat(_ALPHA_MAX)), splat(_ZERO)), power


def make_forward(channels):
    """Kernel for 1 (depth), 3 (colour) or 4 (both) channels."""
    rgb, with_depth = channels >= 3, channels != 3

    @jit(forceinline=True)
    def blend(ax, bx, c, log2_opacity, dy, f0, f1, f2, f3, index, t, s0, s1, s2, s3, last):
        """One splat over sixteen pixels. A finished pixel has its transmittance negated."""
        alpha, _ = _alpha(ax, bx, c, log2_opacity, dy)
        after = fnma(alpha, t, t)
        live = after > splat(_T_STOP)
        weight = select(live, alpha * t, splat(_ZERO))
        last = select(weight > splat(_ZERO), index, last)
        t = select(live, after, negative_magnitude(t))
        s0 = fma(weight, f0, s0)
        if channels >= 3:
            s1 = fma(weight, f1, s1)
            s2 = fma(weight, f2, s2)
        if channels == 4:
            s3 = fma(weight, f3, s3)
        return t, s0, s1, s2, s3, last

    @jit(forceinline=True)
    def write(image, alphas, first, second, alpha_first, alpha_second, t, s0, s1, s2, s3, background):
        """Put the background behind sixteen pixels and store them."""
        left = magnitude(t)
        if channels == 1:
            store_rows1(image, first, second, s0)
        else:
            s0 = fma(left, splat_at(background, 0), s0)
            s1 = fma(left, splat_at(background, 1), s1)
            s2 = fma(left, splat_at(background, 2), s2)
            if channels == 3:
                store_rows3(image, first, second, s0, s1, s2)
            else:
                store_rows4(image, first, second, s0, s1, s2, s3)
        store_rows1(alphas, alpha_first, alpha_second, splat(_ONE) - left)

    @jit
    def composite(
        counter, order, band_rows, tiles_x, tiles_y, band_start, slot_splat, packed, colors, background, centres,
        records, span_first, span_width, transmittance, lasts, image, alphas,
    ):  # fmt: skip
        """Bin and blend bands; `order` is the order in which threads take them, dearest first.

        Outputs: records, span_first and span_width for the backward pass; transmittance and lasts (one past the
        last splat blended) per pixel, tile after tile; image and alphas, flat, rows padded to whole tiles.
        """
        bands = len(order)
        row_floats = tiles_x * TILE
        columns = load(centres, 0)
        zero = splat(_ZERO)
        while True:
            piece = take_next(counter)
            if piece >= bands:
                break
            band = order[piece]
            first_slot, last_slot = band_start[band], band_start[band + 1]
            slots = last_slot - first_slot
            band_top, band_bottom = band * band_rows, min((band + 1) * band_rows, tiles_y)
            spans = first_slot * band_rows
            open_band(
                first_slot, last_slot, band_top, band_bottom, slot_splat, packed, colors, rgb, with_depth, records,
                span_first[spans : spans + slots * band_rows], span_width[spans : spans + slots * band_rows],
            )  # fmt: skip
            members = np.empty(slots + LANES, np.int32)
            for tile in range(band_top * tiles_x, band_bottom * tiles_x):
                left = np.float32((tile % tiles_x) * TILE)
                top = np.float32((tile // tiles_x) * TILE)
                row_span = spans + (tile // tiles_x - band_top) * slots
                t0 = t1 = t2 = t3 = splat(_ONE)
                r0 = r1 = r2 = r3 = zero
                g0 = g1 = g2 = g3 = zero
                b0 = b1 = b2 = b3 = zero
                d0 = d1 = d2 = d3 = zero
                l0 = l1 = l2 = l3 = zero
                scanned, listed, blended = 0, 0, 0
                # List some members, blend them, look whether the tile is finished: most of what lies behind a
                # finished tile is never looked at.
                while scanned < slots:
                    until = min(slots, scanned + SCAN)
                    while scanned < until:
                        listed = append_hits(
                            span_first,
                            span_width,
                            row_span + scanned,
                            np.int32(tile % tiles_x),
                            members,
                            listed,
                        )
                        scanned += LANES
                    while blended < listed:
                        at = (np.int64(members[blended]) - row_span + first_slot) * RECORD
                        blended += 1
                        dx = columns - splat(records[at] - left)
                        y = splat(records[at + 1] - top)
                        log2_opacity = splat_at(records, at + 5)
                        ax = fma(splat_at(records, at + 2) * dx, dx, log2_opacity)
                        bx = splat_at(records, at + 3) * dx
                        c = splat_at(records, at + 4)
                        f0, f1 = splat_at(records, at + 6), splat_at(records, at + 7)
                        f2, f3 = splat_at(records, at + 8), splat_at(records, at + 9)
                        index = splat(np.float32(blended))
                        t0, r0, g0, b0, d0, l0 = blend(
                            ax, bx, c, log2_opacity, load(centres, 16) - y, f0, f1, f2, f3, index,
                            t0, r0, g0, b0, d0, l0,
                        )  # fmt: skip
                        t1, r1, g1, b1, d1, l1 = blend(
                            ax, bx, c, log2_opacity, load(centres, 32) - y, f0, f1, f2, f3, index,
                            t1, r1, g1, b1, d1, l1,
                        )  # fmt: skip
                        t2, r2, g2, b2, d2, l2 = blend(
                            ax, bx, c, log2_opacity, load(centres, 48) - y, f0, f1, f2, f3, index,
                            t2, r2, g2, b2, d2, l2,
                        )  # fmt: skip
                        t3, r3, g3, b3, d3, l3 = blend(
                            ax, bx, c, log2_opacity, load(centres, 64) - y, f0, f1, f2, f3, index,
                            t3, r3, g3, b3, d3, l3,
                        )  # fmt: skip
                        if blended & (CHECK_EVERY - 1) == 0 and not any_lane(
                            maximum(maximum(t0, t1), maximum(t2, t3)) > zero
                        ):
                            scanned = slots
                            break
                at = tile * PIXELS
                store(transmittance, at, magnitude(t0))
                store(transmittance, at + 16, magnitude(t1))
                store(transmittance, at + 32, magnitude(t2))
                store(transmittance, at + 48, magnitude(t3))
                store(lasts, at, l0)
                store(lasts, at + 16, l1)
                store(lasts, at + 32, l2)
                store(lasts, at + 48, l3)
                at = ((tile // tiles_x) * row_floats + tile % tiles_x) * TILE
                row = row_floats
                write(
                    image, alphas, at * channels, (at + row) * channels, at, at + row,
                    t0, r0, g0, b0, d0, background,
                )  # fmt: skip
                at += 2 * row
                write(
                    image, alphas, at * channels, (at + row) * channels, at, at + row,
                    t1, r1, g1, b1, d1, background,
                )  # fmt: skip
                at += 2 * row
                write(
                    image, alphas, at * channels, (at + row) * channels, at, at + row,
                    t2, r2, g2, b2, d2, background,
                )  # fmt: skip
                at += 2 * row
                write(
                    image, alphas, at * channels, (at + row) * channels, at, at + row,
                    t3, r3, g3, b3, d3, background,
                )  # fmt: skip

    return composite


def make_backward(channels, absolute):
    """Kernel for 1, 3 or 4 channels, with or without absolute gradients of the centres."""

    @jit(forceinline=True)
    def open_pixels(grad_image, grad_alphas, first, second, alpha_first, alpha_second, background):
        """Gradients of sixteen pixels per channel, and what a unit of light left behind is worth."""
        g0 = load_rows(grad_image, first, second, 0, channels)
        g1 = g2 = g3 = g0
        behind = splat(_ZERO) - load_rows(grad_alphas, alpha_first, alpha_second, 0, 1)
        if channels >= 3:
            g1 = load_rows(grad_image, first, second, 1, channels)
            g2 = load_rows(grad_image, first, second, 2, channels)
            behind = fma(g0, splat_at(background, 0), behind)
            behind = fma(g1, splat_at(background, 1), behind)
            behind = fma(g2, splat_at(background, 2), behind)
        if channels == 4:
            g3 = load_rows(grad_image, first, second, 3, channels)
        return g0, g1, g2, g3, behind

    @jit(forceinline=True)
    def unblend(
        ax, ax2, bx, c, c2, b, log2_opacity, dx, dy, f0, f1, f2, f3, index, g0, g1, g2, g3, t, behind, last,
        v, vy, vyy, s0, s1, s2, s3, x_abs, y_abs,
    ):  # fmt: skip
        """Take one splat off sixteen pixels, back to front; the last eleven arguments are running sums.

        With b the value of everything behind the splat per unit of light, and f·g the splat's own,
        ∂L/∂alpha = T·(f·g - b), and b becomes b + alpha·(f·g - b).
        """
        alpha, power = _alpha(ax, bx, c, log2_opacity, dy)
        alpha = select(index <= last, alpha, splat(_ZERO))
        t = t * reciprocal(splat(_ONE) - alpha)
        weight = alpha * t
        worth = f0 * g0
        s0 = fma(weight, g0, s0)
        if channels >= 3:
            worth = fma(f2, g2, fma(f1, g1, worth))
            s1 = fma(weight, g1, s1)
            s2 = fma(weight, g2, s2)
        if channels == 4:
            worth = fma(f3, g3, worth)
            s3 = fma(weight, g3, s3)
        gain = worth - behind
        behind = fma(alpha, gain, behind)
        slope = select(power <= splat(_POWER_MAX), weight * gain, splat(_ZERO))
        v = v + slope
        along_y = slope * dy
        vy = vy + along_y
        vyy = fma(along_y, dy, vyy)
        if absolute:
            x_abs = x_abs + magnitude(slope * fma(b, dy, ax2))
            y_abs = y_abs + magnitude(slope * fma(c2, dy, bx))
        return t, behind, v, vy, vyy, s0, s1, s2, s3, x_abs, y_abs

    @jit
    def composite_backward(
        counter, order, band_rows, tiles_x, tiles_y, band_start, background, centres,
        records, span_first, span_width, transmittance, lasts, grad_image, grad_alphas, grad_records,
    ):  # fmt: skip
        """Fill `grad_records` [slots · RECORD] (see the top of this file) from the gradients of the images."""
        bands = len(order)
        row_floats = tiles_x * TILE
        columns = load(centres, 0)
        zero = splat(_ZERO)
        while True:
            piece = take_next(counter)
            if piece >= bands:
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
                    grad_image, grad_alphas, at * channels, (at + row) * channels, at, at + row, background
                )
                at += 2 * row
                r1, g1, b1, d1, back1 = open_pixels(
                    grad_image, grad_alphas, at * channels, (at + row) * channels, at, at + row, background
                )
                at += 2 * row
                r2, g2, b2, d2, back2 = open_pixels(
                    grad_image, grad_alphas, at * channels, (at + row) * channels, at, at + row, background
                )
                at += 2 * row
                r3, g3, b3, d3, back3 = open_pixels(
                    grad_image, grad_alphas, at * channels, (at + row) * channels, at, at + row, background
                )
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
                        ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 16) - y, f0, f1, f2, f3, index,
                        r0, g0, b0, d0, t0, back0, l0, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                    )  # fmt: skip
                    t1, back1, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                        ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 32) - y, f0, f1, f2, f3, index,
                        r1, g1, b1, d1, t1, back1, l1, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                    )  # fmt: skip
                    t2, back2, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                        ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 48) - y, f0, f1, f2, f3, index,
                        r2, g2, b2, d2, t2, back2, l2, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                    )  # fmt: skip
                    t3, back3, v, vy, vyy, s0, s1, s2, s3, xa, ya = unblend(
                        ax, ax2, bx, c, c2, b, log2_opacity, dx, load(centres, 64) - y, f0, f1, f2, f3, index,
                        r3, g3, b3, d3, t3, back3, l3, v, vy, vyy, s0, s1, s2, s3, xa, ya,
                    )  # fmt: skip
                    vx = v * dx
                    accumulate(grad_records, slot, totals(v, vx, vy, vx * dx, vy * dx, vyy, s0, s1))
                    if channels >= 3:
                        grad_records[slot + 8] += total(s2)
                    if channels == 4:
                        grad_records[slot + 9] += total(s3)
                    if absolute:
                        grad_records[slot + 10] += total(xa)
                        grad_records[slot + 11] += total(ya)

    return composite_backward


#: Splats per piece of work when slots are summed.
BLOCK = 1024


@jit
def gather_gradients(
    counter, order, splat_start, splat_slots, grad_records, conics, opacities, rgb, with_depth, absolute,
    grad_means2d, grad_conics, grad_opacities, grad_colors, grad_depths, abs_means2d,
):  # fmt: skip
    """Sum each splat's slots, band after band, and turn moments into gradients.

    Splats are taken in depth order, in which their slots lie in memory. Those not drawn are left alone.
    """
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
            if rgb:
                grad_colors[i, 0], grad_colors[i, 1], grad_colors[i, 2] = s0, s1, s2
                if with_depth:
                    grad_depths[i] = s3
            elif with_depth:
                grad_depths[i] = s0
            if absolute:
                abs_means2d[i, 0], abs_means2d[i, 1] = xa * _LN_2, ya * _LN_2
