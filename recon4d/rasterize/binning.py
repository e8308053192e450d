"""Which splats meet which tiles, in depth order.

The image is cut into tiles of 8x8 pixels, and rows of tiles into bands. One short serial pass sorts the
splats by depth and gives each splat a *slot* in every band it meets; the bands then work apart from one
another, each with its splats' data lying together in its own slots. Slots are what keeps threads from
meeting: a gradient is summed per slot, and a splat's slots are added up in a fixed order. There are at most
`MAX_BANDS` slots per splat, so memory is linear in the number of splats.
"""

from __future__ import annotations

import numpy as np

from orbit4d.recon4d.rasterize.jit import jit

#: Pixels per side of a tile. With 8 fewer pixels lie outside the splat than with 16.
TILE = 8
#: Fewer bands share more of their splats' data, more bands keep more threads busy.
MAX_BANDS = 32
MIN_ROWS_PER_BAND = 2
#: Added to every exact extent, in pixels and as a fraction: covers float32 rounding.
SLACK, SLACK_FRACTION = np.float32(2e-3), np.float32(1e-4)

_DIGIT_BITS = 11
_DIGITS = 1 << _DIGIT_BITS


def rows_per_band(tile_rows: int) -> int:
    """Tile rows in one band: a function of the image size alone, whatever the number of threads."""
    return max(MIN_ROWS_PER_BAND, -(-tile_rows // MAX_BANDS))


@jit
def sort_by_depth(depths, visible, count):
    """Stable radix sort of the first `count` entries of `visible` (int32 ids) by `depths` (all positive).

    Positive floats order like their bit patterns, so three counting passes over 11 bits each do.
    """
    bits = depths.view(np.uint32)
    keys, ids = np.empty(count, np.uint32), visible[:count]
    histograms = np.zeros((3, _DIGITS), np.int32)
    for i in range(count):
        key = bits[ids[i]]
        keys[i] = key
        histograms[0, key & (_DIGITS - 1)] += 1
        histograms[1, (key >> 11) & (_DIGITS - 1)] += 1
        histograms[2, key >> 22] += 1
    other_keys, other_ids = np.empty(count, np.uint32), np.empty(count, np.int32)
    for digit in range(3):
        histogram = histograms[digit]
        total, largest = 0, 0
        for value in range(_DIGITS):
            n = histogram[value]
            histogram[value] = total
            total += n
            largest = max(largest, n)
        if largest == count:
            continue
        shift = np.uint32(digit * _DIGIT_BITS)
        for i in range(count):
            key = keys[i]
            value = (key >> shift) & np.uint32(_DIGITS - 1)
            position = histogram[value]
            histogram[value] = position + 1
            other_keys[position] = key
            other_ids[position] = ids[i]
        keys, other_keys = other_keys, keys
        ids, other_ids = other_ids, ids
    return ids


@jit
def tile_box(mean, half, tiles):
    """First and one past the last tile (of `tiles`) with a pixel centre within `half` of `mean`, per axis."""
    first = np.ceil(mean - half - np.float32(0.5))
    last = np.floor(mean + half - np.float32(0.5))
    if not (last >= first and last >= 0 and first < tiles * TILE):
        return 0, 0
    low = int(max(first, np.float32(0.0))) // TILE
    high = int(min(last, np.float32(tiles * TILE - 1))) // TILE + 1
    return low, high


@jit
def plan(means2d, extents, depths, radii, tiles_x, tiles_y, band_rows):
    """Sort, and give every visible splat its slots.

    Returns
        band_start int64 [bands + 1]: slots of band b are band_start[b] .. band_start[b + 1], in depth order
        pair_start int64 [bands + 1]: room for (tile, splat) pairs of band b, an upper bound
        slot_splat int32 [slots]: the splat of each slot
        splat_start int32 [N + 1], splat_slots int32 [slots]: the slots of splat i, band after band
    """
    n = means2d.shape[0]
    bands = (tiles_y + band_rows - 1) // band_rows
    visible = np.empty(n, np.int32)
    first_row, last_row = np.empty(n, np.int32), np.empty(n, np.int32)
    band_start, pair_start = np.zeros(bands + 1, np.int64), np.zeros(bands + 1, np.int64)
    splat_start = np.zeros(n + 1, np.int32)
    count = 0
    for i in range(n):
        slots = 0
        if radii[i, 0] > 0 and radii[i, 1] > 0:
            left, right = tile_box(means2d[i, 0], extents[i, 0], tiles_x)
            top, bottom = tile_box(means2d[i, 1], extents[i, 1], tiles_y)
            if right > left and bottom > top:
                first_row[i], last_row[i] = top, bottom
                visible[count] = i
                count += 1
                for band in range(top // band_rows, (bottom - 1) // band_rows + 1):
                    rows = min(bottom, (band + 1) * band_rows) - max(top, band * band_rows)
                    band_start[band + 1] += 1
                    pair_start[band + 1] += rows * (right - left)
                    slots += 1
        splat_start[i + 1] = splat_start[i] + slots
    for band in range(bands):
        band_start[band + 1] += band_start[band]
        pair_start[band + 1] += pair_start[band]
    order = sort_by_depth(depths, visible, count)
    cursor = band_start[:-1].copy()
    slot_splat, splat_slots = np.empty(band_start[bands], np.int32), np.empty(band_start[bands], np.int32)
    for k in range(count):
        i = order[k]
        at = splat_start[i]
        for band in range(first_row[i] // band_rows, (last_row[i] - 1) // band_rows + 1):
            slot = cursor[band]
            cursor[band] = slot + 1
            slot_splat[slot] = i
            splat_slots[at] = slot
            at += 1
    return band_start, pair_start, slot_splat, splat_start, splat_slots


@jit
def row_span(mean_x, mean_y, half_x, half_y, slope, width, row, tiles_x):
    """Tiles of one tile row that a splat's ellipse meets at a pixel centre: (first, one past last).

    At height dy from the centre the ellipse spans slope·dy ± width·√(1 − (dy/half_y)²); its rightmost point
    lies at dy = slope·half_y²/half_x. Between the row's first and last pixel centre each bound is extreme at
    that height, or at the end nearest to it.
    """
    low = np.float32(row * TILE) + np.float32(0.5) - mean_y
    high = low + np.float32(TILE - 1)
    low, high = max(low, -half_y), min(high, half_y)
    if low > high:
        return 0, 0
    turn = slope * half_y * half_y / half_x
    at_right, at_left = min(max(turn, low), high), min(max(-turn, low), high)
    one = np.float32(1.0)
    zero = np.float32(0.0)
    q = at_right / half_y
    right = slope * at_right + width * np.sqrt(max(zero, one - q * q))
    q = at_left / half_y
    left = slope * at_left - width * np.sqrt(max(zero, one - q * q))
    slack = SLACK + SLACK_FRACTION * half_x
    middle, half = np.float32(0.5) * (left + right), np.float32(0.5) * (right - left) + slack
    return tile_box(mean_x + middle, half, tiles_x)


@jit
def bin_band(
    band, band_rows, tiles_x, tiles_y, band_start, pair_start, slot_splat, means2d, extents,
    tile_first, tile_count, pairs,
):  # fmt: skip
    """List the slots of each tile of one band, in depth order.

    Tile t holds pairs[tile_first[t] : tile_first[t] + tile_count[t]].
    """
    top = band * band_rows
    bottom = min(top + band_rows, tiles_y)
    first_slot, last_slot = band_start[band], band_start[band + 1]
    spans = np.empty((last_slot - first_slot, bottom - top, 2), np.int32)
    for tile in range(top * tiles_x, bottom * tiles_x):
        tile_count[tile] = 0
    for slot in range(first_slot, last_slot):
        i = slot_splat[slot]
        # The room reserved by `plan` is that of the box, so no span may leave it.
        box_left, box_right = tile_box(means2d[i, 0], extents[i, 0], tiles_x)
        box_top, box_bottom = tile_box(means2d[i, 1], extents[i, 1], tiles_y)
        for row in range(top, bottom):
            left, right = 0, 0
            if box_top <= row < box_bottom:
                left, right = row_span(
                    means2d[i, 0], means2d[i, 1], extents[i, 0], extents[i, 1], extents[i, 2], extents[i, 3],
                    row, tiles_x,
                )  # fmt: skip
                left, right = max(left, box_left), min(right, box_right)
            spans[slot - first_slot, row - top, 0] = left
            spans[slot - first_slot, row - top, 1] = right
            for column in range(left, right):
                tile_count[row * tiles_x + column] += 1
    at = pair_start[band]
    for tile in range(top * tiles_x, bottom * tiles_x):
        tile_first[tile] = at
        at += tile_count[tile]
        tile_count[tile] = 0
    for slot in range(first_slot, last_slot):
        for row in range(top, bottom):
            for column in range(
                spans[slot - first_slot, row - top, 0], spans[slot - first_slot, row - top, 1]
            ):
                tile = row * tiles_x + column
                pairs[tile_first[tile] + tile_count[tile]] = slot
                tile_count[tile] += 1
