"""Linear blend skinning of Gaussians: the kernels, their slow twin, and the reference of another hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.rigs.harmonics_turn import turned_harmonics
from orbit4d.recon4d.deformation.rigs.linear_skin import drawn, skin, skin_reference, spread
from orbit4d.recon4d.raster.reference import spherical_harmonics_basis


@pytest.fixture(scope="module")
def wolf(shared: Path) -> dict[str, Any]:
    with np.load(shared / "fixtures" / "c3v" / "skin.npz") as stored:
        return {name: stored[name] for name in stored.files}


def some(n: int = 200, joints: int = 7, seed: int = 0, stretch: float = 0.3) -> tuple[Any, ...]:
    """means, covs, maps, index, weights; maps near rotations, one magnified by 75."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, 3, 3))
    turns = spread(_symmetric(rng, joints))[1]
    maps = np.tile(np.eye(4), (joints, 1, 1))
    maps[:, :3, :3] = turns + stretch * rng.normal(size=(joints, 3, 3)) * 0.3
    maps[0, :3, :3] *= 75.0
    maps[:, :3, 3] = rng.normal(size=(joints, 3))
    weights = rng.random((n, 4))
    weights /= weights.sum(1, keepdims=True)
    index = rng.integers(0, joints, (n, 4))
    return rng.normal(size=(n, 3)), root @ root.transpose(0, 2, 1), maps, index, weights


def _symmetric(rng: np.random.Generator, n: int) -> Any:
    root = rng.normal(size=(n, 3, 3))
    return root + root.transpose(0, 2, 1)


def test_fixture_means_covariances_rotations(wolf: dict[str, Any]) -> None:
    for t in range(len(wolf["seconds"])):
        maps = wolf["joint_world"][t] @ wolf["inverse_bind"]
        for kind, near, turned in ((np.float64, 1e-9, 1e-7), (np.float32, 1e-5, 1e-4)):
            given = [wolf[name].astype(kind) for name in ("means0", "covs0")]
            means, covs, turns = skin(*given, maps.astype(kind), wolf["index"], wolf["weights"].astype(kind))
            assert means.dtype == kind
            assert np.abs(means - wolf["means"][t]).max() <= near * np.abs(wolf["means"][t]).max()
            assert np.abs(covs - wolf["covs"][t]).max() <= near * np.abs(wolf["covs"][t]).max()
            assert np.abs(turns - wolf["rotations"][t]).max() <= turned


def test_fixture_joints_and_posed_to_posed(wolf: dict[str, Any]) -> None:
    for t in range(len(wolf["seconds"])):
        world = wolf["joint_local"][t].copy()
        for j, parent in enumerate(wolf["joint_parent"]):
            if parent >= 0:
                world[j] = world[parent] @ wolf["joint_local"][t][j]
        assert np.abs(world - wolf["joint_world"][t]).max() <= 1e-9 * np.abs(world).max()
        # One map a Gaussian: it follows nothing else.
        own, ones = np.arange(len(wolf["means0"]))[:, None], np.ones((len(wolf["means0"]), 1))
        moved = skin(wolf["means"][1], wolf["covs"][1], wolf["relative"][t], own, ones)
        assert np.abs(moved[0] - wolf["means"][t]).max() <= 1e-9 * np.abs(wolf["means"][t]).max()
        assert np.abs(moved[1] - wolf["covs"][t]).max() <= 1e-9 * np.abs(wolf["covs"][t]).max()


def test_fixture_colours_turn_with_the_surface(wolf: dict[str, Any]) -> None:
    basis = spherical_harmonics_basis(torch.tensor(wolf["directions"]), 3)[:, 1:]
    for t in range(len(wolf["seconds"])):
        turns = torch.tensor(wolf["rotations"][t][:64])
        turned = turned_harmonics(torch.tensor(wolf["harmonics0"]), turns)
        seen = torch.einsum("dk,nkc->ndc", basis, turned)
        assert np.abs(seen.numpy() - wolf["sh_colors"][t]).max() <= 1e-7


def test_what_is_drawn_has_the_covariance(seed: int) -> None:
    means, covs, maps, index, weights = some(seed=seed)
    frames = spread(covs)[1]
    wanted = skin_reference(means, covs, maps, index, weights)
    moved, quats, logs = drawn(means, covs, maps, index, weights, frames, 1e-12)
    turns = rotations.to_matrix(torch.from_numpy(quats).double()).numpy()
    built = (turns * np.exp(2.0 * logs.astype(np.float64))[:, None]) @ turns.transpose(0, 2, 1)
    size = np.abs(wanted[1]).max(axis=(1, 2))
    assert (np.abs(built - wanted[1]).max(axis=(1, 2)) <= 3e-6 * size).all()  # float32 quaternions
    assert np.abs(moved - wanted[0]).max() <= 1e-6 * np.abs(wanted[0]).max()
    # The frames only shorten the way.
    other = drawn(means, covs, maps, index, weights, np.tile(np.eye(3), (len(means), 1, 1)), 1e-12)[2]
    assert np.abs(np.sort(other, 1) - np.sort(logs, 1)).max() < 1e-4


def test_kernel_and_twin_agree_and_torch_comes_back(seed: int) -> None:
    given = some(seed=seed)
    for ours, theirs in zip(skin(*given), skin_reference(*given), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()
    tensors = skin(*(torch.from_numpy(np.ascontiguousarray(a)) for a in given))
    assert all(isinstance(part, torch.Tensor) and part.dtype == torch.float64 for part in tensors)


def test_rigid_maps_keep_shapes() -> None:
    means, covs, maps, index, weights = some(joints=1, stretch=0.0)
    maps[0, :3, :3] /= 75.0
    moved, covered, turns = skin(means, covs, maps, index * 0, weights)
    assert np.allclose(np.linalg.eigvalsh(covered), np.linalg.eigvalsh(covs), rtol=1e-9)
    assert np.allclose(turns, maps[0, :3, :3], atol=1e-12)
    assert np.allclose(np.linalg.norm(moved[0] - moved[1]), np.linalg.norm(means[0] - means[1]))


@pytest.mark.parametrize("fault", ["joint", "weights", "covs"])
def test_what_does_not_fit_is_refused(fault: str) -> None:
    means, covs, maps, index, weights = some()
    if fault == "joint":
        index[3, 1] = len(maps)
    elif fault == "weights":
        weights = weights[:, :3]
    else:
        covs = covs[:-1]
    with pytest.raises(ValueError, match="skin"):
        skin(means, covs, maps, index, weights)
