"""VideoMV checkpoints: parity with the original network, every key accounted for, and back again."""

from __future__ import annotations

import json
import logging
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orbit4d.datasets.cameras.camera import orbit, stack_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.network.cameras import videomv_cameras
from orbit4d.model.network.conditioning import position_ramp
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.network.videomv import (
    DROPPED_PREFIX,
    OWN_PREFIXES,
    export_videomv,
    from_videomv_keys,
    layout_rules,
    load_videomv,
    load_videomv_report,
)

FOLDERS = {"text": "t2v", "image": "i2v"}
#: Widths of the parity fixtures.
MULT = (1, 2, 2, 2)
LIMIT = 1e-4  # float32 on one CPU; seen 4e-6, the smallest error of a known mistake is 0.03


class Parity:
    """One fixture: the converted network, the original's inputs and outputs."""

    def __init__(self, folder, variant):
        self.path, self.variant = folder / "weights.pth", variant
        self.kwargs = json.loads((folder / "config.json").read_text())["diffusers"]["kwargs"]
        self.io = load_file(folder / "io.safetensors")
        self.unet, self.report = load_videomv_report(self.path, variant, **self.kwargs)

    def run(self, **changes):
        io = self.io
        inputs = {"encoder_hidden_states": io["y"], "camera": io["camera_data"]}
        if self.variant == "image":
            inputs |= {
                "image_latents": io["local_image"],
                "image_embeddings": io["image"],
                "fps": io["fps"],
            }
        with torch.no_grad():
            return self.unet(io["x"], io["t"], **{**inputs, **changes}).sample


@pytest.fixture(scope="module", params=["text", "image"])
def parity(request, shared):
    torch.set_num_threads(1)
    return Parity(shared / "fixtures" / "videomv" / FOLDERS[request.param], request.param)


@pytest.fixture(scope="module")
def image_parity(shared):
    torch.set_num_threads(1)
    return Parity(shared / "fixtures" / "videomv" / "i2v", "image")


def error(a, b):
    return (a.double() - b.double()).abs().max().item()


def test_output_is_the_original_networks(parity):
    assert parity.io["output"].std() > 0.5
    assert error(parity.run(), parity.io["output"]) < LIMIT
    assert error(parity.run(camera=None), parity.io["output_without_camera"]) < LIMIT
    if parity.variant == "image":
        assert error(parity.run(image_embeddings=None), parity.io["output_zero_image"]) < LIMIT
        static = position_ramp(parity.io["local_image"], 6)
        assert error(parity.run(image_latents=None, static_latents=static), parity.io["output"]) < LIMIT


def test_inner_tensors_agree_on_the_way(parity):
    """Names the first place that went wrong, should the output ever differ."""
    unet, io, seen = parity.unet.unet, parity.io, {}

    def keep(name):
        return lambda _module, _args, out: seen.update({name: out[0] if isinstance(out, tuple) else out})

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in {
            "time_embed": unet.time_embedding,
            "camera_embed": parity.unet.camera_embedding,
            "after_conv_in": unet.conv_in,
            "after_transformer_in": unet.transformer_in,
            "after_middle": unet.mid_block.temp_convs[1],
            "before_middle": unet.down_blocks[3].temp_convs[1],
        }.items()
    ]
    if parity.variant == "image":
        hooks.append(unet.fps_embedding.register_forward_hook(keep("fps_embed")))
        hooks.append(unet.image_latents_temporal_encoder.register_forward_hook(keep("image_branch_once")))
        context = parity.unet._image_context(io["local_image"], io["image"], io["y"])
        assert error(context.detach(), io["dbg_context"]) < LIMIT
    parity.run()
    for hook in hooks:
        hook.remove()
    frames = seen["after_transformer_in"]
    seen["after_transformer_in"] = frames.unflatten(0, (2, 6)).transpose(1, 2)
    wanted = {name.removeprefix("dbg_") for name in io if name.startswith("dbg_")} - {"context"}
    assert wanted == set(seen)
    for name in sorted(wanted):
        assert error(seen[name], io[f"dbg_{name}"]) < LIMIT, name


def test_every_key_is_used_and_the_reconstruction_net_counted(parity, caplog):
    source = torch.load(parity.path, weights_only=True)["state_dict"]
    assert len(parity.report.dropped) == 4
    assert parity.report.used == len(source) - 4
    assert parity.report.unknown == parity.report.missing == ()
    assert parity.report.step == {"text": 1101, "image": 1202}[parity.variant]
    with caplog.at_level(logging.INFO):
        load_videomv(parity.path, parity.variant, **parity.kwargs)
    assert f"4 {DROPPED_PREFIX}* left out" in caplog.text


