"""RGBA over a colour: laws, the kernels' twins, and the one grammar of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orbit4d.datasets.images.composite import compose
from orbit4d.datasets.images.over import NAMED, colour_of, over, over_bytes, over_premultiplied


def pixels(dtype: Any) -> Any:
    return np.random.default_rng(3).random((2, 5, 7, 4)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_give_the_same_bits(dtype: Any) -> None:
    rgba = pixels(dtype)
    colour = np.array([0.2, 0.5, 1.0], dtype)
    for formula in (over, over_premultiplied):
        ours = formula(rgba[..., :3], rgba[..., 3:], colour)
        theirs = formula(*(torch.from_numpy(a) for a in (rgba[..., :3], rgba[..., 3:], colour)))
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_ends_and_both_formulas_agree() -> None:
    rgba = pixels(np.float64)
    rgb, alpha, colour = rgba[..., :3], rgba[..., 3:], np.array([0.2, 0.5, 1.0])
    np.testing.assert_array_equal(over(rgb, np.ones_like(alpha), colour), rgb)
    np.testing.assert_array_equal(over(rgb, 0 * alpha, colour), np.broadcast_to(colour, rgb.shape))
    # Two roundings of values below 2.
    np.testing.assert_allclose(
        over_premultiplied(rgb * alpha, alpha, colour), over(rgb, alpha, colour), atol=5e-16
    )
    assert np.all(over(rgb, alpha, colour) >= np.minimum(rgb, colour) - 1e-15)


def test_the_loaders_kernel_is_a_twin() -> None:
    rgba = np.random.default_rng(4).integers(0, 256, (3, 6, 5, 4), np.uint8)
    colour = (0.25, 0.5, 1.0)
    rgb, alpha = compose(rgba, colour)
    values = rgba.astype(np.float64) / 255
    wanted = over(values[..., :3], values[..., 3:], np.array(colour)).transpose(0, 3, 1, 2)
    # float32 products of bytes: a few units in the last place of 1.
    np.testing.assert_allclose(rgb, wanted, atol=4e-7)
    np.testing.assert_allclose(alpha[:, 0], values[..., 3], atol=1e-7)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_spelling_of_a_colour_is_read(colour: tuple[int, int, int]) -> None:
    r, g, b = colour
    assert colour_of(f"{r},{g},{b}") == colour_of(f"#{r:02x}{g:02x}{b:02x}") == colour


def test_what_is_no_colour_is_none() -> None:
    assert all(colour_of(name) == value for name, value in NAMED.items())
    for text in (
        "",
        "plaid",
        "#12345",
        "#12345g",
        "1,2",
        "1,2,3,4",
        "1,2,256",
        "-1,0,0",
        "a,b,c",
        "# 1 2 3 ",
    ):
        assert colour_of(text) is None, text


def test_integers_are_the_float_formula_rounded() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (64, 5, 4), dtype=np.uint8)
    for colour in ((255, 255, 255), (0, 128, 7)):
        alpha = rgba[..., 3:] / 255
        wanted = over(rgba[..., :3] / 255, alpha, np.array(colour) / 255) * 255
        found = over_bytes(rgba, colour)
        # Rounding half up: a float that should end in .5 may lie on either side.
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 0.5 + 1e-9
