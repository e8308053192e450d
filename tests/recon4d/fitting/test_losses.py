"""The terms of the loss: zero for the truth, blind to hidden colours, weighed by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from orbit4d.recon4d.fitting import losses
from orbit4d.recon4d.fitting.losses import depth_smoothness, image_terms, weigh
from orbit4d.recon4d.fitting.reconstruction import affordable
from orbit4d.recon4d.fitting.settings import PRESETS, LossWeights, ReconstructionSettings


def picture(seed: int = 0) -> torch.Tensor:
    """Premultiplied RGBA [32, 32, 4]."""
    rgba = torch.rand(32, 32, 4, generator=torch.Generator().manual_seed(seed))
    return torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1)


@pytest.mark.parametrize("size", [32, 8])
def test_the_truth_costs_nothing_before_any_background(size: int) -> None:
    truth = picture()[:size, :size]
    for background in (torch.zeros(3), torch.ones(3), torch.rand(3)):
        for name, value in image_terms(truth[..., :3], truth[..., 3:], truth, background).items():
            assert value.item() == pytest.approx(0, abs=1e-6), name


def test_a_random_background_tells_a_hole_from_paint_of_its_colour() -> None:
    truth = torch.zeros(32, 32, 4)
    painted = torch.ones(32, 32, 3), torch.ones(32, 32, 1)
    assert image_terms(*painted, truth, torch.ones(3))["l1"] == 0
    assert image_terms(*painted, truth, torch.tensor([0.2, 0.5, 0.9]))["l1"] > 0.3


def test_terms_are_weighed_by_their_names() -> None:
    weights = LossWeights(l1=2.0, ssim=0.0, rigidity=3.0)
    one = torch.tensor(1.0)
    assert weigh({"l1": one, "ssim": one, "rigidity": one}, weights) == 5.0
    with pytest.raises(ValueError, match="every term"):
        weigh({"ssim": one}, weights)


def test_depth_smoothness_is_blind_to_the_outline_and_sees_steps_inside() -> None:
    depth, alpha = torch.ones(8, 8, 1), torch.zeros(8, 8, 1)
    alpha[2:6, 2:6] = 1.0
    depth[alpha == 0] = 50.0
    flat = depth_smoothness(depth, alpha)
    assert flat < 3e-3, "Charbonnier's floor"
    depth[2:4, 2:6] = 2.0
    assert depth_smoothness(depth, alpha) > flat + 0.1


class Distance(torch.nn.Module):
    """Stands in for LPIPS, whose weights a test machine may lack."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape == b.shape == (1, 3, 32, 32)
        return (a - b).square().mean((1, 2, 3))


def test_lpips_compares_the_pictures_on_their_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.LPIPS, "from_weights", lambda net: Distance())
    perceptual = losses.Perceptual()
    truth, background = picture(), torch.tensor([0.2, 0.5, 0.9])
    assert perceptual(truth[..., :3], truth[..., 3:], truth, background) == 0
    alpha = truth[..., 3:].clone().requires_grad_()
    perceptual(truth[..., :3] * 0.5, alpha * 0.5, truth, background).backward()
    assert alpha.grad is not None and alpha.grad.abs().sum() > 0


def test_lpips_is_left_out_and_said_so_where_its_weights_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBIT4D_WEIGHTS", str(tmp_path))
    wanted = PRESETS["best"]
    assert wanted.weights.lpips > 0
    notes: list[str] = []
    assert affordable(wanted, notes).weights.lpips == 0
    assert len(notes) == 1 and "lpips-alexnet.ckpt" in notes[0]
    assert affordable(PRESETS["default"], notes) is PRESETS["default"] and len(notes) == 1


def test_settings_survive_json_and_every_penalty_has_a_weight() -> None:
    import json

    for settings in PRESETS.values():
        assert ReconstructionSettings.from_config(json.loads(json.dumps(settings.as_config()))) == settings
    names = {field.name for field in fields(LossWeights)}
    assert {"l1", "ssim", "alpha", "rigidity", "smoothness", "plane_tv", "time_smoothness"} <= names
