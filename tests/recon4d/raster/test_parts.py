"""The pieces under the kernels: vectors, sorting, slots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster import binning, cpu, simd
from orbit4d.recon4d.raster.api import rasterize


@jit(cache=False)
def exponentials(values, out):
    for i in range(0, len(values), 16):
        simd.store(out, i, simd.exp2(simd.load(values, i)))


def test_exp2_is_right_to_three_units_in_the_last_place():
    values = np.linspace(-8.0, 0.0, 1 << 14, dtype=np.float32)
    out = np.empty_like(values)
    exponentials(values, out)
    exact = np.exp2(values.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 3 * 2.0**-23


@jit(cache=False)
def lane_sums(values, eight, one):
    v = simd.load(values, 0)
    simd.accumulate(
        eight, 0,
        simd.totals(
            v, simd.load(values, 16), simd.load(values, 32), simd.load(values, 48), simd.load(values, 64),
            simd.load(values, 80), simd.load(values, 96), simd.load(values, 112),
        ),
    )  # fmt: skip
    one[0] = simd.total(v)


def test_totals_add_lanes_in_place():
    values = np.random.default_rng(0).integers(-99, 99, 128).astype(np.float32)
    eight, one = np.full(8, 5.0, np.float32), np.zeros(1, np.float32)
    lane_sums(values, eight, one)
    # Small integers: sums are exact in any order.
    np.testing.assert_array_equal(eight, 5.0 + values.reshape(8, 16).sum(axis=1))
    assert one[0] == values[:16].sum()


@jit(cache=False)
def there_and_back(source, target, row, mode):
    a = simd.load_rows(source, 0, row, 0, mode)
    b = simd.load_rows(source, 0, row, 1, mode)
    c = simd.load_rows(source, 0, row, 2, mode)
    d = simd.load_rows(source, 0, row, 3, mode)
    simd.store_rows(target, 0, row, mode, a, b, c, d)
    return simd.total(a)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_of_pixels_are_taken_apart_and_put_together(channels):
    row = 8 * channels + 5
    source = np.arange(2 * row, dtype=np.float32)
    target = np.full_like(source, -1.0)
    first_channel = there_and_back(source, target, row, (0,) * channels)
    written = np.r_[0 : 8 * channels, row : row + 8 * channels]
    np.testing.assert_array_equal(target[written], source[written])
    assert (np.delete(target, written) == -1.0).all()
    assert first_channel == source[written][::channels].sum()


@jit(cache=False)
def hits(first, width, value, numbers):
    count = 0
    for i in range(0, len(first), 16):
        count = simd.append_hits(first, width, i, np.int32(value), numbers, count)
    return count


def test_hits_are_listed_in_order():
    rng = np.random.default_rng(1)
    first = rng.integers(-3, 10, 320).astype(np.int32)
    width = rng.integers(0, 5, 320).astype(np.int32)
    for value in range(14):
        numbers = np.empty(336, np.int32)
        count = hits(first, width, value, numbers)
        np.testing.assert_array_equal(
            numbers[:count], np.flatnonzero((first <= value) & (value < first + width))
        )


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e9])
def test_depths_are_sorted_stably(scale):
    rng = np.random.default_rng(2)
    depths = (scale * np.round(rng.random(5000) * 300 + 1)).astype(np.float32)
    chosen = np.sort(rng.permutation(5000)[:3000]).astype(np.int32)
    expected = chosen[np.argsort(depths[chosen], kind="stable")]
    np.testing.assert_array_equal(binning.sort_by_depth(depths, chosen.copy(), 3000), expected)
    assert len(binning.sort_by_depth(depths, chosen.copy(), 0)) == 0


def test_every_drawn_splat_has_one_slot_in_each_band_it_meets():
    rng = np.random.default_rng(3)
    n, tiles_x, tiles_y, band_rows = 500, 20, 13, 3
    left, top = rng.integers(0, tiles_x, n), rng.integers(0, tiles_y, n)
    right = np.minimum(tiles_x, left + rng.integers(0, 6, n))
    bottom = np.minimum(tiles_y, top + rng.integers(1, 9, n))
    boxes = np.stack([left, right, top, bottom], axis=1).astype(np.int32)
    depths = rng.random(n).astype(np.float32) + 1
    order, band_start, _, slot_splat, splat_start, splat_slots = binning.plan(
        boxes, depths, tiles_y, band_rows
    )
    drawn = np.flatnonzero(right > left)
    np.testing.assert_array_equal(order, drawn[np.argsort(depths[drawn], kind="stable")])
    assert (band_start % 16 == 0).all()
    for band in range(len(band_start) - 1):
        members = slot_splat[band_start[band] : band_start[band + 1]]
        members = members[members >= 0]
        meets = (top < (band + 1) * band_rows) & (bottom > band * band_rows)
        np.testing.assert_array_equal(members, order[meets[order]])
    for i in range(n):
        slots = splat_slots[splat_start[i] : splat_start[i + 1]]
        assert (slot_splat[slots] == i).all()
        assert (np.diff(slots) > 0).all()
    assert splat_start[n] == (slot_splat >= 0).sum()


def test_memory_grows_linearly_even_when_every_splat_covers_the_picture(monkeypatch):
    held = []
    original = cpu._composite_camera

    def spy(*arguments):
        work = original(*arguments)
        fields = (field for part in vars(work).values() for field in part)
        held.append(sum(field.nbytes for field in fields if isinstance(field, np.ndarray)))
        return work

    monkeypatch.setattr(cpu, "_composite_camera", spy)
    sizes = (500, 1000, 2000)
    for n in sizes:
        view = torch.eye(4)[None].clone()
        view[:, 2, 3] = 2.0
        rasterize(
            torch.zeros(n, 3), torch.ones(n, 4), torch.full((n, 3), 5.0), torch.full((n,), 0.01),
            torch.rand(n, 3), view, torch.tensor([[[300.0, 0, 128], [0, 300, 128], [0, 0, 1]]]), 256, 256,
        )  # fmt: skip
    growth = np.diff(held) / np.diff(sizes)
    assert growth[0] == pytest.approx(growth[1], rel=0.05)
    # At most MAX_BANDS slots of one record and two spans per tile row, and a few indices.
    assert growth[1] < binning.MAX_BANDS * (4 * binning.RECORD + 8 * binning.MIN_ROWS_PER_BAND + 8) + 64
