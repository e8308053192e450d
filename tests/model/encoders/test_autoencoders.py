"""Autoencoders: the pixel one is exact, Stable Diffusion's layout maps onto diffusers' key by key."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.encoders.autoencoders import (
    SD_F8,
    KLAutoencoder,
    PixelAutoencoder,
    load_autoencoder,
    load_vqgan,
    vae_rules,
)
from orbit4d.model.encoders.text_and_image import load_image_encoder, load_text_encoder
from orbit4d.model.weights import hub
from orbit4d.model.weights.keymap import rename

SMALL = {"block_out_channels": (16, 32, 64, 64), "norm_num_groups": 8, "layers_per_block": 1}


def published_vae(ch=128, mult=(1, 2, 4, 4), blocks=2, z=4):
    """Every key and shape of Stable Diffusion's first stage, from the description of its config
    (ch 128, ch_mult 1 2 4 4, num_res_blocks 2, attention in the middle alone, double_z, embed_dim 4)."""
    shapes = {}

    def put(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def residual(name, into, out):
        put(f"{name}.norm1", into)
        put(f"{name}.conv1", out, into, 3, 3)
        put(f"{name}.norm2", out)
        put(f"{name}.conv2", out, out, 3, 3)
        if into != out:
            put(f"{name}.nin_shortcut", out, into, 1, 1)

    def middle(half, width):
        residual(f"{half}.mid.block_1", width, width)
        residual(f"{half}.mid.block_2", width, width)
        put(f"{half}.mid.attn_1.norm", width)
        for name in ("q", "k", "v", "proj_out"):
            put(f"{half}.mid.attn_1.{name}", width, width, 1, 1)

    put("encoder.conv_in", ch, 3, 3, 3)
    now = ch
    for level, m in enumerate(mult):
        for i in range(blocks):
            residual(f"encoder.down.{level}.block.{i}", now, ch * m)
            now = ch * m
        if level < len(mult) - 1:
            put(f"encoder.down.{level}.downsample.conv", now, now, 3, 3)
    middle("encoder", now)
    put("encoder.norm_out", now)
    put("encoder.conv_out", 2 * z, now, 3, 3)
    put("decoder.conv_in", now, z, 3, 3)
    middle("decoder", now)
    for level in reversed(range(len(mult))):
        for i in range(blocks + 1):
            residual(f"decoder.up.{level}.block.{i}", now, ch * mult[level])
            now = ch * mult[level]
        if level > 0:
            put(f"decoder.up.{level}.upsample.conv", now, now, 3, 3)
    put("decoder.norm_out", now)
    put("decoder.conv_out", 3, now, 3, 3)
    put("quant_conv", 2 * z, 2 * z, 1, 1)
    put("post_quant_conv", z, z, 1, 1)
    return shapes


@pytest.fixture(scope="module")
def small_vqgan():
    generator = torch.Generator().manual_seed(0)
    shapes = published_vae(ch=16, mult=(1, 2, 4, 4), blocks=1)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_pixels_come_back_exactly(factor):
    autoencoder = load_autoencoder(f"unshuffle:{factor}")
    levels = torch.arange(256).repeat(48)[: 2 * 3 * 3 * 16 * 32]
    frames = levels[torch.randperm(levels.numel(), generator=torch.Generator().manual_seed(0))]
    frames = frames.reshape(2, 3, 3, 16, 32) / 255.0
    latents = autoencoder.encode_video(frames)
    assert latents.shape == (2, autoencoder.channels, 3, 16 // factor, 32 // factor)
    assert autoencoder.channels == 3 * factor**2
    assert -1 <= latents.min() < latents.max() <= 1
    back = autoencoder.decode_video(latents)
    assert torch.equal((back * 255).round(), (frames * 255).round())
    torch.testing.assert_close(back, frames, rtol=0, atol=1e-7)


def test_small_vqgan_file_runs_as_the_original_network(small_vqgan, tmp_path):
    """diffusers' own converter is the oracle; ours adds that nothing is lost on the way."""
    torch.save({"state_dict": small_vqgan}, tmp_path / "vae.ckpt")
    vae = load_vqgan(tmp_path / "vae.ckpt", **SMALL)
    expected = convert_ldm_vae_checkpoint(dict(small_vqgan), dict(vae.config))
    assert set(expected) == set(vae.state_dict())
    for key, value in vae.state_dict().items():
        assert torch.equal(value, expected[key]), key
    frames = torch.rand(1, 2, 3, 16, 16)
    autoencoder = KLAutoencoder(vae)
    assert (autoencoder.channels, autoencoder.factor) == (4, 8)
    latents = autoencoder.encode_video(frames)
    assert latents.shape == (1, 4, 2, 2, 2)
    assert autoencoder.decode_video(latents).shape == frames.shape


