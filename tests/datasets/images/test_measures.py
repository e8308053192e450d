"""Image measures against scikit-image, and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets.images.measures import (
    boundary_touch,
    composite,
    coverage,
    decibels,
    is_blank,
    is_flat,
    motion_magnitude,
    object_box,
    psnr,
    ssim,
    ssim_on_white,
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), h=st.integers(11, 40), w=st.integers(11, 40), kind=st.sampled_from("nsc"))
def test_ssim_agrees_with_scikit_image(seed, h, w, kind):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    rng = np.random.default_rng(seed)
    a = rng.random((h, w, 3))
    b = {
        "n": rng.random((h, w, 3)),
        "s": np.clip(a + 0.05 * rng.standard_normal(a.shape), 0, 1),
        "c": a * 0 + 0.3,
    }[kind]
    expected = structural_similarity(
        a, b, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert abs(ssim(a, b) - expected) < 1e-6


def test_ssim_is_symmetric_one_for_equals_and_uint8_is_over_255():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(2))
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(a / 255.0, b / 255.0), abs=1e-12)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(a[:10], b[:10])
    with pytest.raises(ValueError, match="one shape"):
        ssim(a, b[:, :20])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([(16, 16), (40, 28), (64, 64)]),
    place=st.tuples(*[st.floats(0, 1)] * 4),
    faint=st.booleans(),
)
def test_ssim_where_something_is_seen_is_ssim_of_the_whole(seed, size, place, faint):
    rng = np.random.default_rng(seed)
    pictures = np.zeros((4, *size, 4), np.uint8)
    for k, picture in enumerate(pictures):
        top, bottom = sorted((int(place[0] * size[0]), int(place[1] * size[0])))
        left, right = sorted((int(place[2] * size[1]), int(place[3] * size[1])))
        part = picture[top : bottom + k, left : right + 1]  # up to the very edge of the frame
        part[...] = rng.integers(0, 256, part.shape, dtype=np.uint8)
        if faint:
            part[..., 3] //= 40
    whole, within = ssim_on_white(pictures, margin=4)
    white = composite(pictures)
    for k in range(1, 4):
        assert whole[k - 1] == pytest.approx(ssim(white[0], white[k]), abs=1e-9)
        rows, columns = object_box(pictures[[0, k], ..., 3], margin=4)
        expected = ssim(white[0][rows, columns], white[k][rows, columns])
        assert within[k - 1] == pytest.approx(expected, abs=1e-9)


def test_psnr():
    a = np.zeros((8, 8, 3))
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 0.1) == pytest.approx(20.0)


def test_motion_magnitude_is_the_mean_square_on_white():
    dynamic = np.zeros((4, 6, 6, 4), np.uint8)
    static = dynamic.copy()
    assert motion_magnitude(dynamic, static) == 0.0
    static[:, 0, 0] = (0, 0, 0, 255)  # one black pixel of 36 where the other has white background
    assert motion_magnitude(dynamic, static) == pytest.approx(1 / 36)
    assert motion_magnitude(static, dynamic) == motion_magnitude(dynamic, static)
    with pytest.raises(ValueError, match="one shape"):
        motion_magnitude(dynamic, static[:2])


def test_border_coverage_and_flatness():
    image = np.zeros((3, 20, 30, 4), np.uint8)
    image[1, 5:15, 5:15] = (10, 200, 30, 255)
    image[2, 0:5, 0:10] = (10, 200, 30, 255)
    image[2, 3, 3] = (90, 0, 0, 255)
    alpha = image[..., 3]
    assert coverage(alpha) == pytest.approx([0, 100 / 600, 50 / 600])
    assert boundary_touch(alpha) == pytest.approx([0, 0, 14 / 96])
    assert [is_blank(frame) for frame in image] == [True, False, False]
    assert [is_flat(frame) for frame in image] == [True, True, False]
    swapped = np.where(image[:2] == (10, 200, 30, 255), (200, 10, 30, 255), image[:2]).astype(np.uint8)
    assert is_flat(image[:2]) and is_flat(swapped) and not is_flat(np.concatenate([image[:2], swapped]))


def test_straight_colour_under_zero_alpha_does_not_show():
    image = np.zeros((1, 1, 4))
    image[..., 0] = 1.0
    assert composite(image, (0.2, 0.4, 0.6))[0, 0] == pytest.approx([0.2, 0.4, 0.6])


@settings(max_examples=60, deadline=None)
@given(top=st.integers(0, 39), left=st.integers(0, 29), h=st.integers(1, 20), w=st.integers(1, 20))
def test_the_object_box_holds_the_object_and_is_large_enough_for_ssim(top, left, h, w):
    alpha = np.zeros((2, 40, 30), np.uint8)
    alpha[1, top : top + h, left : left + w] = 255
    rows, columns = object_box(alpha, margin=2)
    assert alpha[1, rows, columns].sum() == alpha[1].sum()
    assert rows.stop - rows.start >= 11 and columns.stop - columns.start >= 11
    assert rows.start >= 0 and columns.start >= 0 and rows.stop <= 40 and columns.stop <= 30


def test_decibels_are_psnr_with_a_ceiling() -> None:
    a, b = np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)
    assert decibels(float(np.mean((a - b) ** 2))) == pytest.approx(psnr(a, b)) == pytest.approx(20.0)
    assert psnr(a, a) == float("inf") and decibels(0.0) == 100.0
