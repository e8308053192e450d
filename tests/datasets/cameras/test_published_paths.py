"""Paths of NVS-Solver: closed forms, and the released numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.datasets.cameras.published_paths import (
    between,
    ellipse_path,
    line_path,
    look_at,
    translation_distances,
    view_distances,
)


def centres(poses: np.ndarray) -> np.ndarray:
    return -np.einsum("fji,fj->fi", poses[:, :3, :3], poses[:, :3, 3])


def test_cameras_stand_on_the_path_and_see_the_origin_in_the_middle() -> None:
    for poses in (
        ellipse_path(60, 70, 7),
        ellipse_path(5, 3, 11, 9, inverse=True),
        line_path(40, (30, 2, -10)),
    ):
        assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-12)
        assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
        assert np.allclose(poses[:, :2, 3], 0, atol=1e-12) and (poses[:, 2, 3] > 0).all()
    places = centres(ellipse_path(60, 70, 7))
    assert np.allclose((places[:, 0] / 60) ** 2 + (places[:, 2] / 70) ** 2, 1)
    assert np.allclose(places[0], (0, 0, 70))
    assert np.allclose(
        centres(line_path(40, (30, 2, -10), 5))[[0, 2, 4]], [(40, 0, 0), (35, 1, -5), (30, 2, -10)]
    )
    with pytest.raises(ValueError, match="vertical"):
        look_at((0, 3, 0))


def test_the_way_between_two_views() -> None:
    a, b = look_at((3, 1, 2)), look_at((-1, 0.5, 4))
    for kept in (False, True):
        poses = between(a, b, 9, centres=kept)
        assert np.allclose(poses[0], a) and np.allclose(poses[-1], b)
        turns = Rotation.from_matrix(poses[1:, :3, :3] @ poses[:-1, :3, :3].transpose(0, 2, 1)).magnitude()
        assert np.allclose(turns, turns[0])
    steps = np.diff(centres(between(a, b, 9, centres=True)), axis=0)
    assert np.allclose(steps, steps[0])


def test_distances() -> None:
    a, b = look_at((3, 1, 2)), look_at((-1, 0.5, 4))
    d = view_distances(between(a, b, 9, centres=True), np.stack([a, b]), 2.0)
    assert max(d[0], d[-1]) < 1e-7 and d.max() == 1 and np.argmax(d) == 4
    turned = a.copy()
    turned[:3, :3] = Rotation.from_euler("y", 20, degrees=True).as_matrix() @ a[:3, :3]
    turned[:3, 3] = turned[:3, :3] @ a[:3, :3].T @ a[:3, 3]  # the same centre
    assert view_distances(np.stack([a, turned]), a[None], 2.0).round(6).tolist() == [0, 1]


def test_released_paths(shared: Path) -> None:
    with np.load(shared / "fixtures" / "nvs_solver" / "paths.npz") as z:
        a, b, step = z["ellipse_args"]
        for name, got in (
            ("ellipse_poses", ellipse_path(a, b, step)),
            ("ellipse_inverse_poses", ellipse_path(a, b, step, inverse=True)),
            ("line_poses", line_path(float(z["line_radius"]), z["line_end"])),
            ("two_poses", between(z["two_start"], z["two_end"])),
            ("two_distances", translation_distances(z["two_poses"], z["two_poses"][[0, -1]])),
        ):
            np.testing.assert_allclose(got, z[name], rtol=0, atol=1e-9)
