"""Geometric measures by their laws: invariances, known motions, conservation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.render.planning import vertex_measures as geometry

seeds = st.integers(0, 2**31)


def cloud(seed: int, moments: int = 12, vertices: int = 60) -> np.ndarray:
    """[T, V, 3] float32: a blob that turns, drifts and wobbles."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((vertices, 3))
    sway = rng.standard_normal((vertices, 3)) * 0.1
    frames = []
    for t in np.linspace(0.0, 1.0, moments):
        turned = points @ rotation((0.2, 0.3, 1.0), 0.7 * t).T
        frames.append(turned + sway * np.sin(2 * np.pi * t) + t * np.array([0.2, 0.0, 0.1]))
    return np.stack(frames).astype(np.float32)


def rotation(axis, angle: float) -> np.ndarray:
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def all_measures(vertices: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.array(
        [
            geometry.motion_geometry(vertices),
            *geometry.rigid_split(vertices),
            *geometry.speed_and_jerk(vertices, seconds),
            *geometry.rhythm(vertices, seconds),
        ]
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(a) > 0.1),
    angle=st.floats(-3, 3),
    scale=st.floats(0.01, 100),
    shift=st.tuples(*[st.floats(-5, 5)] * 3),
)
def test_motion_measures_do_not_change_under_rigid_motion_and_scale(seed, axis, angle, scale, shift):
    vertices, seconds = cloud(seed), np.linspace(0.0, 2.0, 12)
    moved = (vertices.astype(np.float64) @ rotation(axis, angle).T + shift) * scale
    # Rotation angles are read off a trace near 3, which costs half the digits.
    np.testing.assert_allclose(
        all_measures(moved.astype(np.float32), seconds), all_measures(vertices, seconds), rtol=2e-3, atol=2e-3
    )


@settings(max_examples=30, deadline=None)
@given(seed=seeds, quarter=st.integers(0, 3), scale=st.floats(0.01, 100))
def test_view_measures_as_a_set_survive_quarter_turns_and_scale(seed, quarter, scale):
    vertices = cloud(seed).astype(np.float64) * (0.3, 0.2, 0.4)
    turned = vertices @ rotation((0, 0, 1), quarter * np.pi / 2).T * scale
    found = []
    for points in (vertices, turned):
        box = geometry.boxes(points)
        size, centre = geometry.first_frame_scale(box)
        normalised = (points - centre) * size
        found.append(
            [
                *np.sort(geometry.out_of_frame(normalised)),
                *np.sort(geometry.silhouette_coverage(normalised[0])),
                geometry.union_growth(box),
                geometry.drift(box),
            ]
        )
    # A point on the edge of a cell or of the frame may fall to either side after rounding.
    np.testing.assert_allclose(found[0], found[1], atol=3.0 / geometry.GRID**2)


def test_motion_geometry_is_the_definition():
    first = np.array([(-1, 0, 0), (1, 0, 0), (0, 0, 0.5), (0, 0, -0.5)], np.float32)
    second = first + np.array((0, 0, 0.2))
    assert geometry.motion_geometry(np.stack([first, second])) == pytest.approx(0.1)  # 0.2 over 2 * 1
    # The largest displacement counts, not the last one.
    assert geometry.motion_geometry(np.stack([first, second, first])) == pytest.approx(0.1)
    assert geometry.motion_geometry(np.stack([first, first])) == 0.0


def test_an_asset_that_starts_as_a_point_is_unbounded_and_finite():
    grown = np.stack([np.zeros((4, 3)), np.eye(4, 3)]).astype(np.float32)
    assert geometry.motion_geometry(grown) == geometry.UNBOUNDED
    assert geometry.union_growth(geometry.boxes(grown)) == geometry.UNBOUNDED
    assert np.isfinite(all_measures(grown, np.array([0.0, 1.0]))).all()


@settings(max_examples=30, deadline=None)
@given(seed=seeds, angle=st.floats(0.05, 3.0))
def test_procrustes_finds_the_rigid_motion_it_is_given(seed, angle):
    points = np.random.default_rng(seed).standard_normal((40, 3))
    turn = rotation((1, 2, 3), angle)
    found, shift = geometry.procrustes(points, points @ turn.T + (1, 2, 3))
    np.testing.assert_allclose(found, turn, atol=1e-9)
    np.testing.assert_allclose(shift, (1, 2, 3), atol=1e-9)
    moving = np.stack([points @ rotation((1, 2, 3), angle * t).T for t in (0.0, 0.5, 1.0)])
    rigid, residual, turned = geometry.rigid_split(moving)
    assert residual < 1e-9
    assert rigid == pytest.approx(geometry.motion_geometry(moving))
    assert turned == pytest.approx(np.degrees(angle), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, mirrored=st.booleans(), flat=st.booleans())
