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


def test_every_error_against_scipys_rotations() -> None:
    """Random trajectories, one camera after another; no inverse and no chord, as the code has them."""
    rng = np.random.default_rng(6)
    n = 9
    a, b = (np.tile(np.eye(4), (n, 1, 1)) for _ in range(2))
    for c2w, seed in ((a, 10), (b, 11)):
        c2w[:, :3, :3] = Rotation.random(n, random_state=seed).as_matrix()
        c2w[:, :3, 3] = rng.normal(size=(n, 3))
    turn = [Rotation.from_matrix(c2w[:, :3, :3]) for c2w in (a, b)]
    relative = [r[0].inv() * r[1:] for r in turn]
    angles = (relative[0] * relative[1].inv()).magnitude()
    steps = [r[0].inv().apply(c2w[1:, :3, 3] - c2w[0, :3, 3]) for r, c2w in zip(turn, (a, b), strict=True)]
    scale = np.linalg.lstsq(steps[0].reshape(-1, 1), steps[1].ravel(), rcond=None)[0][0]
    s, t = (c2w[:, :3, 3] - c2w[:, :3, 3].mean(0) for c2w in (a, b))
    kabsch, _ = Rotation.align_vectors(t, s)
    size = (kabsch.apply(s) * t).sum() / (s * s).sum()
    centre, turned_ = size * kabsch.apply(s), kabsch * turn[0]
    rpe_t, rpe_r = [], []
    for k in range(n - 1):
        one = turned_[k].inv().apply(centre[k + 1] - centre[k])
        two = turn[1][k].inv().apply(t[k + 1] - t[k])
        rpe_t.append(np.linalg.norm(one - two))
        step = (turned_[k].inv() * turned_[k + 1], turn[1][k].inv() * turn[1][k + 1])
        rpe_r.append((step[1].inv() * step[0]).magnitude())
    expected = {
        "rot": np.degrees(angles.mean()),
        "trans": np.linalg.norm(scale * steps[0] - steps[1], axis=1).mean(),
        "ate": np.sqrt(((centre - t) ** 2).sum(1).mean()),
        "rpe_rot": np.degrees(np.mean(rpe_r)),
        "rpe_trans": np.sqrt(np.mean(np.square(rpe_t))),
        "rot_sum_rad": angles.sum(),
        "scale": scale,
    }
    assert camera_errors(a, b) == pytest.approx(expected, abs=1e-9)


def test_noise_raises_every_error() -> None:
    truth = ring(12)
    rng = np.random.default_rng(7)
    shift, axis = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    series = []
    for sigma in (0, 0.01, 0.05, 0.2):
        noisy = truth.copy()
        noisy[:, :3, 3] += sigma * shift
        noisy[:, :3, :3] = noisy[:, :3, :3] @ Rotation.from_rotvec(sigma * axis).as_matrix()
        series.append(camera_errors(noisy, truth))
    for name in ("rot", "trans", "ate", "rpe_rot", "rpe_trans", "rot_sum_rad"):
        values = [one[name] for one in series]
        assert values == sorted(values) and values[0] < 1e-6 < values[1], name
