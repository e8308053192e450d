"""Mattes before a flat background: exact where it is clean, right where it has grain, else refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.flat_background import find_background
from orbit4d.model.sampling.generate import write_orbit
from orbit4d.recon4d.inputs.loading import load_frames, premultiply

Images = np.ndarray
WHITE = (1.0, 1.0, 1.0)


def before(rgba: Images, colour: Any = WHITE, sigma: float = 0.0, seed: int = 0, soft: float = 0.0) -> Images:
    """Straight RGBA uint8 [F, H, W, 4] before a colour, with Gaussian grain, uint8 [F, H, W, 3].

    `soft` blurs the grain over so many pixels, as a decoder does. `colour` broadcasts to [F, H, W, 3].
    """
    noise = np.random.default_rng(seed).normal(size=(*rgba.shape[:3], 3))
    if soft:
        noise = ndimage.gaussian_filter(noise, (0, soft, soft, 0), mode="wrap")
    mixed = premultiply(rgba)
    image = mixed[..., :3] + (1 - mixed[..., 3:]) * np.asarray(colour) + sigma * noise / noise.std()
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def overlap(alpha: Images, rgba: Images) -> float:
    """IoU of a matte [F, H, W] and the true one, both at one half, mean over frames."""
    ours, true = alpha > 0.5, rgba[..., 3] > 127
    return float(((ours & true).sum((1, 2)) / (ours | true).sum((1, 2))).mean())


@pytest.fixture(scope="module")
def sizes(make_clips: Callable[..., Any]) -> dict[int, Images]:
    """Straight RGBA [8, size, size, 4] of the same asset."""
    rigs = ("dynamic_orbit",)
    return {size: make_clips("asset-000", size=size, rigs=rigs)[0].pixels() for size in (32, 96)}


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("soft", [0.0, 1.0])
@pytest.mark.parametrize("sigma", [0.02, 0.04, 0.06])
def test_grain_and_tint_are_cut_away(sizes: dict[int, Images], size: int, soft: float, sigma: float) -> None:
    """The clean matte has an IoU of 0.93 at 32 pixels and 0.98 at 96, since it counts all of the soft edge.

    So 0.9 asks for a matte as good as the clean one, with 0.03 for the draw of the grain.
    """
    rgba = sizes[size]
    far = ~ndimage.binary_dilation(rgba[..., 3] > 0, np.ones((1, 7, 7)))
    for seed in range(3):
        grainy = before(rgba, (0.98, 0.96, 1.0), sigma, seed, soft)
        alpha = load_frames(grainy).rgba[..., 3]
        assert overlap(alpha, rgba) > 0.9
        assert (alpha[far] == 0).mean() >= (0.99 if soft else 1.0), "no haze, next to no specks"


def test_more_grain_than_a_border_can_tell_is_cut_where_the_colour_is_known(sizes: dict[int, Images]) -> None:
    grainy = before(sizes[32], sigma=0.1, soft=1.0) / np.float32(255)
    assert find_background(grainy) is None
    assert find_background(grainy, np.ones(3, np.float32)) is not None
    deafening = before(sizes[32], sigma=0.25) / np.float32(255)
    assert find_background(deafening, np.ones(3, np.float32)) is None


@pytest.mark.parametrize("sigma", [0.0, 0.03])
def test_a_background_that_drifts_from_frame_to_frame(sizes: dict[int, Images], sigma: float) -> None:
    drift = 1 - np.linspace(0, 0.1, 8).reshape(8, 1, 1, 1)
    alpha = load_frames(before(sizes[32], drift * np.ones(3), sigma)).rgba[..., 3]
    assert overlap(alpha, sizes[32]) > 0.9 and (alpha[:, 0] == 0).all()


@pytest.mark.parametrize("known", [None, np.ones(3, np.float32)])
@pytest.mark.parametrize("codec", [0, 2])
def test_a_clean_background_gives_the_same_matte_to_the_bit(
    sizes: dict[int, Images], known: Images | None, codec: int
) -> None:
    from orbit4d.datasets.images.flat_background import unmix

    stray = np.random.default_rng(0).integers(0, codec + 1, (8, 32, 32, 1))
    rgb = ((before(sizes[32]) - stray).clip(0, 255) / 255).astype(np.float32)
    background = find_background(rgb, known)
    assert background is not None and background.clean
    ring = np.concatenate([rgb[:, 0], rgb[:, -1], rgb[:, :, 0], rgb[:, :, -1]], axis=1).reshape(-1, 3)
    want = np.clip((np.abs(rgb - np.median(ring, axis=0)).max(-1) - 0.02) / (0.10 - 0.02), 0, 1)
    filled = np.stack([ndimage.binary_fill_holes(plane > 0.5) for plane in want])
    want = np.where(filled & (want <= 0.5), 1.0, want).astype(np.float32)
    np.testing.assert_array_equal(unmix(rgb, background)[..., 3], want)


def photograph(size: int) -> Images:
    """Soft blobs of many colours, as a room out of focus has, [size, size, 3]."""
    noise = np.random.default_rng(1).normal(size=(size, size, 3))
    soft = ndimage.gaussian_filter(noise, (size / 10, size / 10, 0), mode="wrap")
    return (0.5 + 0.2 * soft / soft.std()).clip(0, 1)


def horizon(size: int) -> Images:
    """A grey floor under a white wall."""
    return np.where(np.arange(size)[:, None, None] < 0.6 * size, 1.0, 0.5) * np.ones((1, size, 3))


def gradient(size: int) -> Images:
    """From white above to grey below, as a studio's backdrop."""
    return np.linspace(1.0, 0.4, size)[:, None, None] * np.ones((1, size, 3))


