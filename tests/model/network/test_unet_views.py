"""The view module of OrbitUNet: nothing at the start, blind to the order of views, confined to a frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.model import OrbitUNet, view_cameras

Make = Callable[..., Any]


def cameras(scenes: int, views: int, frames: int) -> torch.Tensor:
    """[scenes, V, F, 12]"""
    c2w = [
        [[orbit_c2w(37.0 * v + 11 * s, 10.0 * v, 2.0)] * frames for v in range(views)] for s in range(scenes)
    ]
    return view_cameras(np.array(c2w))


def loud(unet: OrbitUNet) -> OrbitUNet:
    for place in unet.view_places or ():
        for layer in (place.cam_encoder, place.projector, place.modulation):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return unet


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["eval", "blocks", "attention"])
def test_fresh_module_adds_exactly_nothing(
    small_unet: Make, small_inputs: Make, dtype: torch.dtype, mode: str
) -> None:
    unet = small_unet("image", loud=True, view_sync=True, temporal_dropout=0.0).to(dtype)
    if mode != "eval":
        unet.train().enable_gradient_checkpointing()
        unet.recompute = mode
    given = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in small_inputs("image", batch=4).items()
    }
    out = unet(**given, views=2, view_camera=cameras(2, 2, 3)).sample
    assert torch.equal(out, unet(**given).sample)


def test_only_the_projector_learns_first(small_unet: Make, small_inputs: Make) -> None:
    unet, given = small_unet(view_sync=True), small_inputs(batch=2)
    unet.train().requires_grad_(False)
    unet.view_places.requires_grad_(True)
    unet(**given, views=2, view_camera=cameras(1, 2, 3)).sample.square().mean().backward()
    moving = {n for n, p in unet.view_places.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {n for n, _ in unet.view_places.named_parameters() if "projector" in n}


@torch.no_grad()
@pytest.mark.parametrize("view_index", [False, True])
def test_views_permuted_with_their_cameras(small_unet: Make, small_inputs: Make, view_index: bool) -> None:
    unet = loud(small_unet(view_sync=True, view_index=view_index))
    given, camera, order = small_inputs(batch=3), cameras(1, 3, 3)[0], torch.tensor([2, 0, 1])
    out = unet(**given, views=3, view_camera=camera).sample
    moved = unet(**{k: v[order] for k, v in given.items()}, views=3, view_camera=camera[order]).sample
    difference = (moved - out[order]).abs().max()
    assert (difference > 1e-3) if view_index else (difference < 1e-5)
    assert (out - unet(**given).sample).abs().max() > 1e-2


@torch.no_grad()
def test_scenes_do_not_mix_and_frames_do_not_in_the_module(small_unet: Make, small_inputs: Make) -> None:
    unet, given, camera = loud(small_unet(view_sync=True)), small_inputs(batch=4), cameras(2, 2, 3)
    out = unet(**given, views=2, view_camera=camera).sample
    parts = [
        unet(**{k: v[i : i + 2] for k, v in given.items()}, views=2, view_camera=camera[i // 2]).sample
        for i in (0, 2)
    ]
    torch.testing.assert_close(out, torch.cat(parts), atol=1e-5, rtol=0)
    place = next(unet.view_places.at_work(torch.randn(12, 128), camera.flatten(0, 1), 2))
    hidden = torch.randn(12, 32, 4, 4)
    changed = hidden.clone()
    changed[4] += torch.randn(32, 4, 4)  # scene 0, view 1, frame 1
    difference = ((place(changed) - changed) - (place(hidden) - hidden)).abs().amax((1, 2, 3))
    assert {int(row) for row in (difference > 1e-4).nonzero()} == {1, 4}
    assert float(difference[[0, 2, 3, 5, *range(6, 12)]].max()) < 1e-5


def test_network_without_module_gets_a_fresh_one(
    small_unet: Make, small_inputs: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unet, given = small_unet(), small_inputs(batch=2)
    unet.save_pretrained(tmp_path / "old")
    old = OrbitUNet.from_pretrained(tmp_path / "old").eval()
    assert old.view_places is None
    plain = old(**given).sample
    assert torch.equal(old(**given, views=2, view_camera=cameras(1, 2, 3)).sample, plain)
    assert "no view module" in caplog.text
    loud(old).save_pretrained(tmp_path / "new")
    again = OrbitUNet.from_pretrained(tmp_path / "new").eval()
    seen = {"views": 2, "view_camera": cameras(1, 2, 3)}
    assert torch.equal(again(**given, **seen).sample, old(**given, **seen).sample)
    temporal = old.unet.mid_block.temp_attentions[0].transformer_blocks[0].attn1
    assert any(torch.equal(place.attn.to_q.weight, temporal.to_q.weight) for place in old.view_places)


def test_what_does_not_fit_is_refused(small_unet: Make, small_inputs: Make) -> None:
    unet, given = small_unet(view_sync=True), small_inputs(batch=2)
    with pytest.raises(ValueError, match="views=3 does not divide the batch of 2"):
        unet(**given, views=3, view_camera=cameras(1, 3, 3))
    with pytest.raises(ValueError, match="view_camera must be"):
        unet(**given, views=2, view_camera=cameras(1, 2, 4))


def test_published_size() -> None:
    with torch.device("meta"):
        unet = OrbitUNet(view_sync=True)
    assert len(unet.view_places) == 16
    assert sum(p.numel() for p in unet.view_places.parameters()) == 94_112_960