def test_export_gives_the_file_back(parity, tmp_path):
    path = tmp_path / "back.pth"
    left_out = export_videomv(parity.unet, path, step=7)
    assert left_out and all(name.startswith("motion_embedding.") for name in left_out)
    source = torch.load(parity.path, weights_only=True)["state_dict"]
    content = torch.load(path, weights_only=True)
    assert content["step"] == 7
    kept = {key: value.float() for key, value in source.items() if not key.startswith(DROPPED_PREFIX)}
    assert set(content["state_dict"]) == set(kept)
    assert all(torch.equal(content["state_dict"][key], value) for key, value in kept.items())
    again = load_videomv(path, parity.variant, **parity.kwargs).state_dict()
    for key, value in parity.unet.state_dict().items():
        if not key.startswith(OWN_PREFIXES):
            assert torch.equal(again[key], value), key


def test_the_doubled_image_branch_is_folded_once_and_only_there(image_parity):
    """The mistakes of the conversion guide's table, each by its size there."""
    conv = image_parity.unet.unet.conv_in
    assert image_parity.unet.config.double_add_folded
    right = conv.weight.data.clone(), conv.bias.data.clone()
    mistakes = {
        "not doubled": (lambda w: w[:, 4:].mul_(0.5), None, 0.5),
        "doubled twice": (lambda w: w[:, 4:].mul_(2.0), None, 0.5),
        "noise channels doubled": (lambda w: w[:, :4].mul_(2.0), None, 1.0),
        "bias doubled": (None, lambda b: b.mul_(2.0), 0.02),
    }
    try:
        for name, (weight, bias, least) in mistakes.items():
            conv.weight.data.copy_(right[0])
            conv.bias.data.copy_(right[1])
            with torch.no_grad():
                if weight:
                    weight(conv.weight)
                if bias:
                    bias(conv.bias)
            assert error(image_parity.run(), image_parity.io["output"]) > least, name
    finally:
        conv.weight.data.copy_(right[0])
        conv.bias.data.copy_(right[1])


def test_wrong_cameras_and_ramps_are_felt(parity):
    io = parity.io
    camera = io["camera_data"]
    wrong = {
        "averaged over frames": camera.mean(1, keepdim=True).expand(-1, 6, -1),
        "column-major": camera.unflatten(-1, (4, 4)).transpose(-1, -2).flatten(-2),
        "frame-major": camera.transpose(0, 1).reshape(2, 6, 16),
    }
    for name, cameras in wrong.items():
        assert error(parity.run(camera=cameras), io["output"]) > 0.2, name
    if parity.variant == "image":
        repeated = io["local_image"].unsqueeze(2).expand(-1, -1, 6, -1, -1)
        assert error(parity.run(static_latents=repeated), io["output"]) > 1.0


def test_saved_network_still_agrees(parity, tmp_path):
    parity.unet.save_pretrained(tmp_path)
    before, parity.unet = parity.unet, OrbitUNet.from_pretrained(tmp_path)
    try:
        assert error(parity.run(), parity.io["output"]) < LIMIT
        assert parity.unet.config.double_add_folded
    finally:
        parity.unet = before


def test_cameras_are_upstreams(shared):
    orbits = np.load(shared / "fixtures" / "videomv" / "camera_orbits.npz")
    text = orbits["t2v_inference_24_el15_dist2.0"]
    image = orbits["i2v_inference_24_el5_dist1.7"]
    np.testing.assert_allclose(videomv_cameras(orbit(24, elevation_deg=15)), text, atol=1e-6)
    np.testing.assert_allclose(videomv_cameras(orbit(24, radius=1.7, elevation_deg=5)), image, atol=1e-6)


# Without the fixtures ---------------------------------------------------------------------------------------


def test_first_camera_stands_on_plus_x():
    cameras = orbit(4, radius=2.0)
    row = videomv_cameras(cameras)[0].view(4, 4)
    expected = [[0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float32), atol=1e-7, rtol=0)
    stacked = torch.from_numpy(stack_c2w(cameras))
    assert torch.equal(videomv_cameras(stacked), videomv_cameras(cameras))
    assert videomv_cameras(stacked.expand(3, -1, -1, -1)).shape == (3, 4, 16)
    with pytest.raises(ValueError, match="camera-to-world"):
        videomv_cameras(torch.zeros(4, 16))