@pytest.mark.parametrize("scenery", [photograph, horizon, gradient])
@pytest.mark.parametrize("sigma", [0.0, 0.04])
@pytest.mark.parametrize("size", [32, 96])
def test_what_is_no_flat_colour_is_refused_in_one_line(
    tmp_path: Path, sizes: dict[int, Images], scenery: Callable[[int], Images], sigma: float, size: int
) -> None:
    frames = before(sizes[size], scenery(size), sigma)
    write_orbit(tmp_path / "clip.mp4", frames, orbit(8, size=(size, size)), 8.0, {})
    with pytest.raises(
        InputError, match=r"clip: the background is not one flat colour; give --mask"
    ) as error:
        load_frames(tmp_path / "clip")
    assert "\n" not in str(error.value)


def test_a_photograph_is_refused_though_the_cameras_name_a_colour(
    tmp_path: Path, sizes: dict[int, Images]
) -> None:
    frames = before(sizes[32], photograph(32))
    write_orbit(tmp_path / "clip.mp4", frames, orbit(8, size=(32, 32)), 8.0, {}, (255, 255, 255))
    with pytest.raises(InputError, match="not one flat colour"):
        load_frames(tmp_path / "clip")


def slab(width: int) -> Images:
    """An object that leaves the frame at top and bottom, straight RGBA [4, 40, 40, 4]."""
    rgba = np.zeros((4, 40, 40, 4), np.uint8)
    rgba[:, :, 12 : 12 + width] = [90, 60, 200, 255]
    return rgba


@pytest.mark.parametrize("sigma", [0.0, 0.04])
def test_an_object_that_touches_the_border(tmp_path: Path, sigma: float) -> None:
    few, much = slab(14), slab(24)
    assert overlap(load_frames(before(few, sigma=sigma)).rgba[..., 3], few) > 0.98
    # 30 % of the border: what is the object cannot be told, but by the colour that it was generated on.
    frames = before(much, sigma=sigma)
    with pytest.raises(InputError, match="not one flat colour"):
        load_frames(frames)
    write_orbit(tmp_path / "clip.mp4", frames, orbit(4, size=(40, 40)), 8.0, {}, (255, 255, 255))
    assert overlap(load_frames(tmp_path / "clip").rgba[..., 3], much) > 0.98


@pytest.mark.parametrize("sigma", [0.0, 0.04])
def test_a_white_object_on_white_is_reported(sigma: float) -> None:
    white = np.where(slab(14)[..., 3:] > 0, 255, 0) * np.ones(4, int)
    with pytest.raises(InputError, match=r"no object found .* the background's colour\); give --mask FOLDER"):
        load_frames(before(white.astype(np.uint8), sigma=sigma))


def test_specks_go_and_small_parts_stay(sizes: dict[int, Images]) -> None:
    rgba = sizes[32].copy()
    rgba[:, 2:5, 2:5] = [40, 40, 40, 255]
    grainy = before(rgba, sigma=0.04)
    grainy[:, 28, 28] = [255, 0, 255]
    alpha = load_frames(grainy).rgba[..., 3]
    assert (alpha[:, 2:5, 2:5] == 1).all() and (alpha[:, 28, 28] == 0).all()


def test_what_a_model_generated_is_cut_out_of_the_colour_it_was_trained_on(
    tmp_path: Path, sizes: dict[int, Images]
) -> None:
    cameras = orbit(8, size=(32, 32))
    frames = before(sizes[32], (0.97, 0.95, 0.99), 0.1)
    write_orbit(tmp_path / "clip.mp4", frames, cameras, 8.0, {"seed": 0}, (255, 255, 255))
    assert json.loads((tmp_path / "clip" / "transforms.json").read_text())["background"] == [255, 255, 255]
    loaded = load_frames(tmp_path / "clip")
    assert overlap(loaded.rgba[..., 3], sizes[32]) > 0.9
    assert any("grain of sigma 2" in note for note in loaded.notes)
    given = load_frames(frames, tmp_path / "clip" / "transforms.json")
    np.testing.assert_array_equal(given.rgba, loaded.rgba)


def test_a_colour_that_the_frames_do_not_show_is_not_believed(
    tmp_path: Path, sizes: dict[int, Images]
) -> None:
    frames = before(sizes[32], (0.0, 0.6, 0.2))
    write_orbit(tmp_path / "clip.mp4", frames, orbit(8, size=(32, 32)), 8.0, {}, (255, 255, 255))
    loaded = load_frames(tmp_path / "clip")
    assert loaded.notes[0] == "background 0 153 51 removed" and overlap(loaded.rgba[..., 3], sizes[32]) > 0.9


@pytest.mark.parametrize("named", ["white", [255, 255], [300, 0, 0], [None, 0, 0], [-1, 2, 3], {}])
def test_a_background_that_is_no_colour_is_named(
    tmp_path: Path, sizes: dict[int, Images], named: Any
) -> None:
    write_orbit(tmp_path / "clip.mp4", before(sizes[32]), orbit(8, size=(32, 32)), 8.0, {})
    path = tmp_path / "clip" / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"background": named}))
    with pytest.raises(InputError, match=r"transforms\.json: background .*: give \[red, green, blue\]"):
        load_frames(tmp_path / "clip")
