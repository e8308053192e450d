"""A small figure with two bones whose truth is known, and runs on it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from orbit4d.compose.animate.request import Request

Make = Callable[..., Request]


def _of_room(room: str) -> Any:
    """The fixtures of another room's tests: its assets and runs are used here."""
    path = Path(__file__).parents[2] / room / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"orbit4d_tests_{room}_for_animate", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


micro_config = _of_room("model").micro_config
toy = _of_room("render").toy


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path, micro_config: Any) -> Path:
    """A run of seven steps: what it says is noise, and all the rest is real. 4 frames of 16 pixels."""
    import torch

    from orbit4d.model.training.train import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("animate") / "run"
    train(micro_config("optim.lr=0.01"), str(synthetic_dataset), folder)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with alpha: a red disc."""
    path = tmp_path_factory.mktemp("photo") / "disc.png"
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((24, 24, 72, 72), fill=(200, 60, 40, 255))
    image.save(path)
    return str(path)


def _figure() -> dict[str, Any]:
    """A body with a red front, and an arm to its left (+X) that is raised: 420 Gaussians."""
    rng = np.random.default_rng(3)
    turns, heights = rng.uniform(0, 2 * np.pi, 300), rng.uniform(-0.3, 0.25, 300)
    body = np.stack([0.13 * np.sin(turns), -0.1 * np.cos(turns), heights], 1)
    around, along = rng.uniform(0, 2 * np.pi, 120), rng.uniform(0.14, 0.42, 120)
    arm = np.stack([along, 0.05 * np.sin(around), 0.15 + 0.05 * np.cos(around)], 1)
    colors = np.where(body[:, 1:2] < 0, [0.8, 0.2, 0.2], [0.2, 0.3, 0.7])
    return {
        "means": np.concatenate([body, arm]).astype(np.float32),
        "colors": np.concatenate([colors, np.tile([0.2, 0.7, 0.3], (120, 1))]).astype(np.float32),
        "log_scales": np.full((420, 3), np.log(0.02), np.float32),
        "logits": np.float32(3.0),
        "bone": np.repeat([0, 1], [300, 120]),
        "pivots": np.array([[0, 0, 0], [0.14, 0, 0.15]], np.float32),
        "axis": np.array([[0, 0, 1], [0, 1, 0]], np.float32),
        "parent": np.array([-1, 0]),
        "amplitude_deg": np.array([10, 0], np.float32),
        "frequency": np.ones(2, np.float32),
        "linear_deg": np.array([0, -50], np.float32),
    }


@pytest.fixture(scope="session")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file."""
    path = tmp_path_factory.mktemp("figure") / "figure.npz"
    np.savez(path, **_figure())
    return path


@pytest.fixture(scope="session")
def asked(figure: Path) -> Make:
    """A small request on it: `asked(out, **changes)`."""

    def make(out: Path, **changes: Any) -> Request:
        known = f"analytic:{figure}"
        values: dict[str, Any] = {
            "preset": "draft",
            "priors": {"3d": known, "video": f"{known}?bias=tint,blur", "tile": known},
            "steps": "24,8,4",
            "resolution": 32,
            "frames": 4,
            "threads": 1,
            "guidance_every": 4,
        }
        return Request(out, **{**values, **changes})

    return make
