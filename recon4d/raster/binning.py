"""Which splats meet which tiles, in depth order.

The image is cut into tiles of 8x8 pixels, and rows of tiles into bands. One short serial pass sorts the
splats by depth and gives each splat a *slot* in every band it meets; the bands then work apart from one
another, each with its splats' data lying together in its own slots. Slots are what keeps threads from
meeting: a gradient is summed per slot, and a splat's slots are added up in a fixed order. There are at most
`MAX_BANDS` slots per splat, so memory is linear in the number of splats.

`packed` [N, RECORD] holds what projection found out about a splat:
    0 mean x   1 mean y   2 -½·log2e·A   3 -log2e·B   4 -½·log2e·C   5 log2(opacity)
    6 half_x   7 half_y   8 slope   9 width   10 turn   11 1/half_y     (see `open_band`)
    12 first pixel column of its tiles   13 last   14 depth
"""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.jit import jit

#: Pixels per side of a tile. With 8 fewer pixels lie outside the splat than with 16.
TILE = 8
TILE_BITS = 3
#: Fewer bands share more of their splats' data, more bands keep more threads busy.
MAX_BANDS = 32
MIN_ROWS_PER_BAND = 2
#: Added to every exact extent, in pixels and as a fraction: covers float32 rounding.
SLACK, SLACK_FRACTION = np.float32(2e-3), np.float32(1e-4)

#: Floats of a splat in `packed` and of a slot in `records`: one cache line.
RECORD = 16
#: Slots of a band come in groups of this many.
LANES = 16

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


@jit(forceinline=True)
def tile_box(mean, half, tiles):
    """First and one past the last tile (of `tiles`) with a pixel centre within `half` of `mean`, per axis."""
    first = np.ceil(mean - half - np.float32(0.5))
    last = np.floor(mean + half - np.float32(0.5))
    if not (last >= first and last >= 0 and first < tiles * TILE):
        return 0, 0
    low = int(max(first, np.float32(0.0))) >> TILE_BITS
    high = (int(min(last, np.float32(tiles * TILE - 1))) >> TILE_BITS) + 1
    return low, high


@jit
def plan(boxes, depths, tiles_y, band_rows):
    """Sort by depth, and give every visible splat its slots.

    `boxes` int32 [N, 4] are tile ranges: left, right, top, bottom, the second and last exclusive; an empty
    range marks a splat that is not drawn. Returns
        order int32 [visible]: drawn splats from front to back
        band_start int64 [bands + 1]: slots of band b are band_start[b] .. band_start[b + 1], in depth order,
            with up to 15 empty ones at the end, so that vectors of sixteen slots never straddle a band
        band_cost int64 [bands]: (tile, splat) pairs of band b, at most
        slot_splat int32 [slots]: the splat of each slot, -1 for an empty one
        splat_start int32 [N + 1], splat_slots int32 [slots]: the slots of splat i, band after band
    """
    n = boxes.shape[0]
    bands = (tiles_y + band_rows - 1) // band_rows
    visible = np.empty(n, np.int32)
    first_band, last_band = np.empty(n, np.int32), np.empty(n, np.int32)
    band_start, band_cost = np.zeros(bands + 1, np.int64), np.zeros(bands, np.int64)
    splat_start = np.zeros(n + 1, np.int32)
    band_of_row = np.arange(tiles_y) // band_rows
    count = 0
    for i in range(n):
        left, right, top, bottom = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        slots = 0
        if right > left:
            visible[count] = i
            count += 1
            first_band[i], last_band[i] = band_of_row[top], band_of_row[bottom - 1]
            for band in range(first_band[i], last_band[i] + 1):
                rows = min(bottom, (band + 1) * band_rows) - max(top, band * band_rows)
                band_start[band + 1] += 1
                band_cost[band] += rows * (right - left)
                slots += 1
        splat_start[i + 1] = splat_start[i] + slots
    for band in range(bands):
        band_start[band + 1] = band_start[band] + (band_start[band + 1] + LANES - 1) // LANES * LANES
    order = sort_by_depth(depths, visible, count)
    cursor = band_start[:-1].copy()
    slot_splat, splat_slots = np.empty(band_start[bands], np.int32), np.empty(splat_start[n], np.int32)
    for k in range(count):
        i = order[k]
        at = splat_start[i]
        for band in range(first_band[i], last_band[i] + 1):
            slot = cursor[band]
            cursor[band] = slot + 1
            slot_splat[slot] = i
            splat_slots[at] = slot
            at += 1
    for band in range(bands):
        slot_splat[cursor[band] : band_start[band + 1]] = -1
    return order, band_start, band_cost, slot_splat, splat_start, splat_slots


