"""Errors of camera trajectories: a case in closed form, laws, and an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.datasets import orbit
from orbit4d.evaluate import camera_errors


def turned(
    c2w: np.ndarray, rotation: np.ndarray, scale: float, shift: tuple[float, float, float]
) -> np.ndarray:
    """The cameras in a world that was turned, scaled and moved."""
    out = c2w.copy()
    out[:, :3, :3] = rotation @ c2w[:, :3, :3]
    out[:, :3, 3] = scale * c2w[:, :3, 3] @ rotation.T + np.array(shift)
    return out


def ring(n: int = 8, elevation: float = 10.0) -> np.ndarray:
    cameras = orbit(n, radius=2.0, elevation_deg=elevation)
    return np.stack([c.c2w for c in cameras])


def test_a_known_disturbance() -> None:
    """Centre x += 0.01 i and a roll of 2 degrees, then another world: worked out by hand and by numpy."""
    truth = ring()
    bent = truth.copy()
    bent[:, 0, 3] += 0.01 * np.arange(8)
    bent[1:, :3, :3] = bent[1:, :3, :3] @ Rotation.from_euler("x", 2, degrees=True).as_matrix()
    z30 = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    errors = camera_errors(turned(bent, z30, 3.0, (1, 2, 3)), truth)
    assert errors["rot"] == pytest.approx(2.0, abs=1e-9)
    assert errors["rot_sum_rad"] == pytest.approx(7 * np.radians(2.0), abs=1e-9)
    flipped = np.diag([1.0, -1, -1, 1])
    opencv = camera_errors(turned(bent, z30, 3.0, (1, 2, 3)) @ flipped, truth @ flipped)
    assert opencv["rot"] == pytest.approx(errors["rot"], abs=1e-9)
    for name in ("trans", "ate", "rpe_trans", "scale"):
        assert opencv[name] == pytest.approx(errors[name], abs=1e-9)


def test_similar_worlds_are_equal() -> None:
    truth = ring()
    z = Rotation.from_euler("xyz", [20, 40, 60], degrees=True).as_matrix()
    errors = camera_errors(turned(truth, z, 0.2, (3, 1, -4)), truth)
    assert errors["scale"] == pytest.approx(5)
    assert max(v for k, v in errors.items() if k != "scale") < 1e-6


def test_rotation_error_is_symmetric_and_a_rigid_motion_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, other = ring(), ring(elevation=25)
    other[:, :3, 3] += rng.normal(size=(8, 3)) * 0.1
    assert camera_errors(truth, other)["rot"] == pytest.approx(camera_errors(other, truth)["rot"], abs=1e-9)
    q = Rotation.random(random_state=1).as_matrix()
    moved = camera_errors(turned(other, q, 1, (1, 2, 3)), turned(truth, q, 1, (1, 2, 3)))
    assert moved == pytest.approx(camera_errors(other, truth), abs=1e-9)


def test_absolute_error_against_scipys_alignment() -> None:
    """Umeyama's rotation is the one that scipy's Kabsch finds; the scale then is a least-squares quotient."""
    rng = np.random.default_rng(2)
    truth, other = ring(12), ring(12)
    other[:, :3, 3] = other[:, :3, 3] @ Rotation.random(random_state=3).as_matrix() * 1.7
    other[:, :3, 3] += 0.05 * rng.normal(size=(12, 3))
    s, t = (m[:, :3, 3] - m[:, :3, 3].mean(0) for m in (other, truth))
    rotation, _ = Rotation.align_vectors(t, s)
    turned_ = rotation.apply(s)
    scaled = turned_ * ((turned_ * t).sum() / (turned_**2).sum())
    expected = np.sqrt(((scaled - t) ** 2).sum(1).mean())
    assert camera_errors(other, truth)["ate"] == pytest.approx(expected, abs=1e-9)


def test_degenerate_trajectories() -> None:
    one = ring()[:1]
    assert camera_errors(one, one) | {"scale": 0} == dict.fromkeys(camera_errors(one, one), 0.0)
    still = np.repeat(one, 5, 0)
    assert camera_errors(still, still + 0.0)["ate"] == 0
    with pytest.raises(ValueError, match="predicted has 1 cameras and truth 5"):
        camera_errors(one, still)
    with pytest.raises(ValueError, match=r"\[F, 4, 4\]"):
        camera_errors(one[0], one[0])
    with pytest.raises(ValueError, match="not finite"):
        camera_errors(one * np.nan, one)
