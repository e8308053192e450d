"""Paths of a camera around the origin."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import orbit, orbit_c2w, stack_c2w
from orbit4d.datasets.cameras.paths import CameraPath, parse_key_poses, rolled
from orbit4d.datasets.core.errors import InputError

START = (15.0, 10.0, 2.0)
KEYS = ((0.0, 0.0, 2.0), (60.0, 30.0, 1.5), (120.0, 10.0, 2.5))
PATHS = (
    CameraPath(turns=0.5),
    CameraPath("vertical"),
    CameraPath("spiral", rise_deg=40.0, easing=2.0),
    CameraPath("spline", key_poses=KEYS),
    CameraPath(roll_deg=25.0),
)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.kind)
@pytest.mark.parametrize("closed", [False, True])
def test_every_view_looks_at_the_origin(path: CameraPath, closed: bool) -> None:
    c2w = path.c2w(START, 9, closed)
    away = np.linalg.norm(c2w[:, :3, 3], axis=1)
    np.testing.assert_allclose(c2w[:, :3, 3], away[:, None] * c2w[:, :3, 2], atol=1e-12)
    np.testing.assert_allclose(
        c2w[:, :3, :3] @ c2w[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (9, 1, 1)), atol=1e-12
    )


@pytest.mark.parametrize("closed", [False, True])
def test_a_plain_path_is_the_orbit(closed: bool) -> None:
    expected = stack_c2w(orbit(8, 2.0, 10.0, azimuth0_deg=15.0, closed=closed))
    np.testing.assert_allclose(CameraPath().c2w(START, 8, closed), expected, atol=1e-12)


def test_turns_are_speed_and_direction() -> None:
    half = CameraPath(turns=-0.5).c2w(START, 4, closed=False)
    np.testing.assert_allclose(half, [orbit_c2w(15.0 - 45.0 * i, 10.0) for i in range(4)], atol=1e-12)


def test_a_vertical_orbit_goes_over_the_poles() -> None:
    c2w = CameraPath("vertical").c2w((0.0, 0.0, 2.0), 4, closed=False)
    np.testing.assert_allclose(c2w[:, :3, 3], [[0, -2, 0], [0, 0, 2], [0, 2, 0], [0, 0, -2]], atol=1e-12)
    assert np.allclose(c2w[:, :3, 0], [1, 0, 0]), "the camera's right stays: no flip at the poles"


def test_a_spiral_reaches_its_height_in_the_last_frame() -> None:
    c2w = CameraPath("spiral", rise_deg=40.0).c2w(START, 5, closed=False)
    elevation = np.degrees(np.arcsin(c2w[:, 2, 3] / 2.0))
    np.testing.assert_allclose(elevation, [10, 20, 30, 40, 50], atol=1e-9)


def test_a_spline_runs_through_its_key_poses_at_even_speed() -> None:
    c2w = CameraPath("spline", key_poses=KEYS).c2w(START, 201, closed=False)
    for azimuth, elevation, radius in KEYS:
        key = orbit_c2w(15.0 + azimuth, elevation, radius)
        assert np.linalg.norm(c2w[:, :3, 3] - key[:3, 3], axis=1).min() < 0.02
    np.testing.assert_allclose(c2w[0], orbit_c2w(15.0, 0.0, 2.0), atol=1e-12)
    steps = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1)
    assert steps.max() / steps.min() < 1.01


def test_roll_turns_the_image_and_leaves_the_target() -> None:
    camera = orbit(1, elevation_deg=20.0)[0]
    turned = rolled(camera.c2w, 30.0)
    np.testing.assert_array_equal(turned[:3, 2:], camera.c2w[:3, 2:])
    # Seen from behind the camera turns counter-clockwise, so its right leans upwards.
    np.testing.assert_allclose(
        turned[:3, 0], np.cos(np.pi / 6) * camera.c2w[:3, 0] + np.sin(np.pi / 6) * camera.c2w[:3, 1]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,0,2", "a spline needs two different ones"),
        ("0,0,2; 0,0,2", "a spline needs two different ones"),
        ("0,0; 1,2,3", "'0,0' is no pose; write azimuth,elevation,radius"),
        ("0,95,2; 0,0,2", "elevations lie within -89 to 89"),
        ("0,0,0.1; 0,0,2", "radii within 0.6 to 100"),
    ],
)
def test_key_poses_that_cannot_be_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_key_poses(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_spline_through_the_object_is_refused() -> None:
    path = CameraPath("spline", key_poses=((0.0, 0.0, 1.0), (180.0, 0.0, 1.0)))
    with pytest.raises(InputError, match=r"comes within 0\.00 units of the centre"):
        path.c2w(START, 5, closed=False)