def test_all_moments_at_once_are_each_moment_s_procrustes(seed, mirrored, flat):
    vertices = cloud(seed, moments=7)
    if flat:
        vertices[..., 2] = 0.0
    if mirrored:
        vertices[3:, :, 0] *= -1.0
    size, first = geometry.diameter(vertices[0]), vertices[0].astype(np.float64)
    expected = np.zeros(3)
    for moment in vertices[1:].astype(np.float64):
        turn, shift = geometry.procrustes(first, moment)
        fitted = first @ turn.T + shift
        angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
        parts = [
            np.sqrt(((a - b) ** 2).sum(axis=1).mean()) / size for a, b in ((fitted, first), (moment, fitted))
        ]
        expected = np.maximum(expected, [*parts, angle])
    np.testing.assert_allclose(geometry.rigid_split(vertices), expected, rtol=1e-6, atol=1e-6)


def test_procrustes_never_mirrors():
    points = np.random.default_rng(1).standard_normal((30, 3))
    found, _ = geometry.procrustes(points, points * (-1, 1, 1))
    assert np.linalg.det(found) == pytest.approx(1.0)


def test_deforming_is_not_rigid():
    vertices = cloud(3)
    first = vertices[0]
    stretched = np.stack([first, first * (1.0, 1.0, 1.4)])
    rigid, residual, _ = geometry.rigid_split(stretched)
    assert residual > 5 * rigid


def test_a_walk_is_periodic_and_a_fall_is_not():
    rng = np.random.default_rng(0)
    points, sway = rng.standard_normal((50, 3)), rng.standard_normal((50, 3)) * 0.3
    t = np.linspace(0.0, 4.0, 97)
    walk = points + sway * np.sin(2 * np.pi * t)[:, None, None]
    periodicity, period, gap = geometry.rhythm(walk, t)
    assert periodicity > 0.95 and gap < 1e-6
    assert period == pytest.approx(round(period)) and 1.0 <= period <= 3.0
    fall = points - np.array([0, 0, 1.0]) * (t**2)[:, None, None]
    periodicity, _, gap = geometry.rhythm(fall, t)
    assert periodicity == 0.0 and gap == pytest.approx(1.0)


def test_speed_is_in_diameters_per_second_whatever_the_sampling():
    points = np.random.default_rng(0).standard_normal((50, 3))
    points /= geometry.diameter(points)
    for n in (3, 10, 40):
        t = np.linspace(0.0, 2.0, n)
        mean, top, jerk = geometry.speed_and_jerk(points + np.array([0.5, 0, 0]) * t[:, None, None], t)
        assert mean == pytest.approx(0.5) and top == pytest.approx(0.5)
        assert jerk < 1e-6


def test_union_growth_and_drift_of_a_known_flight():
    cube = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    box = geometry.boxes(np.stack([cube, cube + np.array((3, 0, 0))]))
    assert geometry.union_growth(box) == pytest.approx(4.0)
    assert geometry.drift(box) == pytest.approx(3.0)


def test_out_of_frame_agrees_with_projecting_through_the_cameras():
    points = np.random.default_rng(0).standard_normal((2, 500, 3)) * 0.5
    expected = []
    for camera in orbit(geometry.N_VIEWS, size=(200, 200)):
        pixels, depth = camera.project(points)
        outside = (np.abs(pixels - 100.0) > 100.0).any(axis=-1) | (depth <= 0)
        expected.append(outside.mean(axis=1).max())
    np.testing.assert_allclose(geometry.out_of_frame(points), expected, atol=1e-12)


def test_coverage_of_a_sphere_is_the_area_of_its_disc():
    n = np.arange(20_000) + 0.5
    height, turn = 1 - 2 * n / 20_000, np.pi * (1 + 5**0.5) * n
    ring = np.sqrt(1 - height**2)
    sphere = 0.5 * np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=-1)
    radius = 0.5 / np.sqrt(4 - 0.25) / geometry.HALF_TAN  # of the disc, in half frames
    found = geometry.silhouette_coverage(sphere)
    # A cell counts when any point falls in it, so the disc grows by about half a cell all around.
    exact, grown = np.pi * radius**2 / 4, np.pi * (radius + 1.2 / geometry.GRID) ** 2 / 4
    assert ((found > exact) & (found < grown * 1.05)).all()


