"""ActionBench: worked examples, laws, and the fit that comes before the comparison."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.evaluate import actionbench
from orbit4d.evaluate.geometry.alignment import align_clouds, cube_rotations


def shape(n: int) -> np.ndarray:
    """A bending ellipsoid of n points in 4 frames: [4, n, 3]."""
    h = np.arange(n) + 0.5
    z, t = 1 - 2 * h / n, np.pi * (1 + np.sqrt(5)) * h
    r = np.sqrt(1 - z * z)
    x, y, z = r * np.cos(t), 0.6 * r * np.sin(t), 0.35 * z
    y, z = y + 0.3 * x * x, z + 0.25 * np.where(x > 0, x, 0)
    return np.stack(
        [np.stack([x + 0.1 * u, y + 0.4 * u * x * x, z * (1 + 0.3 * u)], 1) for u in np.linspace(0, 1, 4)]
    )


def test_by_hand() -> None:
    truth = np.array([[(0, 0, 0), (2, 0, 0), (0, 1, 0.0)], [(2, 0, 0), (0, 0, 0), (0, 1, 0)]])
    predicted = np.repeat(np.array([[(0, 0, 0.1), (2, 0, 0), (0, 1.2, 0), (0, 0, -0.3)]]), 2, 0)
    result = actionbench(predicted, truth)
    assert result == pytest.approx({"cd3d": 0.25, "cd4d": 0.25, "cdm": 1.603526}, abs=1e-6)
    assert actionbench(predicted, np.concatenate([truth, truth], -1)) == result


@pytest.mark.parametrize(
    ("change", "cd", "cdm"),
    [
        (lambda p: p, 0.107432, 0.108246),
        (lambda p: np.repeat(p[:1], 4, 0), 0.150914, 0.238271),
        (lambda p: np.stack([np.roll(f, 37 * k, 0) for k, f in enumerate(p)]), 0.107432, 1.508433),
    ],
)
def test_against_the_published_distances(change, cd: float, cdm: float) -> None:
    """Figures of the published functions on the same points (actionmesh, evaluate_dataset.py)."""
    expected = {"cd3d": cd, "cd4d": cd, "cdm": cdm}
    assert actionbench(change(shape(300)), shape(400)) == pytest.approx(expected, abs=1e-6)


def test_the_published_fit_undoes_a_similarity() -> None:
    """0.098, 0.100 and 0.102 with every point of the published fit; an optimiser's result: 0.003 apart."""
    away = 0.8 * shape(300) @ Rotation.from_euler("z", 110, degrees=True).as_matrix().T + [0.1, -0.05, 0.2]
    assert actionbench(away, shape(400))["cd3d"] == pytest.approx(0.449242, abs=1e-6)
    fitted = actionbench(away, shape(400), align="published")
    assert fitted == pytest.approx({"cd3d": 0.0980, "cd4d": 0.0999, "cdm": 0.1018}, abs=0.003)


def test_a_mesh_is_sampled() -> None:
    """A cube against points of itself: what is left is the distance of two samples, equal in all frames."""
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    vertices = np.stack([np.asarray(box.vertices) + np.array([0.1 * k, 0, 0]) for k in range(2)])
    points, _ = trimesh.sample.sample_surface(box, 2000, seed=1)
    truth = np.stack([points, points + np.array([0.1, 0, 0])])
    result = actionbench((vertices, np.asarray(box.faces)), truth)
    assert 0.02 < result["cd3d"] < 0.05 and result["cdm"] == pytest.approx(result["cd4d"], abs=0.003)


def test_identity_and_one_point() -> None:
    p = shape(50)
    for align in (None, "published", "similarity"):
        assert actionbench(p, p, align=align) == {"cd3d": 0, "cd4d": 0, "cdm": 0}
    one = actionbench(np.zeros((1, 1, 3)), np.ones((1, 1, 3)))
    assert one == pytest.approx(dict.fromkeys(("cd3d", "cd4d", "cdm"), 2 * np.sqrt(3)))
    fit = align_clouds(p[0], p[0] @ cube_rotations()[5], per_axis=False)
    assert fit.loss < 1e-12 and np.allclose(fit(p[0]), p[0] @ cube_rotations()[5])
    assert len({r.tobytes() for r in cube_rotations() + 0.0}) == 24


def test_bad_input_is_one_line() -> None:
    p = shape(10)
    for bad, words in (
        (p[:2], "4"),
        (p * np.nan, "not finite"),
        (p[:, :0], "needs points"),
        (p[0], "needs points"),
    ):
        with pytest.raises(ValueError, match=words):
            actionbench(bad, p)
    with pytest.raises(ValueError, match="align"):
        actionbench(p, p, align="best")  # type: ignore[arg-type]


def separately(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every distance of [N, 3] and [M, 3], without a tree: [N, M]."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def test_equal_to_brute_force() -> None:
    """Random clouds, also with fewer queries than points: those that the published permutation puts first."""
    rng = np.random.default_rng(7)
    p, q = rng.normal(size=(3, 120, 3)), rng.normal(size=(3, 150, 3))
    d = [separately(a, b) for a, b in zip(p, q, strict=True)]
    i, j = d[0].argmin(0), d[0].argmin(1)
    forth = np.mean([one[i, np.arange(150)].mean() for one in d])
    back = np.mean([one[np.arange(120), j].mean() for one in d])
    for queries in (None, 50):
        rows, columns = (np.random.RandomState(s).permutation(n)[:queries] for s, n in ((44, 120), (45, 150)))
        cd = np.mean([one.min(1)[rows].mean() + one.min(0)[columns].mean() for one in d])
        expected = {"cd3d": cd, "cd4d": cd, "cdm": forth + back}
        assert actionbench(p, q, queries=queries) == pytest.approx(expected, abs=1e-12)


def test_laws_of_the_three_distances() -> None:
    """Symmetric, blind to the order of the points and to a motion of both, and worse under growing noise."""
    rng = np.random.default_rng(8)
    p, q = shape(90), shape(120)
    plain = actionbench(p, q)
    assert actionbench(q, p) == pytest.approx(plain, abs=1e-12)
    assert actionbench(p[:, rng.permutation(90)], q) == pytest.approx(plain, abs=1e-12)
    turn = Rotation.random(random_state=9).as_matrix()
    assert actionbench(p @ turn + 3, q @ turn + 3) == pytest.approx(plain, abs=1e-9)
    assert actionbench(5 * p, 5 * q) == pytest.approx({name: 5 * cd for name, cd in plain.items()}, abs=1e-9)
    noise = rng.normal(size=p.shape)
    series = [actionbench(p + sigma * noise, p) for sigma in (0, 0.01, 0.05, 0.2)]
    for name in plain:
        values = [one[name] for one in series]
        assert values == sorted(values) and values[0] == 0 < values[1]
