"""The Python examples of docs/measured/model.md run as they stand, and what they write is what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from diffusers import I2VGenXLUNet, UNet3DConditionModel
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model import OrbitPipeline, OrbitUNet, export_diffusers, load_videomv
from orbit4d.model.network.conditioning import position_ramp
from orbit4d.model.training.train import train


def examples(repo_root):
    text = (repo_root / "docs" / "measured" / "model.md").read_text()
    section = text.split("\n## From Python\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, synthetic_dataset, micro_config, small_unet):
    """A folder with what the examples name: two runs, a network of the published layout, a picture."""
    pytest.importorskip("peft")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("docs")
    one = 'stages=[{"name": "dynamic", "steps": 1}]'
    train(micro_config(one), str(synthetic_dataset), folder / "runs" / "fox")
    lora = micro_config(one, f"model.init={folder / 'runs' / 'fox'}", "optim.lora=2", "optim.optimizer=adamw")
    train(lora, str(synthetic_dataset), folder / "runs" / "lora")
    small_unet("image", loud=True).save_pretrained(folder / "runs" / "image" / "model" / "unet")
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[8:30, 12:28] = (200, 120, 40, 255)
    Image.fromarray(rgba).save(folder / "fox.png")
    return folder


def test_the_examples_run(workplace, repo_root, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    found = examples(repo_root)
    assert len(found) == 3
    names: dict = {}
    for code in found:
        exec(compile(code, "docs/measured/model.md", "exec"), names)
    assert len(read_video("fox.mp4").frames) == 4 and names["photo"].rgb.shape == (16, 16, 3)
    said = capsys.readouterr().out
    assert "motion_embedding.mlp" in said.split("not in the .pth:")[1].split("not in the folder:")[0]
    assert "camera_embedding" in said.split("not in the folder:")[1]
    merged = OrbitUNet.from_pretrained(workplace / "runs" / "lora" / "model" / "unet")
    weight = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tuned = names["unet"].get_submodule(weight)
    got = tuned.get_base_layer().weight + tuned.get_delta_weight("default_0")
    torch.testing.assert_close(got, merged.get_submodule(weight).weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", ["text", "image"])
@torch.no_grad()
def test_plain_diffusers_draws_what_ours_draws_without_camera(tmp_path, small_unet, small_inputs, variant):
    unet = small_unet(variant, loud=True, temporal_dropout=0.3)
    lacks = export_diffusers(unet, tmp_path / "plain")
    assert {name.split(".")[0] for name in lacks} == {"camera_embedding", "motion_embedding"}
    inputs = small_inputs(variant, frames=4)
    given = {k: inputs[k] for k in ("sample", "timestep", "encoder_hidden_states")}
    if variant == "text":
        plain = UNet3DConditionModel.from_pretrained(tmp_path / "plain").eval()
        theirs, ours = plain(**given).sample, unet(**given).sample
    else:
        plain = I2VGenXLUNet.from_pretrained(tmp_path / "plain").eval()
        image = {"image_embeddings": inputs["image_embeddings"]}
        source = position_ramp(inputs["image_latents"], 4)
        fps = torch.full((2,), 8)
        theirs = plain(**given, **image, fps=fps, image_latents=source).sample
        ours = unet(**given, **image, fps=fps, image_latents=inputs["image_latents"]).sample
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"first_view": "repeat"}, r"first_view=repeat.*first_view=ramp"),
        ({"transformer_in_heads": 2}, "transformer_in_heads=8"),
        ({"in_channels": 12, "out_channels": 12}, "4 latent channels"),
    ],
)
def test_a_network_that_plain_diffusers_cannot_hold_is_refused(tmp_path, small_unet, kwargs, says):
    with pytest.raises(InputError, match=says) as caught:
        export_diffusers(small_unet("image", **kwargs), tmp_path / "plain")
    assert "\n" not in str(caught.value) and not (tmp_path / "plain").exists()


def test_arguments_that_are_passed_on_are_checked(workplace, tmp_path):
    """Neither a raw TypeError nor a setting that quietly gives way."""
    for name in ("double_add_folded", "block_out_chanels"):
        with pytest.raises(InputError, match=f"load_videomv takes no {name}="):
            load_videomv(tmp_path / "any.pth", **{name: False})
    with pytest.raises(InputError, match=r"no component sheduler; the nearest is scheduler"):
        OrbitPipeline.from_pretrained(workplace / "runs" / "fox" / "model", sheduler=None)
    with pytest.raises(InputError, match="no component frames"):
        OrbitPipeline.from_pretrained(workplace / "runs" / "fox" / "model", frames=8)
