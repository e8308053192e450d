"""Laws of the camera conventions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit4d.datasets.cameras.camera import (
    DEFAULT_FOV_X_DEG,
    Camera,
    c2w_to_w2c_opencv,
    orbit,
    orbit_c2w,
    published_azimuth0_deg,
    published_elevation_deg,
    w2c_opencv_to_c2w,
)

angles = st.floats(-720, 720)
elevations = st.floats(-90, 90)


@given(angles, elevations, st.floats(0.5, 10))
def test_orbit_view_is_a_rigid_frame_that_looks_at_the_origin(
    azimuth: float, elevation: float, radius: float
):
    c2w = orbit_c2w(azimuth, elevation, radius)
    np.testing.assert_allclose(c2w[:3, :3].T @ c2w[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1)
    # OpenGL cameras look along -Z: walking `radius` that way from the centre ends at the origin.
    np.testing.assert_allclose(c2w[:3, 3] - radius * c2w[:3, 2], 0, atol=1e-12)


def test_front_is_minus_y_and_the_orbit_turns_towards_plus_x():
    views = orbit(4)
    expected = [[0, -2, 0], [2, 0, 0], [0, 2, 0], [-2, 0, 0]]
    np.testing.assert_allclose([view.position for view in views], expected, atol=1e-12)
    pixel, depth = views[0].project([[0, 0, 0], [0.1, 0, 0], [0, 0, 0.1]])
    np.testing.assert_allclose(pixel[0], [128, 128])
    assert pixel[1, 0] > 128 and pixel[2, 1] < 128, "+X is to the right, +Z is up in the front view"
    np.testing.assert_allclose(depth, 2)


@given(st.integers(2, 40), angles)
def test_open_orbit_never_repeats_a_view_and_closed_repeats_the_first(n: int, azimuth: float):
    views = orbit(n, azimuth0_deg=azimuth)
    gaps = np.linalg.norm(np.diff([view.position for view in [*views, views[0]]], axis=0), axis=1)
    np.testing.assert_allclose(gaps, 2 * 2 * np.sin(np.pi / n), atol=1e-9)
    closed = orbit(n, azimuth0_deg=azimuth, closed=True)
    np.testing.assert_allclose(closed[-1].c2w, closed[0].c2w, atol=1e-9)


@given(st.integers(0, 23), st.floats(0, 1), st.integers(0, 30))
def test_closed_orbit_is_the_published_formula(i: int, fraction: float, elevation: int):
    """Camera = -2 x normalised (sin, cos, -elevation/180) of 2 pi (1 - i/23 + az): rendering/blender.py."""
    angle = 2 * np.pi * (1 - i / 23 + fraction)
    direction = np.array([np.sin(angle), np.cos(angle), -elevation / 180])
    published = -2 * direction / np.linalg.norm(direction)
    view = orbit(
        24,
        elevation_deg=published_elevation_deg(elevation),
        azimuth0_deg=published_azimuth0_deg(fraction),
        closed=True,
    )[i]
    np.testing.assert_allclose(view.position, published, atol=1e-9)


@given(angles, elevations)
def test_opencv_conversion_is_a_bijection_and_projects_the_same(azimuth: float, elevation: float):
    camera = Camera(orbit_c2w(azimuth, elevation), 300, 310, 120, 130, 256, 256)
    np.testing.assert_allclose(w2c_opencv_to_c2w(c2w_to_w2c_opencv(camera.c2w)), camera.c2w, atol=1e-12)
    point = np.array([0.1, -0.2, 0.3])
    # By hand in OpenGL axes: x right, y up, -z forward.
    local = np.linalg.inv(camera.c2w) @ [*point, 1]
    by_hand = [120 + 300 * local[0] / -local[2], 130 - 310 * local[1] / -local[2]]
    pixel, depth = camera.project(point)
    np.testing.assert_allclose(pixel, by_hand, atol=1e-9)
    assert depth == pytest.approx(-local[2])
    homogeneous = camera.K @ (camera.w2c_opencv @ [*point, 1])[:3]
    np.testing.assert_allclose(pixel, homogeneous[:2] / homogeneous[2], atol=1e-9)


def test_resizing_keeps_the_field_of_view_and_scales_pixels():
    camera = orbit(1, size=(256, 128))[0]
    assert camera.fov_x_deg == pytest.approx(DEFAULT_FOV_X_DEG)
    small = camera.resized(64, 32)
    assert small.fov_x_deg == pytest.approx(camera.fov_x_deg)
    np.testing.assert_allclose(small.project([0.2, 0.1, 0.1])[0], camera.project([0.2, 0.1, 0.1])[0] / 4)


def test_cameras_are_values():
    one, two = orbit(2)[1], orbit(2)[1]
    assert one == two and hash(one) == hash(two) and one != orbit(3)[1]
    with pytest.raises(ValueError, match="read-only"):
        one.c2w[0, 0] = 5
    with pytest.raises(ValueError, match="4x4"):
        Camera(np.eye(3), 1, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError):
        orbit(0)
