"""Samples of a surface and the volume that two share: against trimesh, solid angles and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.evaluate import volume_iou
from orbit4d.evaluate.geometry.surfaces import areas, open_share, points_on, sample_surface
from orbit4d.evaluate.geometry.winding import winding_number, winding_number_reference

CUBE = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE_FACES = np.array([t for a, b, c, d in SIDES for t in ((a, b, c), (a, c, d))])


def blob(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A closed, bumpy surface that is not convex, out of trimesh's icosphere."""
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=3)
    rng = np.random.default_rng(seed)
    bumps = sum(np.sin(sphere.vertices @ rng.normal(size=3) * 3 + 6 * rng.random()) for _ in range(3))
    return sphere.vertices * (1 + 0.2 * bumps)[:, None], np.asarray(sphere.faces)


def test_the_winding_number_is_that_of_solid_angles() -> None:
    vertices, faces = blob(0)
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (500, 3))
    exact = winding_number_reference(points, vertices, faces)
    assert np.allclose(winding_number(points, vertices, faces), exact, atol=1e-6)
    assert 20 < (exact > 0.5).sum() < 480
    assert np.allclose(winding_number(points, vertices, faces[:, ::-1]), -exact, atol=1e-6)


def test_points_over_an_edge_or_a_corner_count_once() -> None:
    """Points exactly under the diagonals and edges of a cube's top: each is inside, none twice."""
    grid = np.linspace(0, 1, 5)[1:-1]
    points = np.array([(x, y, z) for x in grid for y in grid for z in grid])
    assert np.allclose(winding_number(points, CUBE, CUBE_FACES), 1)
    assert np.allclose(winding_number(points + 2, CUBE, CUBE_FACES), 0)


def test_volume_iou_of_two_cubes() -> None:
    """Shifted by d along x the cubes share (1 - d) / (1 + d). 100,000 points: sigma 0.0015, 5 allowed."""
    still = np.repeat(CUBE[None], 2, 0)
    moved = still + np.array([0, 0.5])[:, None, None] * np.array([1.0, 0, 0])
    both = volume_iou((still, CUBE_FACES), (moved, CUBE_FACES))
    assert both == pytest.approx((1 + 1 / 3) / 2, abs=0.008)
    assert both == volume_iou((moved, CUBE_FACES), (still, CUBE_FACES))
    assert volume_iou((still, CUBE_FACES), (still, CUBE_FACES)) == 1
    assert np.isnan(volume_iou((still, CUBE_FACES[1:]), (still, CUBE_FACES)))
    assert open_share(CUBE_FACES) == 0
    with pytest.raises(ValueError, match="2 frames and truth 1"):
        volume_iou((still, CUBE_FACES), (still[:1], CUBE_FACES))
    with pytest.raises(ValueError, match="name vertices"):
        volume_iou((still, CUBE_FACES + 1), (still, CUBE_FACES))


def test_samples_are_trimeshs() -> None:
    trimesh = pytest.importorskip("trimesh")
    vertices, faces = blob(2)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    expected, triangle = trimesh.sample.sample_surface(mesh, 500, seed=44)
    mine = sample_surface(vertices, faces, 500, 44)
    assert np.array_equal(mine[0], triangle)
    assert np.allclose(points_on(vertices, faces, *mine), expected, atol=1e-12)
    assert areas(vertices, faces).sum() == pytest.approx(mesh.area)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, 0)


def test_volume_iou_against_solid_angles_on_the_same_points() -> None:
    """Two bumpy surfaces in motion: the points drawn here, what is inside told by the slow twin."""
    (a, faces), (b, _) = blob(3), blob(4)
    made, truth = np.stack([a, 1.1 * a]), np.stack([b, b + 0.2])
    low, high = (f([f(made, axis=(0, 1)), f(truth, axis=(0, 1))], axis=0) for f in (np.min, np.max))
    points = low + (high - low) * np.random.default_rng(6).random((400, 3))
    shares = []
    for p, q in zip(made, truth, strict=True):
        m, t = (winding_number_reference(points, v, faces) > 0.5 for v in (p, q))
        shares.append((m & t).sum() / (m | t).sum())
    found = volume_iou((made, faces), (truth, faces), points=400, seed=6)
    assert 0.2 < found < 0.95 and found == pytest.approx(np.mean(shares), abs=1e-12)
    # The drawn points move along with a shift and a scale of both.
    moved = volume_iou((3 * made + 1, faces), (3 * truth + 1, faces), points=400, seed=6)
    assert moved == pytest.approx(found, abs=1e-12)
    noise = np.random.default_rng(7).normal(size=a.shape)
    noisy = [volume_iou((a[None] + s * noise, faces), (a[None], faces), points=4000) for s in (0, 0.03, 0.1)]
    assert noisy == sorted(noisy, reverse=True) and noisy[0] == 1 > noisy[1]
