"""Front-to-back blending of bands of tiles (numba); `unblending` is its gradient.

A tile's 64 pixels are four vectors of sixteen: vector k holds rows 2k and 2k + 1, columns 0 to 7. The loop
over splats is outside, the state of all pixels stays in registers.

Opacity, the factor of the exponent and log2 e are folded into a splat's record: a sample's opacity is
2^power, power = log2(opacity) - log2(e)·σ. The record of a slot is `RECORD` floats:

    0 mean x   1 mean y   2 -½·log2e·A   3 -log2e·B   4 -½·log2e·C   5 log2(opacity)   6.. channels
"""

from __future__ import annotations

import math

import numpy as np

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster.arguments import Band
from orbit4d.recon4d.raster.binning import LANES, RECORD, TILE, open_band
from orbit4d.recon4d.raster.modes import MIN_WEIGHT
from orbit4d.recon4d.raster.reference import ALPHA_MAX, ALPHA_MIN, T_STOP
from orbit4d.recon4d.raster.simd import (
    any_lane,
    append_hits,
    exp2,
    fma,
    fnma,
    load,
    magnitude,
    maximum,
    minimum,
    negative_magnitude,
    reciprocal,
    select,
    splat,
    splat_at,
    store,
    store_rows,
    take_next,
)

PIXELS = TILE * TILE
#: How a kernel gets the number of channels (1 depth, 3 colour, 4 both): by the length of a tuple, which is
#: part of the argument's type. Each length is compiled, and cached, as a kernel of its own.
MODES = {n: (0,) * n for n in (1, 3, 4)}
#: Splats between two looks at whether every pixel of the tile is finished (a power of two).
CHECK_EVERY = 8
#: Slots looked through at once for members of a tile.
SCAN = 512

_POWER_MIN = np.float32(math.log2(ALPHA_MIN))
_ALPHA_MAX = np.float32(ALPHA_MAX)
_T_STOP = np.float32(T_STOP)
_MIN_WEIGHT = np.float32(MIN_WEIGHT)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

#: Pixel centres inside a tile: columns of any vector, rows of each of the four.
_COLUMNS = (np.arange(16) % 8 + 0.5).astype(np.float32)
_ROWS = np.concatenate([2 * k + np.arange(16) // 8 + 0.5 for k in range(4)]).astype(np.float32)
CENTRES = np.concatenate([_COLUMNS, _ROWS])


@jit(forceinline=True)
def sample_alpha(ax, bx, c, log2_opacity, dy):
    """Opacity of sixteen samples, 0 where it is skipped; and the power of two it came from."""
    power = fma(fma(c, dy, bx), dy, ax)
    drawn = (power <= log2_opacity) & (power >= splat(_POWER_MIN))
    return select(drawn, minimum(exp2(power), splat(_ALPHA_MAX)), splat(_ZERO)), power


@jit(forceinline=True)
def blend(mode, ax, bx, c, log2_opacity, dy, f0, f1, f2, f3, index, t, s0, s1, s2, s3, last):
    """One splat over sixteen pixels. A finished pixel has its transmittance negated."""
    alpha, _ = sample_alpha(ax, bx, c, log2_opacity, dy)
    after = fnma(alpha, t, t)
    live = after > splat(_T_STOP)
    weight = select(live, alpha * t, splat(_ZERO))
    last = select(weight > splat(_ZERO), index, last)
    t = select(live, after, negative_magnitude(t))
    s0 = fma(weight, f0, s0)
    if len(mode) >= 3:
        s1 = fma(weight, f1, s1)
        s2 = fma(weight, f2, s2)
    if len(mode) == 4:
        s3 = fma(weight, f3, s3)
    return t, s0, s1, s2, s3, last


@jit(forceinline=True)
def write(
    mode, expected, image, alphas, first, second, alpha_first, alpha_second, t, s0, s1, s2, s3, background
):
    """Put the background behind sixteen pixels, divide the expected depth by its weight, and store them."""
    left = magnitude(t)
    if expected and len(mode) != 3:
        weight = maximum(splat(_ONE) - left, splat(_MIN_WEIGHT))
        if len(mode) == 1:
            s0 = s0 * reciprocal(weight)
        else:
            s3 = s3 * reciprocal(weight)
    if len(mode) >= 3:
        s0 = fma(left, splat_at(background, 0), s0)
        s1 = fma(left, splat_at(background, 1), s1)
        s2 = fma(left, splat_at(background, 2), s2)
    store_rows(image, first, second, mode, s0, s1, s2, s3)
    store_rows(alphas, alpha_first, alpha_second, (0,), splat(_ONE) - left, left, left, left)


@jit
def composite(counter, mode, bands, splats, centres, kept, target):
    """Bin and blend `arguments.Bands` of `Splats`; `mode` is one of `MODES`.

    Outputs: all of `kept` (`Records`); image and alphas of `target`.
    """
    order, band_rows, tiles_x, tiles_y, band_start = bands
    records, span_first, span_width, transmittance, lasts = kept
    image, alphas, background, expected = target
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
        spans = first_slot * band_rows
        open_band(Band(first_slot, last_slot, band_top, band_bottom), band_rows, splats, mode, kept)
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
            # finished tile is never inspected.
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
                        mode, ax, bx, c, log2_opacity, load(centres, 16) - y, f0, f1, f2, f3, index,
                        t0, r0, g0, b0, d0, l0,
                    )  # fmt: skip
                    t1, r1, g1, b1, d1, l1 = blend(
                        mode, ax, bx, c, log2_opacity, load(centres, 32) - y, f0, f1, f2, f3, index,
                        t1, r1, g1, b1, d1, l1,
                    )  # fmt: skip
                    t2, r2, g2, b2, d2, l2 = blend(
                        mode, ax, bx, c, log2_opacity, load(centres, 48) - y, f0, f1, f2, f3, index,
                        t2, r2, g2, b2, d2, l2,
                    )  # fmt: skip
                    t3, r3, g3, b3, d3, l3 = blend(
                        mode, ax, bx, c, log2_opacity, load(centres, 64) - y, f0, f1, f2, f3, index,
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
                mode, expected, image, alphas, at * channels, (at + row) * channels, at, at + row,
                t0, r0, g0, b0, d0, background,
            )  # fmt: skip
            at += 2 * row
            write(
                mode, expected, image, alphas, at * channels, (at + row) * channels, at, at + row,
                t1, r1, g1, b1, d1, background,
            )  # fmt: skip
            at += 2 * row
            write(
                mode, expected, image, alphas, at * channels, (at + row) * channels, at, at + row,
                t2, r2, g2, b2, d2, background,
            )  # fmt: skip
            at += 2 * row
            write(
                mode, expected, image, alphas, at * channels, (at + row) * channels, at, at + row,
                t3, r3, g3, b3, d3, background,
            )  # fmt: skip
