"""wan-orbit end to end on tiny weights: trained, cached, resumed to the bit, guided, generated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model import OrbitPipeline, TrainConfig, override, preset, train
from orbit4d.model.config.settings import Stage
from orbit4d.model.data.encode import encode_dataset
from orbit4d.model.diffusion.guidance import GuidanceWeights, guided_prediction
from orbit4d.model.orbits.network import WanOrbit
from orbit4d.model.sampling.generate import Request, generate

MICRO = {
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 24, "freq_dim": 16,
    "text_dim": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> str:
    return str(make_dataset(tmp_path_factory.mktemp("orbits") / "d", assets=8, n_frames=8, actions=("Run",)))


@pytest.fixture(scope="module")
def micro(tiny_wan: Path) -> Callable[..., TrainConfig]:
    """8 frames shown as 9, 3 latents of 4 x 4; a static stage leaves the frozen base."""

    def make(*more: str) -> TrainConfig:
        sets = [
            "data.resolution=32", "data.frames=8", "model.init=", f"model.autoencoder={tiny_wan}",
            f"model.text_encoder={tiny_wan}", "optim.effective_batch=2", "optim.batch=2", "optim.lr=0.003",
            "optim.precision=no", "optim.ema=0.5", "data.workers=0", "data.latents=fly",
            "checkpoint_every=1", "validate_every=2", "validate_clips=1", "sample.steps=2",
            "loss.motion_weight=5",
        ]  # fmt: skip
        config = override(preset("wan-orbit"), [*sets, *more])
        stages = (Stage("static", 1), Stage("dynamic", 3, static_share=0.3))
        return replace(config, model=replace(config.model, wan=MICRO), stages=stages)

    return make


@pytest.fixture(scope="module")
def finished(
    dataset: str, micro: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("run") / "r"
    torch.set_num_threads(1)
    train(micro(), dataset, run)
    return run


def losses(run: Path) -> list[Any]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = ("step", "stage", "loss", "loss_diffusion", "loss_motion", "val_loss")
    return [tuple(row.get(name) for name in names) for row in rows]


def test_every_new_part_learns_and_the_motion_loss_counts(finished: Path) -> None:
    rows = losses(finished)
    assert [row[1] for row in rows] == ["static", "dynamic", "dynamic", "dynamic"]
    for _, _, loss, diffusion, motion, _ in rows:
        assert motion > 0
        assert loss == pytest.approx(diffusion + 5 * motion, rel=1e-6)
    net = WanOrbit.from_pretrained(finished / "model" / "unet")
    assert all(layer.weight.any() for layer in net.orbit_cameras)
    assert net.motion_embedding.mlp[2].weight.any() and net.condition_embedding.weight.any()
    assert float(net.motion_std) > 0
    base = WanOrbit.from_pretrained(finished / "base")
    assert not base.motion_embedding.mlp[2].weight.any(), "the static stage is told no motion"


@pytest.mark.parametrize("stop", [2])
def test_resumed_run_is_the_same_to_the_bit(
    finished: Path, dataset: str, micro: Callable[..., TrainConfig], tmp_path: Path, stop: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from orbit4d.model.training import train as loop

    done, step = {"steps": 0}, loop.optimizer_step

    def interrupted(*args: Any) -> Any:
        if done["steps"] == stop:
            raise KeyboardInterrupt
        done["steps"] += 1
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(micro(), dataset, tmp_path / "r")
    monkeypatch.setattr(loop, "optimizer_step", step)
    train(micro(), dataset, tmp_path / "r", resume=True)
    assert losses(tmp_path / "r") == losses(finished)
    first, again = (WanOrbit.from_pretrained(r / "model" / "unet") for r in (finished, tmp_path / "r"))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())


def test_cache_gives_the_same_losses_and_leaves_the_text_encoder_alone(
    finished: Path, dataset: str, micro: Callable[..., TrainConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cached = micro(f"data.latents_folder={tmp_path / 'cache'}", "data.latents=cache")
    assert "0 were there" in encode_dataset(dataset, cached)
    assert "encoded 0 clips" in encode_dataset(dataset, cached)
    from orbit4d.model.encoders.text_and_image import Umt5TextEncoder

    asked: list[str] = []
    encode = Umt5TextEncoder.encode

    def counted(self: Any, texts: Any) -> Any:
        asked.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(Umt5TextEncoder, "encode", counted)
    train(cached, dataset, tmp_path / "r")
    assert asked == [cached.data.negative_prompt]
    # The cache holds float16.
    for ours, theirs in zip(losses(tmp_path / "r"), losses(finished)):
        assert ours[2] == pytest.approx(theirs[2], rel=5e-3)
    with pytest.raises(InputError, match="no latents made with"):
        train(replace(cached, data=replace(cached.data, frames=4)), dataset, tmp_path / "other")


def test_generates_from_image_text_and_static_orbit(finished: Path, dataset: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(photo)
    uid = json.loads((finished / "data.json").read_text())["assets"][0]
    requests = {
        "image": Request(image=str(photo), crop=False, matte="none"),
        "text": Request(text="a ball"),
        "static": Request(static=f"{dataset}:{uid}"),
    }
    made = {}
    for name, request in requests.items():
        (path,) = generate(finished, tmp_path / f"{name}.mp4", request)
        made[name] = read_video(path).frames
        assert made[name].shape == (8, 32, 32, 3)
        record = json.loads((tmp_path / name / "transforms.json").read_text())
        assert len(record["frames"]) == 8
    assert not np.array_equal(made["image"], made["text"])
    assert not np.array_equal(made["static"], made["text"])
    with pytest.raises(InputError, match="exactly one"):
        generate(finished, tmp_path / "none.mp4", Request())


def test_guidance_is_its_formula_and_cameras_and_motion_count(finished: Path) -> None:
    pipeline = OrbitPipeline.of_folder(finished)
    assert isinstance(pipeline.unet, WanOrbit) and isinstance(pipeline.base_unet, WanOrbit)
    asked = pipeline.conditions(prompt="a ball", motion=0.05)
    z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([700.0])
    with torch.no_grad():
        args = (pipeline.unet, z, t, asked.full, asked.negative, pipeline.base_unet)
        full, uncond, base = (
            net(z, t, **{k: v for k, v in vars(given).items() if v is not None}).sample
            for net, given in (
                (pipeline.unet, asked.full),
                (pipeline.unet, asked.full.unconditional(asked.negative)),
                (pipeline.base_unet, asked.full.without_motion()),
            )
        )
        found = guided_prediction(*args, GuidanceWeights(7.0, 0.5))
        still = guided_prediction(*args, GuidanceWeights(0.0, 0.0))
    assert torch.allclose(found, full + 7 * (full - uncond) + 0.5 * (full - base), atol=1e-4)
    assert torch.allclose(still, full, atol=1e-6)
    # Affine in v: guiding clean estimates is guiding velocities (syncammaster 4.9).
    estimate = pipeline.clean_estimate(z, t, asked, w1=7.0, w2=0.5)
    assert torch.allclose(estimate, z - 0.7 * found, atol=1e-4)
    seed = torch.Generator().manual_seed
    orbits = [
        pipeline(prompt="a ball", motion=m, cameras=pipeline.orbit(elevation_deg=e), generator=seed(1),
                 output_type="latent").frames
        for m, e in ((0.01, 0.0), (0.5, 0.0), (0.01, 30.0))
    ]  # fmt: skip
    assert orbits[0].shape == (1, 16, 3, 4, 4)
    assert not torch.equal(orbits[0], orbits[1]) and not torch.equal(orbits[0], orbits[2])


def test_what_needs_latents_of_frames_refuses_the_run(finished: Path) -> None:
    from orbit4d.model.distill.scores.runs import RunScore
    from orbit4d.model.sampling.guided_orbit import OrbitRun

    for load in (OrbitRun.load, lambda run: RunScore.load(run, "video")):
        with pytest.raises(InputError, match="a run of wan-orbit"):
            load(str(finished))


def test_lora_trains_adapters_and_the_new_parts_alone(
    dataset: str, micro: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    config = micro("optim.lora=2", "optim.checkpointing=true", "optim.ema=0")
    config = replace(config, stages=(Stage("dynamic", 2),))
    train(config, dataset, tmp_path / "r")
    torch.manual_seed(config.seed)
    from orbit4d.model.orbits.build import build_orbit

    before, after = build_orbit(config, 16), WanOrbit.from_pretrained(tmp_path / "r" / "model" / "unet")
    moved = {k for k, v in after.state_dict().items() if not torch.equal(v, before.state_dict()[k])}
    frozen = {k for k in moved if k.startswith("wan.") and ".attn" not in k}
    assert not frozen
    assert any(".attn1.to_q" in k for k in moved) and any(k.startswith("condition_embedding") for k in moved)
    told = json.loads((tmp_path / "r" / "lora" / "adapter_config.json").read_text())
    assert told["modules_to_save"] == ["motion_embedding", "orbit_cameras", "condition_embedding"]
