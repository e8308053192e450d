"""Which device is taken, what is refused, and that a scene does not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import devices, load_scene
from orbit4d.recon4d.cli import recon4d
from orbit4d.recon4d.devices import choose_device, describe_device
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.fitting.state import load_checkpoint, new_fit, save_checkpoint
from orbit4d.recon4d.gaussians import from_points


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, gsplat: bool) -> None:
    """A machine with so many GPUs, with or without gsplat."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(devices, "find_spec", lambda name: object() if gsplat else None)


def test_auto_takes_a_gpu_that_can_draw_and_says_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2, True)
    assert choose_device() == torch.device("cuda:0") == choose_device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    assert describe_device(torch.device("cuda:1")) == "device cuda:1 (Some GPU)"
    machine(monkeypatch, 2, False)
    assert choose_device() == torch.device("cpu")
    assert "gsplat" in describe_device(torch.device("cpu"), 2)
    machine(monkeypatch, 0, True)
    assert describe_device(choose_device(), 2) == "device cpu, 2 threads"
    assert describe_device(choose_device(), 1) == "device cpu, 1 thread"


@pytest.mark.parametrize(
    ("wanted", "gpus", "gsplat", "said"),
    [
        ("gpu", 1, True, "choose auto, cpu"),
        ("cuda:x", 1, True, "choose auto, cpu"),
        ("cuda", 0, True, "no CUDA GPU"),
        ("cuda:0", 1, False, "gsplat"),
        ("cuda:2", 2, True, "there are 2 GPUs"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, gpus: int, gsplat: bool, said: str
) -> None:
    machine(monkeypatch, gpus, gsplat)
    with pytest.raises(InputError, match=said) as refused:
        choose_device(wanted)
    assert "\n" not in str(refused.value) and f"--device {wanted}" in str(refused.value)
    result = CliRunner().invoke(recon4d, ["x.mp4", "--device", wanted, "--out", str(tmp_path / "scene")])
    assert isinstance(result.exception, InputError) and not (tmp_path / "scene").exists()


def test_checkpoints_hold_tensors_of_the_cpu_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fit = new_fit(from_points(rng.normal(size=(50, 3)), rng.uniform(size=(50, 3))), PRESETS["fast"], 0)
    fit.field.bind(fit.gaussians.means)
    save_checkpoint(fit, tmp_path / "checkpoint.pt")
    held: list[torch.Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            held.append(value)
        elif isinstance(value, dict):
            for part in value.values():
                collect(part)

    collect(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert len(held) > 10 and all(tensor.device.type == "cpu" for tensor in held)
    again = load_checkpoint(tmp_path / "checkpoint.pt", PRESETS["fast"])
    assert torch.equal(again.adam.values, fit.adam.values)
    assert again.gaussians.means.data_ptr() == again.adam.part(again.adam.values, "means").data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_scene_fitted_on_one_device_is_drawn_alike_on_the_other(
    tiny_dataset: Path, tiny_settings: Any, tmp_path: Path
) -> None:
    pytest.importorskip("gsplat")
    from orbit4d.recon4d import reconstruct

    for name in ("cpu", "cuda"):
        reconstruct(f"{tiny_dataset}:asset-000:Run", tmp_path / name, settings=tiny_settings, device=name)
        here, there = (load_scene(tmp_path / name, device) for device in ("cpu", "cuda"))
        for camera, time in list(zip(here.cameras, here.time))[::4]:
            np.testing.assert_allclose(here.render(camera, time), there.render(camera, time), atol=2e-4)
    scores = [load_scene(tmp_path / name).metrics["psnr_train"] for name in ("cpu", "cuda")]
    # 480 steps at 48 pixels: seeds differ by as much.
    assert scores[1] > scores[0] - 0.5
