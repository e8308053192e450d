"""A small orbit that reconstructs in seconds, and the scene made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def moving_ball(make_clips: Callable[..., Any]) -> dict[str, np.ndarray]:
    """Straight RGBA uint8 [12, 48, 48, 4] by rig: a striped ellipsoid with a ball running around it."""
    clips = make_clips("asset-000", n_frames=12, size=48)
    return {clip.rig: clip.pixels() for clip in clips}


@pytest.fixture(scope="session")
def tiny_settings() -> Any:
    """Settings that take two or three seconds."""
    from orbit4d.recon4d.fitting.settings import PRESETS

    return replace(
        PRESETS["fast"],
        n_gaussians=800,
        coarse_steps=80,
        fine_steps=400,
        resolution=48,
        deformation={"kind": "nodes", "n_nodes": 40, "width": 32},
    )


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Any]) -> Path:
    """One asset, 12 frames of 48x48, three rigs and two orbits."""
    return make_dataset(
        tmp_path_factory.mktemp("orbits") / "dataset", assets=1, n_frames=12, size=48, orbits=2
    )


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_settings: Any) -> Path:
    """The folder of a scene fitted to `tiny_dataset`. Do not write to it."""
    from orbit4d.recon4d import reconstruct

    out = tmp_path_factory.mktemp("scenes") / "scene"
    reconstruct(f"{tiny_dataset}:asset-000:Run", out, settings=tiny_settings)
    return out


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One CPU thread, so that a short fit is as quick beside other work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