def made_up(videomv_layout, variant):
    """Random tensors under the published keys, small."""
    generator = torch.Generator().manual_seed(0)
    layout = videomv_layout(variant, dim=32, mult=MULT, head=8, context=48)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in layout.items()}


MADE_UP = {"block_out_channels": (32, 64, 64, 64), "attention_head_dim": 8, "cross_attention_dim": 48}


@pytest.mark.parametrize(("variant", "tensors"), [("text", 1482), ("image", 1511)])
def test_the_description_of_the_layout_is_the_fixtures(variant, tensors, shared, videomv_layout):
    source = torch.load(
        shared / "fixtures" / "videomv" / FOLDERS[variant] / "weights.pth", weights_only=True
    )["state_dict"]
    real = {key: tuple(value.shape) for key, value in source.items() if not key.startswith(DROPPED_PREFIX)}
    head = {"text": 16, "image": 8}[variant]
    assert len(real) == tensors
    assert videomv_layout(variant, dim=32, mult=MULT, head=head) == real


@pytest.mark.parametrize(
    ("variant", "tensors", "millions"), [("text", 1484, 1412.9), ("image", 1513, 1422.1)]
)
def test_full_size_network_has_the_published_shapes(variant, tensors, millions, videomv_layout):
    with torch.device("meta"):
        unet = OrbitUNet(variant=variant)
        source = {key: torch.empty(shape) for key, shape in videomv_layout(variant).items()}
    converted, unknown = from_videomv_keys(source, unet.config)
    targets = {key: value for key, value in unet.state_dict().items() if not key.startswith(OWN_PREFIXES)}
    assert unknown == []
    assert len(source) == tensors
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in targets.items()
    }
    total = sum(value.numel() for value in source.values()) / 1e6
    assert total == pytest.approx(millions, abs=0.05)
    own = [value.numel() for key, value in unet.named_parameters() if key.startswith(OWN_PREFIXES)]
    assert sum(own) == 2 * 1280 + 1280 * 1280 + 1280


def test_rules_name_each_module_once():
    for variant in ("text", "image"):
        with torch.device("meta"):
            rules = layout_rules(OrbitUNet(variant=variant, **MADE_UP).config)
        assert len({rule.source for rule in rules}) == len({rule.target for rule in rules}) == len(rules)


def test_rules_match_whole_parts_only():
    """A 10th layer is not layer 1 with a zero behind it."""
    with torch.device("meta"):
        config = OrbitUNet(**MADE_UP).config
    keys = ("input_blocks.0.10.norm.weight", "out.20.weight", "camera_embeddings.0.weight")
    converted, unknown = from_videomv_keys({key: torch.zeros(1) for key in keys}, config)
    assert (converted, unknown) == ({}, list(keys))


def test_unknown_and_missing_keys_are_fatal_and_listed(videomv_layout, tmp_path):
    tensors, path = made_up(videomv_layout, "text"), tmp_path / "t2v.pth"
    tensors["output_blocks.12.0.in_layers.0.weight"] = torch.zeros(3)
    tensors["input_blocks.1.0.in_layers.0.extra"] = torch.zeros(3)
    del tensors["middle_block.3.emb_layers.1.bias"]
    torch.save({"state_dict": tensors, "step": 3}, path)
    with pytest.raises(InputError) as caught:
        load_videomv(path, "text", **MADE_UP)
    message = str(caught.value)
    assert "\n" not in message
    assert "2 unknown keys" in message
    assert "output_blocks.12.0.in_layers.0.weight" in message
    assert "1 tensors not in the file: unet.mid_block.resnets.1.time_emb_proj.bias" in message
    assert "--allow-missing" in message
    unet, report = load_videomv_report(path, "text", allow_missing=True, **MADE_UP)
    assert len(report.unknown) == 2
    assert report.missing == ("unet.mid_block.resnets.1.time_emb_proj.bias",)
    assert report.used == len(tensors) - 2
    expected = tensors["time_embed.0.weight"]
    assert torch.equal(unet.unet.time_embedding.linear_1.weight, expected)