def test_full_size_vqgan_layout_is_the_published_one():
    shapes = published_vae()
    with torch.device("meta"):
        vae = AutoencoderKL(
            **SD_F8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        source = {key: torch.empty(shape) for key, shape in shapes.items()}
    converted, unknown = rename(source, vae_rules(4, 2))
    assert unknown == []
    assert len(shapes) == 248
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in vae.state_dict().items()
    }


def test_prefixed_training_files_are_taken_apart(small_vqgan, tmp_path):
    whole = {f"first_stage_model.{key}": value for key, value in small_vqgan.items()}
    whole["model.diffusion_model.out.2.weight"] = torch.zeros(3)
    whole["first_stage_model.loss.logvar"] = torch.zeros(())
    torch.save({"state_dict": whole}, tmp_path / "sd.ckpt")
    torch.save(small_vqgan, tmp_path / "bare.pth")
    a, b = (load_vqgan(tmp_path / name, **SMALL) for name in ("sd.ckpt", "bare.pth"))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_faults_in_the_file_are_listed(small_vqgan, tmp_path):
    broken = dict(small_vqgan)
    broken["decoder.mid.attn_2.q.weight"] = torch.zeros(3)
    broken["quant_conv.weight"] = torch.zeros(8, 9, 1, 1)
    del broken["encoder.conv_out.bias"]
    torch.save(broken, tmp_path / "vae.pth")
    with pytest.raises(InputError) as caught:
        load_vqgan(tmp_path / "vae.pth", **SMALL)
    for part in (
        "1 unknown keys: decoder.mid.attn_2.q.weight",
        "1 tensors not in the file: encoder.conv_out.bias",
        "1 of another shape: quant_conv.weight",
    ):
        assert part in str(caught.value)
    torch.save({"input_blocks.0.0.weight": torch.zeros(1)}, tmp_path / "unet.pth")
    with pytest.raises(InputError, match="holds a VideoMV / VGen UNet, not a VAE"):
        load_autoencoder(tmp_path / "unet.pth")


def test_chunks_and_scale_do_not_change_latents(small_vqgan, tmp_path):
    torch.save(small_vqgan, tmp_path / "vae.pth")
    vae = load_vqgan(tmp_path / "vae.pth", **SMALL)
    frames = torch.rand(5, 3, 16, 16)
    once, twice = KLAutoencoder(vae, chunk=5).encode(frames), KLAutoencoder(vae, chunk=2).encode(frames)
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-5)
    with torch.no_grad():
        mode = vae.encode(frames * 2 - 1).latent_dist.mode()
        decoded = vae.decode(mode).sample
    torch.testing.assert_close(once, mode * 0.18215)
    torch.testing.assert_close(KLAutoencoder(vae).decode(once) * 2 - 1, decoded, rtol=1e-4, atol=1e-4)
    drawn = KLAutoencoder(vae).encode(frames, torch.Generator().manual_seed(0))
    assert not torch.allclose(drawn, once)
    assert torch.equal(drawn, KLAutoencoder(vae).encode(frames, torch.Generator().manual_seed(0)))