@jit
def open_band(band, rows, splats, mode, kept):
    """Fill the records of a band's slots, and find the tiles that each slot meets in each tile row.

    Takes an `arguments.Band` of `rows` rows at most and `Splats`, and writes into `Records`.

    Row r of the band and slot s are entry (r - top)·(last_slot - first_slot) + s - first_slot of the band's
    part of `span_first` and `span_width`: the first tile, and the number of tiles.

    At height dy from its centre an ellipse spans slope·dy ± width·√(1 - (dy/half_y)²); its rightmost point
    lies at dy = turn. Between a row's first and last pixel centre each bound is extreme at that height, or at
    the end nearest to it.
    """
    first_slot, last_slot, top, bottom = band
    slot_splat, packed, colors = splats
    n = last_slot - first_slot
    spans = first_slot * rows
    records, span_first = kept.values, kept.span_first[spans : spans + n * rows]
    span_width = kept.span_width[spans : spans + n * rows]
    # One visit to each splat's data, which lie scattered; the loops over rows then run over plain arrays and
    # are vectorised.
    data = np.empty((10, n), np.float32)
    for k in range(n):
        i, at = slot_splat[first_slot + k], (first_slot + k) * RECORD
        if i < 0:
            # An empty range of tiles, and nothing that divides by zero.
            for field in range(10):
                data[field, k] = np.float32(field != 9)
            data[9, k] = np.float32(-1.0)
            continue
        for field in range(6):
            records[at + field] = packed[i, field]
        at += 6
        if len(mode) >= 3:
            records[at], records[at + 1], records[at + 2] = colors[i, 0], colors[i, 1], colors[i, 2]
            at += 3
        if len(mode) != 3:
            records[at] = packed[i, 14]
        data[0, k], data[1, k] = packed[i, 0] - np.float32(0.5), packed[i, 1]
        for field in range(2, 10):
            data[field, k] = packed[i, field + 4]
    zero, one = np.float32(0.0), np.float32(1.0)
    for row in range(top, bottom):
        start = np.float32(row * TILE) + np.float32(0.5)
        at = (row - top) * n
        for k in range(n):
            low = start - data[1, k]
            high = low + np.float32(TILE - 1)
            low, high = max(low, -data[3, k]), min(high, data[3, k])
            turn = data[6, k]
            at_right, at_left = min(max(turn, low), high), min(max(-turn, low), high)
            q_right, q_left = at_right * data[7, k], at_left * data[7, k]
            right = data[4, k] * at_right + data[5, k] * np.sqrt(max(zero, one - q_right * q_right))
            left = data[4, k] * at_left - data[5, k] * np.sqrt(max(zero, one - q_left * q_left))
            slack = SLACK + SLACK_FRACTION * data[2, k]
            first = np.int32(np.ceil(max(data[0, k] + left - slack, data[8, k]))) >> TILE_BITS
            last = (
                np.int32(np.floor(min(data[0, k] + right + slack, data[9, k])) + np.float32(TILE))
                >> TILE_BITS
            )
            width = last - first
            span_first[at + k] = first
            span_width[at + k] = width if (low <= high) & (width > 0) else 0
