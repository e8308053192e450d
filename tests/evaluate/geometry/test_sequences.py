"""Motion-80: identity, what its fit undoes, and where the publication's two faults matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.evaluate import motion80
from orbit4d.evaluate.geometry.sequences import icp, normalised


@pytest.fixture(scope="module")
def bending() -> tuple[np.ndarray, np.ndarray]:
    """A lopsided ellipsoid that bends, 3 frames: vertices and faces."""
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=3)
    v = np.asarray(sphere.vertices) * [1.0, 0.6, 0.3]
    v = v + np.stack([0 * v[:, 0], 0.3 * v[:, 0] ** 2, 0.2 * np.abs(v[:, 0])], 1)
    return np.stack([v + np.array([0, 0, u]) * v[:, :1] ** 2 for u in (0.0, 0.2, 0.4)]), np.asarray(
        sphere.faces
    )


def test_a_sequence_moved_as_a_whole_is_the_same(bending: tuple[np.ndarray, np.ndarray]) -> None:
    """Shift and scale are normalised away, a small turn is the ICP's: the distance of samples is left."""
    vertices, faces = bending
    floor = motion80((vertices, faces), (vertices, faces), align=None)
    turn = Rotation.from_euler("xyz", [3, -4, 5], degrees=True).as_matrix()
    moved = 3 * vertices @ turn.T + [5, 1, 2]
    assert motion80((moved, faces), (vertices, faces), align=None)["cd"] > 1.5 * floor["cd"]
    fitted = motion80((moved, faces), (vertices, faces))
    # The turned box is not the box turned: up to 3 % of scale are left, which a rigid fit cannot undo.
    assert fitted["cd"] < 1.4 * floor["cd"] and fitted["f"] > 0.9
    assert floor["f"] > 0.99


def test_no_motion_is_seen(bending: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = bending
    still = np.repeat(vertices[:1], 3, 0)
    moving, frozen = (motion80((v, faces), (vertices, faces)) for v in (vertices, still))
    assert frozen["cd"] > 2 * moving["cd"] and frozen["f"] < moving["f"] - 0.1


def test_icp_finds_a_rigid_motion_and_the_published_order_does_not() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(400, 3)) * [2, 1, 0.5]
    turn = Rotation.from_euler("xyz", [10, -12, 8], degrees=True).as_matrix()
    rotation, shift = icp(cloud, cloud @ turn.T + [0.1, 0, 0.2])
    assert np.allclose(rotation, turn, atol=1e-9) and np.allclose(shift, [0.1, 0, 0.2], atol=1e-9)
    wrong, _ = icp(cloud, cloud @ turn.T + [0.1, 0, 0.2], published=True)
    assert 1e-4 < np.abs(wrong - turn).max() < 0.2


def test_bad_input(bending: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = bending
    with pytest.raises(ValueError, match="no extent"):
        normalised(np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="2 frames and truth 3"):
        motion80((vertices[:2], faces), (vertices, faces))
    with pytest.raises(ValueError, match="align"):
        motion80((vertices, faces), (vertices, faces), align="best")  # type: ignore[arg-type]


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orbit4d.evaluate.geometry.sequences.SAMPLES", 300)


@pytest.mark.usefixtures("few_samples")
def test_equal_to_trimeshs_samples_and_brute_force(bending: tuple[np.ndarray, np.ndarray]) -> None:
    """Random surfaces: the box of frame 0, the samples and every distance of them, all made here."""
    import trimesh

    vertices, faces = bending
    rng = np.random.default_rng(4)
    moved = [vertices + 0.03 * rng.normal(size=vertices.shape), 2 * vertices + rng.normal(size=3)]
    cd, f = [], []
    for k in range(3):
        clouds = []
        for v, seed in zip(moved, (2 * k + 1, 2 * k + 2), strict=True):
            box = trimesh.Trimesh(v[0], faces, process=False).bounds
            mesh = trimesh.Trimesh((v[k] - box.mean(0)) * 2 / np.ptp(box, axis=0).max(), faces, process=False)
            clouds.append(trimesh.sample.sample_surface(mesh, 300, seed=seed)[0])
        d = np.linalg.norm(clouds[0][:, None] - clouds[1][None], axis=-1)
        cd.append(d.min(0).mean() + d.min(1).mean())
        precision, recall = (d.min(1) < 0.02).mean(), (d.min(0) < 0.02).mean()
        f.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    result = motion80((moved[0], faces), (moved[1], faces), align=None)
    assert result == pytest.approx({"cd": np.mean(cd), "f": np.mean(f)}, abs=1e-9)


@pytest.mark.usefixtures("few_samples")
def test_noise_is_seen(bending: tuple[np.ndarray, np.ndarray]) -> None:
    vertices, faces = bending
    noise = np.random.default_rng(5).normal(size=vertices.shape)
    series = [motion80((vertices + s * noise, faces), bending, align=None)["cd"] for s in (0, 0.05, 0.1, 0.3)]
    assert series == sorted(series)
