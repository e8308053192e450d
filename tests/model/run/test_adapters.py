"""RUN/lora: what a LoRA run learned, as peft and diffusers load it onto the network it started from."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from orbit4d.model import OrbitUNet
from orbit4d.model.network.build import build_unet
from orbit4d.model.training.train import train

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, synthetic_dataset, micro_config):
    """(base folder, RUN) of a LoRA training of rank 3 with large steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lora")
    build_unet(micro_config("seed=3", "model.residual=0.0"), 48).save_pretrained(folder / "base")
    config = micro_config(
        "optim.lora=3", f"model.init={folder / 'base'}", "steps=3", "optim.lr=0.05", "optim.warmup=0",
        "optim.optimizer=adamw",
    )  # fmt: skip
    train(config, str(synthetic_dataset), folder / "run")
    return folder / "base", folder / "run"


def inputs():
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "sample": draw(2, 48, 4, 4, 4),
        "timestep": torch.tensor([20, 500]),
        "encoder_hidden_states": None,
        "camera": draw(2, 4, 16),
        "motion": torch.tensor([0.002, 0.05]),
        "image_latents": draw(2, 48, 4, 4),
    }


@torch.no_grad()
def output(unet):
    return unet.eval()(**inputs()).sample


def test_peft_makes_the_trained_network_of_the_base(adapted):
    base, run = adapted
    plain, merged = OrbitUNet.from_pretrained(base), OrbitUNet.from_pretrained(run / "model" / "unet")
    want, before = output(merged), output(plain)
    assert (want - before).abs().max() > 1e-2, "a training that changes nothing would prove nothing"
    loaded = peft.PeftModel.from_pretrained(OrbitUNet.from_pretrained(base), run / "lora")
    torch.testing.assert_close(output(loaded), want, atol=1e-5, rtol=1e-4)
    settings = json.loads((run / "lora" / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (3, str(base))


def test_diffusers_loads_the_adapters(adapted):
    """Onto the whole network without a prefix; the MLPs that were trained whole are not among them."""
    base, run = adapted
    merged = OrbitUNet.from_pretrained(run / "model" / "unet")
    unet = OrbitUNet.from_pretrained(base)
    unet.load_lora_adapter(run / "lora", prefix=None, weight_name="pytorch_lora_weights.safetensors")
    for name in ("camera_embedding", "motion_embedding"):
        getattr(unet, name).load_state_dict(getattr(merged, name).state_dict())
    torch.testing.assert_close(output(unet), output(merged), atol=1e-5, rtol=1e-4)


def test_the_inner_network_takes_them_too(adapted):
    """The plain diffusers network inside, by peft's functions for any module."""
    base, run = adapted
    inner = OrbitUNet.from_pretrained(base).unet
    keys = load_file(run / "lora" / "pytorch_lora_weights.safetensors")
    assert keys and all(key.startswith("unet.") and "lora_" in key for key in keys)
    settings = json.loads((run / "lora" / "adapter_config.json").read_text())
    lora = peft.LoraConfig(r=settings["r"], lora_alpha=settings["lora_alpha"],
                           target_modules=settings["target_modules"])  # fmt: skip
    peft.inject_adapter_in_model(lora, inner)
    peft.set_peft_model_state_dict(inner, {k.removeprefix("unet."): v for k, v in keys.items()})
    merged = OrbitUNet.from_pretrained(run / "model" / "unet").unet
    checked = 0
    for name, module in inner.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            weight = module.get_base_layer().weight + module.get_delta_weight("default")
            torch.testing.assert_close(weight, merged.get_submodule(name).weight, atol=1e-5, rtol=1e-4)
            checked += 1
    assert checked * 2 == len(keys)


def test_a_run_of_all_weights_has_no_adapters(tmp_path, synthetic_dataset, micro_config):
    train(micro_config('stages=[{"name": "dynamic", "steps": 1}]'), str(synthetic_dataset), tmp_path / "run")
    assert not (tmp_path / "run" / "lora").exists()
