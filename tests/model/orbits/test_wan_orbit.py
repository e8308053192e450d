"""WanOrbit: asked as an OrbitUNet is, it is the Wan that it grew from until its parts are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.model import TrainConfig, override, preset
from orbit4d.model.diffusion.flow import FlowMatchScheduler, flow_levels, flow_noised, flow_target
from orbit4d.model.diffusion.losses import (
    add_noise,
    clean_estimate,
    convert_prediction,
    prediction_target,
    signal_and_noise,
)
from orbit4d.model.network.cameras import own_cameras, shown_frames, videomv_cameras
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.orbits.build import build_orbit
from orbit4d.model.orbits.network import WanOrbit, orbit_numbers, video_condition
from orbit4d.model.training.memory import report

MICRO: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 24, "freq_dim": 16,
    "text_dim": 32,
}  # fmt: skip


def micro(**more: Any) -> WanOrbit:
    torch.manual_seed(0)
    return WanOrbit(**MICRO, orbit_camera=True, motion=True, condition=True, variant="image", **more).eval()


def asked(frames: int = 9) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 16, 3, 4, 4, generator=generator)
    return {
        "sample": torch.randn(2, 16, 3, 4, 4, generator=generator),
        "timestep": torch.tensor([300.0, 900.0]),
        "encoder_hidden_states": torch.randn(2, 5, 32, generator=generator),
        "camera": videomv_cameras(orbit(frames))[None].expand(2, -1, -1),
        "motion": torch.tensor([0.01, float("nan")]),
        "image_latents": video_condition(latents, torch.tensor([True, False])),
    }


def test_all_parts_add_nothing_at_first_and_each_can_learn() -> None:
    net, inputs = micro(), asked()
    plain = OrbitWan(**MICRO).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k in plain.state_dict()})
    first = net(**inputs).sample
    bare = plain(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample
    assert torch.equal(first, bare)
    for part in (net.orbit_cameras[1], net.motion_embedding.mlp[2], net.condition_embedding):
        torch.nn.init.normal_(part.bias, std=0.3)
        torch.nn.init.normal_(part.weight, std=0.3)
        moved = net(**inputs).sample
        assert (moved - first).abs().max() > 1e-3
        first = moved
    # A row that is told no motion is the row without motion.
    told, untold = net(**inputs).sample, net(**(inputs | {"motion": None})).sample
    assert torch.equal(told[1], untold[1])
    assert not torch.equal(told[0], untold[0])


def test_cameras_are_those_of_the_latents_whatever_the_world() -> None:
    c2w = np.stack([camera.c2w for camera in orbit(9, azimuth0_deg=20, elevation_deg=15)])
    found = orbit_numbers(videomv_cameras(c2w)[None], 3)
    assert torch.allclose(found[0], own_cameras(c2w[::4]), atol=1e-6)
    assert torch.allclose(found[0, 0], torch.eye(3, 4).flatten(), atol=1e-6)
    assert orbit_numbers(videomv_cameras(c2w)[None], 9).shape == (1, 9, 12)
    for frames in (2, 4):
        if (9 - 1) % (frames - 1):
            with pytest.raises(ValueError, match="do not fit"):
                orbit_numbers(videomv_cameras(c2w)[None], frames)
    with pytest.raises(ValueError, match="do not fit"):
        orbit_numbers(videomv_cameras(c2w)[None], 17)


def test_condition_says_what_is_known() -> None:
    latents = torch.randn(3, 16, 4, 2, 2)
    whole, given = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    found = video_condition(latents, whole, given)
    assert found.shape == (3, 20, 4, 2, 2)
    assert found[0, :4].eq(1).all()
    assert found[1, :4, 0].eq(1).all() and found[1, :4, 1:].eq(0).all()
    assert torch.equal(found[:2, 4:], latents[:2])
    assert not found[2].any()


def test_flow_matching_through_the_same_functions_as_diffusion() -> None:
    scheduler: Any = FlowMatchScheduler(shift=5.0)
    scheduler.set_timesteps(7)
    assert np.allclose(scheduler.sigmas.numpy(), flow_levels(7), atol=2e-7)
    u = torch.tensor([0.0, 0.5, 0.999])
    t, weight = scheduler.drawn(u)
    assert t.tolist() == sorted(t.tolist())
    assert t[2] == 1000 and weight[2] == 0 and weight[1] > 0
    x0, noise = torch.randn(2, 3, 16, 2, 2, 2)
    noisy, sigma = add_noise(scheduler, x0, noise, t), t / 1000
    assert torch.allclose(noisy, flow_noised(x0, noise, sigma), atol=1e-6)
    target = prediction_target(scheduler, x0, noise, t)
    assert torch.equal(target, flow_target(x0, noise))
    # The target is the velocity whose clean estimate is x0 and whose noise is the noise: one step is exact.
    assert torch.allclose(clean_estimate(scheduler, target, noisy, t), x0, atol=1e-5)
    assert torch.allclose(convert_prediction(scheduler, target, noisy, t, "epsilon"), noise, atol=1e-5)
    signal, level = signal_and_noise(scheduler, t, 1)
    assert torch.allclose(signal + level, torch.ones(3))


def test_an_orbit_is_closed_where_the_autoencoder_asks_for_it() -> None:
    assert [shown_frames(n, 4) for n in (24, 25, 48, 49, 4)] == [25, 25, 49, 49, 5]
    assert shown_frames(24, 1) == 24
    with pytest.raises(InputError, match=r"data.frames=26: .* set 24"):
        shown_frames(26, 4)


def grown(place: Path, *sets: str) -> TrainConfig:
    return override(preset("wan-orbit"), [f"model.init={place}", *sets])


def test_grows_from_a_text_to_video_network(tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = OrbitWan(**MICRO)
    plain.wan.save_pretrained(tmp_path / "t2v")
    net = build_orbit(grown(tmp_path / "t2v"), 16).eval()
    inputs = asked()
    bare = plain.eval()(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample
    assert torch.equal(net(**inputs).sample, bare)
    assert all(p.requires_grad for p in net.parameters())
    text = build_orbit(grown(tmp_path / "t2v", "model.variant=text", "data.static_condition=0"), 16)
    assert text.condition_embedding is None and text.config.variant == "text"
    net.save_pretrained(tmp_path / "run" / "model" / "unet")
    again = build_orbit(grown(tmp_path / "run"), 16).eval()
    assert torch.equal(again(**inputs).sample, bare)
    with pytest.raises(InputError, match="holds a image network, the preset trains text"):
        build_orbit(grown(tmp_path / "run", "model.variant=text"), 16)
    with pytest.raises(InputError, match=r"the autoencoder .* gives 4"):
        build_orbit(grown(tmp_path / "t2v"), 4)


def test_a_network_of_image_to_video_is_taken_as_it_is(tiny_wan: Path) -> None:
    net = build_orbit(grown(tiny_wan), 16).eval()
    assert net.condition_embedding is None and net.config.in_channels == 36
    inputs = asked()
    seen = net(**inputs).sample
    other = net(**(inputs | {"image_latents": torch.zeros_like(inputs["image_latents"])})).sample
    assert seen.shape == (2, 16, 3, 4, 4)
    assert not torch.equal(seen, other)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('data.augment=["roll"]', "data.augment"),
        ("model.residual=0.2", "velocity"),
        ("loss.offset_noise=0.1", "offset_noise"),
        ("optim.graphs=on", "optim.graphs"),
        ("optim.optimizer=muon", "optim.optimizer"),
        ("model.image_encoder=x", "image_encoder"),
        ('model.wan={"view_blocks": [0]}', "view_blocks"),
    ],
)
def test_settings_of_other_networks_are_refused(setting: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        override(preset("wan-orbit"), [setting])


def test_plan_says_where_the_text_encoder_is(small_plan: Callable[..., str]) -> None:
    text = small_plan()
    rows = {line[: line.index("  ")]: line for line in text.splitlines()[2:-2]}
    shown = [rows[name] for name in ("as set", "as set, latents cached")]
    numbers = [[float(word) for word in row.split() if _number(word)] for row in shown]
    # frozen is the fifth figure: 126.9 M parameters at 4 bytes and 5.68 G at 2, then the autoencoder alone.
    assert numbers[0][4] == pytest.approx(11.1, abs=0.05)
    assert numbers[1][4] == pytest.approx(0.5, abs=0.05)
    assert numbers[0][6] - numbers[1][6] == pytest.approx(10.6 * 1.02, abs=0.15)
    assert "with cached latents (`orbit4d encode`) the text encoder stays on the CPU" in text
    alone = small_plan("data.latents=cache")
    assert "the text encoder (21.2 GiB) stays on the CPU" in alone
    assert "as set, latents cached" not in alone


def _number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit() and "." in word


@pytest.fixture(scope="module")
def small_plan() -> Callable[..., str]:
    def make(*sets: str) -> str:
        config = override(preset("wan-orbit"), ["data.resolution=64", "optim.ema=0", *sets])
        small = {**MICRO, "text_dim": 64}
        return report(override(config, [f"model.wan.{k}={v}" for k, v in small.items()]), 16, 8)

    return make
