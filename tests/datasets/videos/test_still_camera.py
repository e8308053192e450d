"""Whether a camera stood still: tracks made by hand, and images that show the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from orbit4d.datasets.videos.still_camera import Tracks, camera_motion, motion_of_tracks, track_corners

SIZE, FRAMES = 96, 5
KINDS = pytest.mark.parametrize(
    ("kind", "still"), [("still", True), ("pan", False), ("zoom", False), ("object", True)]
)


def texture(seed: int = 0, size: int = 2 * SIZE) -> np.ndarray:
    """[size, size] in 0 to 1, with corners everywhere."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 1.5)
    return (noise - noise.min()) / np.ptp(noise)


def seen(dx: float = 0.0, zoom: float = 1.0, dy: float = 0.0) -> np.ndarray:
    """[SIZE, SIZE] of the texture's middle, moved and enlarged about its centre."""
    row, column = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    at = [row / zoom - dy + SIZE, column / zoom - dx + SIZE]
    return ndimage.map_coordinates(texture(), at, order=3)


def clip(kind: str) -> np.ndarray:
    """[FRAMES, SIZE, SIZE, 3] uint8."""
    images = []
    for k, u in enumerate(np.linspace(0, 1, FRAMES)):
        image = seen()
        if kind == "pan":
            image = seen(dx=0.01 * SIZE * u)
        elif kind == "zoom":
            image = seen(zoom=1 + 0.04 * u)
        elif kind == "object":
            image = image.copy()
            image[30:54, 10 + 8 * k : 34 + 8 * k] = texture(1)[:24, :24]
        images.append(image)
    rgb = np.repeat(np.array(images)[..., None], 3, axis=-1)
    return (rgb * 255).round().clip(0, 255).astype(np.uint8)


def made_tracks(kind: str) -> Tracks:
    """Of a grid of 12 x 12 points; of an object a quarter of them."""
    grid = np.stack(np.meshgrid(np.linspace(4, 91, 12), np.linspace(4, 91, 12)), -1).reshape(-1, 2)
    places = np.repeat(grid[None], FRAMES, axis=0)
    for k, u in enumerate(np.linspace(0, 1, FRAMES)):
        if kind == "pan":
            places[k, :, 0] += 0.01 * SIZE * u
        elif kind == "zoom":
            places[k] += 0.04 * u * (grid - (SIZE - 1) / 2)
        elif kind == "object":
            places[k, :36] += 30 * u
    return Tracks(places, np.ones(places.shape[:2], bool))


@KINDS
def test_synthetic_tracks_are_judged_exactly(kind: str, still: bool) -> None:
    found = motion_of_tracks(made_tracks(kind), SIZE)
    assert found.is_still is still and found.tracks == 144
    grid = made_tracks("still").places[0] - (SIZE - 1) / 2
    exact = {"pan": 0.01, "zoom": 0.04 * np.median(np.linalg.norm(grid, axis=1)) / SIZE}
    assert found.shift == pytest.approx(exact.get(kind, 0.0), abs=1e-12)


@KINDS
def test_images_are_judged_alike(kind: str, still: bool) -> None:
    found = camera_motion(clip(kind))
    assert found.is_still is still and found.tracks > 30
    # A tenth of a pixel: eight bits and linear interpolation.
    exact = {"still": 0.0, "pan": 0.01, "object": 0.0}
    if kind in exact:
        assert found.shift == pytest.approx(exact[kind], abs=0.1 / SIZE)


def test_tracks_follow_the_image() -> None:
    grey = np.array([seen(), seen(dx=2.3, dy=-1.4), seen(dx=5.0, dy=3.2)])
    tracks = track_corners(grey)
    assert tracks.alive.mean() > 0.8
    for k, moved in enumerate([(0, 0), (2.3, -1.4), (5.0, 3.2)]):
        off = (tracks.places[k] - tracks.places[0] - moved)[tracks.alive[k]]
        assert np.median(np.abs(off)) < 0.05 and np.abs(off).max() < 0.6


def test_mask_tells_what_moves() -> None:
    """An object that fills most of the image: only a mask tells that the camera stands still."""
    video = clip("still").copy()
    for k in range(FRAMES):
        moved = (texture(2)[5 * k : 5 * k + SIZE, 7 * k : 7 * k + 80] * 255).astype(np.uint8)
        video[k, :, :80] = moved[..., None]
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, :82] = True
    assert not camera_motion(video).is_still
    assert camera_motion(video, mask=mask).is_still


def test_nothing_to_see_and_all_lost() -> None:
    plain = np.full((3, SIZE, SIZE, 3), 200, np.uint8)
    found = camera_motion(plain)
    assert np.isnan(found.shift) and found.tracks == 0 and not found.is_still
    cut = np.concatenate([clip("still")[:1], plain])
    assert not camera_motion(cut).is_still
    tracks = made_tracks("still")
    assert camera_motion(plain[:1].repeat(FRAMES, 0), tracks=tracks).is_still
    lost = Tracks(tracks.places, tracks.alive & (np.arange(FRAMES) < 2)[:, None])
    assert motion_of_tracks(lost, SIZE).shift == float("inf")


def test_frames_are_looked_at_eight_times_a_second() -> None:
    """A jolt between the frames that are looked at is not seen; at 8 frames a second it is."""
    video = clip("still").copy()
    video[1] = np.roll(video[1], 6, axis=1)
    assert camera_motion(video, fps=16).is_still and not camera_motion(video, fps=8).is_still
