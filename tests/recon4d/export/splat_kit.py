"""Gaussians to write, their largest errors, and splat-transform, an independent reader, where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.recon4d.gaussians import SH_C0, Gaussians

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "splats"
FIXTURES = SHARED if SHARED.is_dir() else None


def some(degree: int, n: int = 700, seed: int = 0) -> Gaussians:
    """Gaussians as fits have them: centres apart from one another, all rotations, strong harmonics."""
    rng = np.random.default_rng(seed + 10 * degree)
    axis = np.linspace(-0.5, 0.5, 14)
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    means = rng.permutation(grid)[:n] + rng.uniform(-0.02, 0.02, (n, 3))

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).float()

    o = rng.uniform(0.006, 0.998, n)
    return Gaussians(
        means=tensor(means), log_scales=tensor(rng.normal(-4, 0.7, (n, 3))),
        quats=tensor(rng.normal(size=(n, 4))),
        logits=tensor(np.log(o / (1 - o))), colors=tensor(rng.uniform(0.02, 0.98, (n, 3))),
        harmonics=tensor(rng.uniform(-0.9, 0.9, (n, (degree + 1) ** 2 - 1, 3))),
    )  # fmt: skip


def errors(found: Gaussians, truth: Gaussians) -> dict[str, float]:
    """Largest errors by kind, after Gaussians are matched by their centres."""
    from scipy.spatial import cKDTree

    order = cKDTree(found.means.double().numpy()).query(truth.means.double().numpy())[1]
    assert len(set(order)) == len(truth) == len(found)
    a = {name: t.double().numpy()[order] for name, t in found.tensors().items()}
    b = {name: t.double().numpy() for name, t in truth.tensors().items()}
    qa, qb = (g["quats"] / np.linalg.norm(g["quats"], axis=1, keepdims=True) for g in (a, b))
    # By the difference, since the angle's cosine knows no small angles.
    apart = np.minimum(np.linalg.norm(qa - qb, axis=1), np.linalg.norm(qa + qb, axis=1))
    k = min(a["harmonics"].shape[1], b["harmonics"].shape[1])
    return {
        "pos": np.abs(a["means"] - b["means"]).max(),
        "rot_deg": np.degrees(4 * np.arcsin(np.clip(apart / 2, 0, 1))).max(),
        "log_scale": np.abs(a["log_scales"] - b["log_scales"]).max(),
        "opacity": np.abs(1 / (1 + np.exp(-a["logits"])) - 1 / (1 + np.exp(-b["logits"]))).max(),
        "color": np.abs(a["colors"] - b["colors"]).max(),
        "sh_max": np.abs(a["harmonics"][:, :k] - b["harmonics"][:, :k]).max(initial=0),
        "K": found.harmonics.shape[1] + 1,
    }


def truth_of(folder: Path) -> Gaussians:
    """The Gaussians of a fixture's truth.npz."""
    held = np.load(folder / "truth.npz")
    o = held["opacities"].astype(np.float64)
    arrays = {
        "means": held["means"], "log_scales": np.log(held["scales"]), "quats": held["quats"],
        "logits": np.log(o / (1 - o)), "colors": held["sh"][:, 0] * SH_C0 + 0.5,
        "harmonics": held["sh"][:, 1:],
    }  # fmt: skip
    return Gaussians(**{name: torch.from_numpy(np.asarray(a, np.float32)) for name, a in arrays.items()})


def splat_transform(source: Path, target: Path) -> Path:
    """PlayCanvas' converter; skips where it is missing. ORBIT4D_NODE_MODULES may name its folder."""
    held = os.environ.get("ORBIT4D_NODE_MODULES")
    tool = shutil.which("splat-transform", path=f"{held}/.bin" if held else None)
    if tool is None:
        pytest.skip("splat-transform is not here: npm install @playcanvas/splat-transform")
    done = subprocess.run([tool, "-w", "-q", source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and target.is_file(), done.stderr
    return target
