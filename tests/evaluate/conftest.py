"""What tests of the evaluation share: assets, clips in motion, a small trained run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image


def _of_room(room: str) -> Any:
    """The fixtures of another room's tests: its assets and runs are evaluated here."""
    path = Path(__file__).parent.parent / room / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"orbit4d_tests_{room}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_render, _model = _of_room("render"), _of_room("model")
toy, part, gltf = _render.toy, _render.part, _render.gltf
micro_config = _model.micro_config


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No truth of another day, no weights of another folder."""
    monkeypatch.setenv("ORBIT4D_TRUTH", str(tmp_path_factory.getbasetemp() / "truth"))


@pytest.fixture
def moving() -> torch.Tensor:
    """A soft disc that walks through the picture, [12, 3, 48, 48]."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    frames = [torch.sigmoid(9 - ((x - 10 - 2.4 * i) ** 2 + (y - 24) ** 2).sqrt()) for i in range(12)]
    disc = torch.stack(frames).unsqueeze(1)
    return 1 - disc * torch.tensor([0.2, 0.6, 0.9]).view(1, 3, 1, 1)


@pytest.fixture(scope="session")
def write() -> Callable[[Path, torch.Tensor], str]:
    """`write(folder, video [F, 3, H, W])`: a folder of PNG frames, its name returned."""

    def put(folder: Path, video: torch.Tensor) -> str:
        folder.mkdir(parents=True)
        for i, frame in enumerate((video * 255).round().byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(frame).save(folder / f"{i:03d}.png")
        return str(folder)

    return put


@pytest.fixture(scope="module")
def micro_run(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path, micro_config: Any) -> Path:
    """A run of seven steps: what it generates is noise, and all the rest is real."""
    from orbit4d.model.training.train import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("micro") / "run"
    train(micro_config("optim.lr=0.01"), str(synthetic_dataset), folder)
    torch.set_num_threads(threads)
    return folder