def test_surface_points_lie_on_the_triangles_and_spread_by_area():
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 5), (3, 0, 5), (0, 3, 5)], float)
    triangles = np.array([(0, 1, 2), (3, 4, 5)])
    found = geometry.surface_points(points, triangles, 2000)
    low = found[:, 2] < 2.5
    assert low.mean() == pytest.approx(0.1, abs=0.01)
    assert set(np.unique(found[:, 2].round(9))) == {0.0, 5.0}
    assert found[low][:, :2].sum(axis=1).max() <= 1 + 1e-9
    assert found[low].mean(axis=0)[:2] == pytest.approx([1 / 3, 1 / 3], abs=0.02)


def test_a_torn_skin_is_seen_and_growing_as_a_whole_is_not_tearing():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 3))
    edges = np.stack([np.arange(199), np.arange(1, 200)], axis=1)
    near = points[np.argsort(points[:, 0])]
    rest, size = geometry.edge_lengths(near, edges), geometry.diameter(near)
    torn = near.copy()
    torn[100] += (100, 0, 0)
    lengths = np.stack([geometry.edge_lengths(p, edges) for p in (near, torn)])
    assert geometry.torn_edges(lengths, rest, size) == pytest.approx(2 / 199)
    grown = np.stack([geometry.edge_lengths(near * s, edges) for s in (1.0, 20.0)])
    assert geometry.torn_edges(grown, rest, size) == 0.0


def wheel(turn: float, sides: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """(vertices, triangles) of a closed cylinder of radius 1 and width 0.5 about the x axis."""
    angle = 2 * np.pi * np.arange(sides) / sides + turn
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    parts = [np.column_stack([np.full(sides, x), rim]) for x in (-0.25, 0.25)]
    vertices = np.concatenate([*parts, [(-0.25, 0, 0), (0.25, 0, 0)]])
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    a, b = np.full(sides, 2 * sides), np.full(sides, 2 * sides + 1)
    faces = [(i, j, i + sides), (j, j + sides, i + sides), (a, j, i), (b, i + sides, j + sides)]
    return vertices, np.concatenate([np.stack(face, axis=1) for face in faces])


def test_a_wheel_that_turns_on_the_spot_keeps_its_shape_and_one_that_grows_does_not():
    vertices, triangles = wheel(0.0)
    turned, grown = wheel(1.0)[0], vertices * (1.0, 1.1, 1.1)
    assert geometry.motion_geometry(np.stack([vertices, turned])) > 0.4
    assert geometry.shape_change(vertices, [turned], triangles) < 0.005
    # Outwards by a tenth of the radius, which is half the diameter: all of the tread, nothing of the sides.
    change = geometry.shape_change(vertices, [turned, grown, vertices], triangles)
    tread = 0.5 * 2 * np.pi * 1.1 / (0.5 * 2 * np.pi * 1.1 + 2 * np.pi * 1.1**2)
    assert change == pytest.approx(0.1 * np.sqrt(tread) / geometry.diameter(vertices), rel=0.15)
    assert geometry.shape_change(vertices, [], triangles) == 0.0
    assert geometry.shape_change(vertices * 0.0, [turned], triangles) == 0.0


def test_a_plate_that_leaves_its_place_in_its_own_plane_has_moved():
    plate = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], float)
    triangles = np.array([(0, 1, 2), (0, 2, 3)])
    moved = geometry.shape_change(plate, [np.add(plate, (1.0, 0, 0))], triangles) * geometry.diameter(plate)
    assert moved == pytest.approx(np.sqrt(1 / 3), rel=0.05)  # evenly from 0 to 1 away


@settings(max_examples=15, deadline=None)
@given(
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(a) > 0.1),
    angle=st.floats(-3, 3),
    scale=st.floats(0.01, 100),
)
def test_shape_change_survives_rigid_motion_and_scale(axis, angle, scale):
    (vertices, triangles), bent = wheel(0.0), wheel(0.3)[0] * (1.0, 1.0, 1.2)
    expected = geometry.shape_change(vertices, [bent], triangles)
    copies = [(points @ rotation(axis, angle).T + (1, 2, 3)) * scale for points in (vertices, bent)]
    assert geometry.shape_change(copies[0], copies[1:], triangles) == pytest.approx(expected, rel=1e-3)
