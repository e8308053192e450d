"""The other two variants go the same way: captions, and static orbits, from training to frames."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model import OrbitPipeline
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.encoders.text_and_image import TextEncoder
from orbit4d.model.training.train import train


class WordEncoder(TextEncoder):
    """A text encoder without weights: each word is a fixed random token."""

    dim, length, config_hash = 16, 6, "words"

    def encode(self, texts):
        rows = torch.zeros(len(texts), self.length, self.dim)
        for row, text in zip(rows, texts):
            for k, word in enumerate(text.split()[: self.length]):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
                row[k] = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed))
        return rows


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr("orbit4d.model.encoders.text_and_image.load_text_encoder", lambda spec: WordEncoder())


def frames_of(pipeline, **kwargs):
    generator = torch.Generator().manual_seed(0)
    return pipeline(num_inference_steps=2, generator=generator, output_type="pt", **kwargs).frames


TEXT = (
    "model.variant=text",
    "model.residual=0",
    "model.text_encoder=words",
    "data.static_condition=0",
    "data.caption_suffix=, 3d asset",
)


def test_captions_from_training_to_frames(tmp_path, synthetic_dataset, micro_config, words):
    config = micro_config(*TEXT, "loss.drop_caption=0.5", "data.negative_prompt=ugly", "optim.lr=0.01")
    train(config, str(synthetic_dataset), tmp_path / "run")
    pipeline = OrbitPipeline.of_folder(tmp_path / "run")
    one = frames_of(pipeline, prompt="a striped ball", motion=0.01, w1=1.0)
    assert one.shape == (1, 4, 3, 16, 16)
    assert not torch.allclose(one, frames_of(pipeline, prompt="a green fox", motion=0.01, w1=1.0), atol=1e-6)
    for wrong in ({}, {"image": np.zeros((16, 16, 3), np.uint8)}):
        with pytest.raises(InputError, match="give a text"):
            frames_of(pipeline, **wrong)


def test_a_dropped_caption_is_the_negative_prompt(micro_config, words):
    config = micro_config(*TEXT, "data.negative_prompt=ugly blurry")
    frozen = FrozenParts.load(PartsSpec.of(config), torch.device("cpu"))
    batch = {
        "camera": torch.zeros(2, 4, 16),
        "caption": ["a fox", "a fox"],
        "keep_text": torch.tensor([True, False]),
    }
    tokens = frozen.conditions(batch, torch.zeros(2, 48, 4, 4, 4), None)["encoder_hidden_states"]
    assert torch.equal(tokens[0], frozen.tokens(["a fox"])[0])
    assert torch.equal(tokens[1], frozen.tokens(["ugly blurry"])[0])


def test_remembered_captions_do_not_pile_up(micro_config, words):
    frozen = FrozenParts.load(PartsSpec.of(micro_config(*TEXT)), torch.device("cpu"))
    for i in range(400):
        pair = frozen.tokens([f"fox {i}", "none"])
        assert torch.equal(pair, frozen.text.encode([f"fox {i}", "none"]))
    assert 2 <= len(frozen._tokens) <= 256


def test_captions_from_the_cache_are_those_of_the_loop(tmp_path, synthetic_dataset, micro_config, words):
    import shutil

    from orbit4d.model.data.encode import encode_dataset
    from orbit4d.model.run.log import read

    dataset = str(shutil.copytree(synthetic_dataset, tmp_path / "data"))
    plain = (*TEXT, 'stages=[{"name": "dynamic", "steps": 2}]', "data.augment=[]")
    encode_dataset(dataset, micro_config(*plain))
    losses = []
    for mode in ("cache", "fly"):
        train(micro_config(*plain, f"data.latents={mode}"), dataset, tmp_path / mode)
        losses.append([row["loss"] for row in read(tmp_path / mode / "log.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_an_encoder_of_another_width_is_refused(
    tmp_path, synthetic_dataset, micro_config, words, monkeypatch
):
    monkeypatch.setattr(WordEncoder, "dim", 24)
    with pytest.raises(InputError, match=r"gives 24 .* takes 16.*cross_attention_dim=24"):
        train(micro_config(*TEXT), str(synthetic_dataset), tmp_path / "run")


def test_static_orbits_from_training_to_frames(tmp_path, synthetic_dataset, micro_config):
    stages = '[{"name": "dynamic", "steps": 2}]'
    train(
        micro_config("model.variant=static3d", f"stages={stages}", "data.static_condition=0"),
        str(synthetic_dataset),
        tmp_path / "run",
    )
    pipeline = OrbitPipeline.of_folder(tmp_path / "run")
    static = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    assert frames_of(pipeline, static=static, motion=0.01).shape == (1, 4, 3, 16, 16)
    later = static.copy()
    later[3] = 0
    assert not torch.allclose(
        frames_of(pipeline, static=static), frames_of(pipeline, static=later), atol=1e-6
    )
    with pytest.raises(InputError, match="static orbit"):
        frames_of(pipeline, image=static[0])


def test_a_static_stage_needs_static_orbits(tmp_path, make_dataset, micro_config):
    path = make_dataset(tmp_path / "data", assets=3, n_frames=4, size=16, rigs=("dynamic_orbit",))
    with pytest.raises(InputError, match="needs static orbits"):
        train(micro_config(), str(path), tmp_path / "run")
    only_dynamic = micro_config('stages=[{"name": "dynamic", "steps": 2}]')
    train(only_dynamic, str(path), tmp_path / "other")
    motion = OrbitPipeline.of_folder(tmp_path / "other").motion_statistics
    assert motion.clips > 0, "without static orbits the measured column of the index serves"


def test_a_residual_network_starts_as_a_copy(micro_config):
    """Before its first step its clean estimate from pure noise is exactly what the image branch sees."""
    from orbit4d.model.diffusion.losses import residual_estimate
    from orbit4d.model.diffusion.schedule import make_scheduler
    from orbit4d.model.encoders.frozen import image_source
    from orbit4d.model.network.build import build_unet
    from orbit4d.model.network.conditioning import position_ramp

    unet = build_unet(micro_config(), 48)
    first = torch.randn(1, 48, 4, 4)
    noisy, t = torch.randn(1, 48, 4, 4, 4), torch.tensor([999])
    output = unet(noisy, t, image_latents=first).sample
    source = image_source(None, first, 4)
    estimate = residual_estimate(make_scheduler("image", "sample"), output, source, noisy, t, 0.25)
    assert torch.equal(estimate, position_ramp(first, 4))
    repeated = image_source(None, first, 4, "repeat")
    assert all(torch.equal(repeated[:, :, k], first) for k in range(4))
    with pytest.raises(InputError, match="prediction=sample"):
        build_unet(micro_config("model.prediction=v_prediction"), 48)
    with pytest.raises(InputError, match="needs an image network"):
        image_source(None, None, 4)


IMAGE_AND_TEXT = (
    "model.text_encoder=words",
    "data.caption_suffix=, 3d asset",
    'stages=[{"name": "dynamic", "steps": 1}]',
)


@pytest.mark.parametrize("captions", ["true", "false"])
def test_captions_of_a_static_orbit_are_told_as_in_training(
    tmp_path, synthetic_dataset, micro_config, words, monkeypatch, captions
):
    """In `generate --static`, in `eval run --task static`, and, without captions, in no clip of training."""
    from types import SimpleNamespace

    from orbit4d.datasets import read_clip
    from orbit4d.evaluate.tasks import generated
    from orbit4d.model.data.clip_source import PixelClips
    from orbit4d.model.sampling.generate import Request, generate

    config = micro_config(*IMAGE_AND_TEXT, f"data.captions={captions}")
    train(config, str(synthetic_dataset), tmp_path / "run")
    told: list[str | None] = []

    def record(self, **kwargs):
        told.append(kwargs.get("prompt"))
        raise InterruptedError

    monkeypatch.setattr(OrbitPipeline, "__call__", record)
    asset = ("asset-002", "Jump")
    clip, still = (
        read_clip(str(synthetic_dataset), *asset, rig=r) for r in ("dynamic_orbit", "static_orbit")
    )
    with pytest.raises(InterruptedError):
        static = f"{synthetic_dataset}:{':'.join(asset)}"
        generate(tmp_path / "run", tmp_path / "a.mp4", Request(static=static, motion="0.01"))
    asked = generated.Asked(str(tmp_path / "run"), "static", str(tmp_path), motion="0.01")
    with pytest.raises(InterruptedError):
        ref = SimpleNamespace(read=lambda: still)
        generated._generate(tmp_path / "b.mp4", tmp_path / "b.json", clip, ref, asked)
    assert clip.caption.startswith("a striped ball")
    trained = PixelClips(str(synthetic_dataset), config, "train")[0]["caption"]
    if captions == "true":
        assert told == [clip.caption] * 2 and trained.endswith(", 3d asset")
    else:
        assert told == [None, None] and trained == ""


def test_a_model_trained_without_captions_takes_none(tmp_path, synthetic_dataset, micro_config, words):
    """Its tokens are those of the empty caption on both sides, and a caption is refused in one line."""
    config = micro_config(*IMAGE_AND_TEXT, "data.captions=false")
    train(config, str(synthetic_dataset), tmp_path / "run")
    pipeline = OrbitPipeline.of_folder(tmp_path / "run")
    assert not pipeline.takes_text
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    conditions = pipeline.conditions(image=picture).full
    assert torch.equal(conditions.encoder_hidden_states, pipeline.parts.tokens([""]))
    with pytest.raises(InputError, match="without captions"):
        frames_of(pipeline, image=picture, prompt="a fox")


def test_the_cache_knows_whether_captions_were_told(tmp_path, synthetic_dataset, micro_config, words, capsys):
    import shutil

    from orbit4d.model.data.clip_source import TRAIN, open_clips
    from orbit4d.model.data.encode import encode_dataset

    dataset = str(shutil.copytree(synthetic_dataset, tmp_path / "data"))
    with_captions = micro_config(*IMAGE_AND_TEXT, "data.latents=auto")
    without = micro_config(*IMAGE_AND_TEXT, "data.latents=auto", "data.captions=false")
    encode_dataset(dataset, with_captions)
    frozen = FrozenParts.load(PartsSpec.of(without), torch.device("cpu"))
    assert not open_clips(dataset, without, frozen, TRAIN).is_latent
    assert "this run has no captions" in capsys.readouterr().out
    encode_dataset(dataset, without)
    clips = open_clips(dataset, without, frozen, TRAIN)
    assert clips.is_latent and torch.equal(clips[0]["text"], frozen.tokens([""])[0])