def test_a_base_without_cameras_needs_to_be_allowed(videomv_layout, tmp_path):
    """ModelScope's own files: the camera MLP then starts at zero."""
    tensors = made_up(videomv_layout, "text")
    bare = {key: value for key, value in tensors.items() if not key.startswith("camera_embedding.")}
    torch.save(bare, tmp_path / "base.pth")
    with pytest.raises(InputError, match=r"4 tensors not in the file: camera_embedding\.0\.bias"):
        load_videomv(tmp_path / "base.pth", **MADE_UP)
    unet = load_videomv(tmp_path / "base.pth", allow_missing=True, **MADE_UP)
    assert unet.camera_embedding(torch.randn(1, 2, 16)).abs().max() == 0


@pytest.mark.parametrize("variant", ["text", "image"])
def test_load_and_export_are_inverse(variant, videomv_layout, tmp_path):
    tensors = made_up(videomv_layout, variant)
    torch.save(tensors, tmp_path / "there.pth")
    export_videomv(load_videomv(tmp_path / "there.pth", variant, **MADE_UP), tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], value) for key, value in tensors.items())


def test_half_precision_and_safetensors_files(videomv_layout, tmp_path):
    tensors = {key: value.half() for key, value in made_up(videomv_layout, "image").items()}
    save_file(tensors, tmp_path / "i2v.safetensors")
    unet = load_videomv(tmp_path / "i2v.safetensors", "image", **MADE_UP)
    assert unet.dtype == torch.float32
    expected = tensors["input_blocks.0.0.weight"].float()
    assert torch.equal(unet.unet.conv_in.weight[:, 4:], 2 * expected[:, 4:])
    assert torch.equal(unet.unet.conv_in.weight[:, :4], expected[:, :4])
    qkv = tensors["local_temporal_encoder.layers.0.0.fn.to_qkv.weight"].float()
    assert torch.equal(unet.unet.image_latents_temporal_encoder.attn1.to_k.weight, qkv[8:16])


class RunsCode:
    def __reduce__(self):
        return (print, ("code from a checkpoint ran",))


def test_wrong_files_are_refused_in_one_line(videomv_layout, tmp_path, capsys):
    text = made_up(videomv_layout, "text")
    torch.save(text, tmp_path / "text.pth")
    torch.save({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "vae.pth")
    torch.save({"visual.proj": torch.zeros(1)}, tmp_path / "clip.bin")
    torch.save({"down_blocks.0.resnets.0.norm1.weight": torch.zeros(1)}, tmp_path / "diffusers.bin")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save({"state_dict": {"a": "text"}}, tmp_path / "strings.pth")
    torch.save({"state_dict": text, "hook": RunsCode()}, tmp_path / "code.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    (tmp_path / "short.pth").write_bytes((tmp_path / "text.pth").read_bytes()[:5000])
    (tmp_path / "nothing.pth").write_bytes(b"")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (tmp_path / "bad.safetensors").write_bytes(b"12345678{}")
    for name, match in {
        "gone.pth": "no such file",
        ".": "is a folder",
        "vae.pth": "holds an autoencoder",
        "clip.bin": "holds an OpenCLIP model",
        "diffusers.bin": "holds a diffusers UNet",
        "list.pth": "holds a list",
        "empty.pth": "it is empty",
        "strings.pth": "'a' is no tensor",
        "code.pth": "since that would run their code",
        "page.pth": "not a PyTorch checkpoint",
        "short.pth": "not a PyTorch checkpoint",
        "nothing.pth": "not a PyTorch checkpoint",
        "pickle.pth": "not a PyTorch checkpoint|it is empty",
        "bad.safetensors": "not a readable safetensors file",
    }.items():
        with pytest.raises(InputError, match=match) as caught:
            load_videomv(tmp_path / name, **MADE_UP)
        assert "\n" not in str(caught.value), name
    assert "code from a checkpoint ran" not in capsys.readouterr().out
    with pytest.raises(InputError, match="is a text network; load it with variant 'text', not 'image'"):
        load_videomv(tmp_path / "text.pth", "image", **MADE_UP)
    with pytest.raises(InputError, match="another size"):
        load_videomv(tmp_path / "text.pth", **{**MADE_UP, "attention_head_dim": 16})


def test_networks_the_layout_cannot_hold_are_not_exported(small_unet, tmp_path):
    with pytest.raises(InputError, match="more than the 16 numbers"):
        export_videomv(small_unet(camera_harmonics=2), tmp_path / "x.pth")
    numbered = small_unet(frame_index_embedding=True)
    assert any(name.startswith("frame_embedding.") for name in export_videomv(numbered, tmp_path / "x.pth"))