def test_hash_follows_whatever_changes_latents(small_vqgan, tmp_path):
    torch.save(small_vqgan, tmp_path / "a.pth")
    changed = dict(small_vqgan)
    changed["quant_conv.bias"] = small_vqgan["quant_conv.bias"] + 1e-6
    torch.save(changed, tmp_path / "b.pth")
    torch.save({"state_dict": small_vqgan}, tmp_path / "c.pth")
    a, b, c = (KLAutoencoder(load_vqgan(tmp_path / f"{n}.pth", **SMALL)).config_hash for n in "abc")
    rescaled = KLAutoencoder(load_vqgan(tmp_path / "a.pth", **SMALL, scaling_factor=1.0)).config_hash
    assert a == c
    assert len({a, b, rescaled, PixelAutoencoder(2).config_hash, PixelAutoencoder(4).config_hash}) == 5


def test_folders_and_pipeline_folders_load(small_vqgan, tmp_path):
    torch.save(small_vqgan, tmp_path / "vae.pth")
    vae = load_vqgan(tmp_path / "vae.pth", **SMALL)
    vae.save_pretrained(tmp_path / "alone")
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "empty").mkdir()
    expected = KLAutoencoder(vae).config_hash
    assert load_autoencoder(tmp_path / "alone").config_hash == expected
    assert load_autoencoder(tmp_path / "pipeline").config_hash == expected
    with pytest.raises(InputError, match=r"empty: holds no autoencoder \(looked for config.json, vae/config"):
        load_autoencoder(tmp_path / "empty")


def test_folders_with_holes_are_refused(small_vqgan, tmp_path):
    """The library would fill them with random weights and a warning."""
    torch.save(small_vqgan, tmp_path / "vae.pth")
    load_vqgan(tmp_path / "vae.pth", **SMALL).save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    config["layers_per_block"] = 2
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="of its tensors are missing"):
        load_autoencoder(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be read as the autoencoder"):
        load_autoencoder(tmp_path / "vae")


def test_an_unreachable_hub_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(hub, "_offline", lambda: True)
    with pytest.raises(InputError) as caught:
        load_autoencoder("nobody-here/no-such-vae")
    assert "nobody-here/no-such-vae: no such folder here, and the Hugging Face hub" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "instead"),
    [
        (load_autoencoder, "--vae FOLDER of a download, or --vae VQGAN_autoencoder.pth"),
        (load_text_encoder, "--text-encoder open_clip_pytorch_model.bin"),
        (load_image_encoder, "--image-encoder open_clip_pytorch_model.bin"),
    ],
)
def test_an_unreachable_hub_names_the_option_and_what_it_takes(monkeypatch, load, instead):
    """And the option is there, in both commands that make latents."""
    from orbit4d.model.cli import encode as encode_cli
    from orbit4d.model.cli import train as train_cli

    monkeypatch.setattr(hub, "_offline", lambda: True)
    with pytest.raises(InputError) as caught:
        load("nobody-here/no-such-part")
    assert instead in str(caught.value)
    for command in (encode_cli.encode, train_cli.train):
        assert instead.split()[0] in [name for option in command.params for name in option.opts]


def test_a_hub_out_of_dns_is_noticed_without_waiting(monkeypatch):
    def no_dns(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub.socket, "getaddrinfo", no_dns)
    monkeypatch.setattr(hub, "getproxies", dict)
    assert hub._offline()
    monkeypatch.setattr(hub.socket, "getaddrinfo", lambda *_: [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert not hub._offline()


def test_bad_names_and_sizes_are_named():
    for spec, match in (
        ("", "no autoencoder is named"),
        ("unshuffle:two", "expected unshuffle:N"),
        ("unshuffle:0", "must be 1 or more"),
        ("vae.pth", "no such file or folder, and no hub name"),
    ):
        with pytest.raises(InputError, match=match):
            load_autoencoder(spec)
    with pytest.raises(ValueError, match="multiples of 4, got 16 x 30"):
        load_autoencoder("unshuffle:4").encode_video(torch.rand(1, 2, 3, 16, 30))
