"""Laws of the distances of clouds, each against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.evaluate import chamfer, f_score, normal_consistency


def brute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every distance of [N, 3] and [M, 3]: [N, M]."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def units(rng: np.random.Generator, n: int) -> np.ndarray:
    v = rng.normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


A = np.array([(0, 0, 0.1), (2, 0, 0), (0, 1.2, 0), (0, 0, -0.3)])
B = np.array([(0, 0, 0), (2, 0, 0), (0, 1, 0.0)])


def test_by_hand() -> None:
    assert chamfer(A, B) == pytest.approx(0.25, abs=1e-12)
    for tau, score in ((0.05, 2 / 7), (0.15, 4 / 7), (0.25, 6 / 7), (0.35, 1.0)):
        assert f_score(A, B, tau) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(700, 3)), rng.normal(size=(900, 3))
    d = brute(a, b)
    assert chamfer(a, b) == pytest.approx(d.min(0).mean() + d.min(1).mean(), abs=1e-12)
    precision, recall = (d.min(1) < 0.2).mean(), (d.min(0) < 0.2).mean()
    assert f_score(a, b, 0.2) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-12)
    n, m = units(rng, 700), units(rng, 900)
    dots = (np.abs((n * m[d.argmin(1)]).sum(1)).mean() + np.abs((m * n[d.argmin(0)]).sum(1)).mean()) / 2
    assert normal_consistency(a, n, b, m) == pytest.approx(dots, abs=1e-12)


def test_laws() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    n, m = units(rng, 300), units(rng, 200)
    assert chamfer(a, a) == 0 and f_score(a, a, 0.01) == 1
    assert normal_consistency(a, n, a, n) == pytest.approx(1) and normal_consistency(
        a, n, a, -n
    ) == pytest.approx(1)
    assert normal_consistency(a, n, a, -n, signed=True) == pytest.approx(-1)
    assert chamfer(a, b) == pytest.approx(chamfer(b, a), abs=1e-12)
    assert f_score(a, b, 0.3) == pytest.approx(f_score(b, a, 0.3), abs=1e-12)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert chamfer(a @ q + 2, b @ q + 2) == pytest.approx(chamfer(a, b), abs=1e-9)
    assert chamfer(7 * a, 7 * b) == pytest.approx(7 * chamfer(a, b), rel=1e-12)
    assert f_score(7 * a, 7 * b, 7 * 0.3) == f_score(a, b, 0.3)
    assert normal_consistency(a @ q, n @ q, b @ q, m @ q) == pytest.approx(
        normal_consistency(a, n, b, m), abs=1e-9
    )
    assert f_score(a @ q + 2, b @ q + 2, 0.3) == f_score(a, b, 0.3)
    assert normal_consistency(a, n, b, m) == pytest.approx(normal_consistency(b, m, a, n), abs=1e-12)


def test_noise_lowers_the_scores() -> None:
    """Of points on a sphere, whose normals they are: moved off it, and turned."""
    rng = np.random.default_rng(6)
    points = units(rng, 400)
    noise = rng.normal(size=points.shape)
    scores, normals = [], []
    for sigma in (0, 0.02, 0.06, 0.2):
        moved = points + sigma * noise
        scores.append(f_score(moved, points, 0.05))
        turned = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        normals.append(normal_consistency(points, turned, points, points))
    assert scores == sorted(scores, reverse=True) and scores[0] == 1 > scores[1] - 1e-12 > scores[-1]
    assert normals == sorted(normals, reverse=True) and normals[0] == pytest.approx(1) and normals[-1] < 0.99


def test_noise_raises_the_distance_on_average() -> None:
    def mean(sigma: float) -> float:
        rngs = [np.random.default_rng(s) for s in range(20)]
        return float(
            np.mean(
                [chamfer(p + sigma * r.normal(size=p.shape), p) for r in rngs for p in [r.random((99, 3))]]
            )
        )

    values = [mean(s) for s in (0, 0.01, 0.03, 0.1)]
    assert values == sorted(values) and values[0] == 0 < values[1]


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((4, 2)), np.full((2, 3), np.nan), np.zeros(3)])
def test_what_is_no_cloud_is_refused(bad: np.ndarray) -> None:
    for call in (lambda: chamfer(bad, B), lambda: chamfer(A, bad), lambda: f_score(bad, B, 0.1)):
        with pytest.raises(ValueError, match=r"point cloud \[N, 3\]|not finite"):
            call()
    with pytest.raises(ValueError, match="tau"):
        f_score(A, B, 0)
