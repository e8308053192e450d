"""Published pipelines behind guided sampling: to the bit their own without guidance, and the warp with it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.models.svd import SVD, SVDDenoiser
from orbit4d.model.guided.models.video_model import licence_of, pipeline_class, untrained
from orbit4d.model.guided.models.wan import Wan
from orbit4d.model.guided.modes import Settings, tiles
from orbit4d.model.guided.sampler import RULES, Guide
from orbit4d.model.sampling.guided_orbit import load_video_model
from orbit4d.model.weights.quiet import quiet


@pytest.fixture(scope="module")
def svd(tiny_svd):
    return SVD.load(str(tiny_svd))


@pytest.fixture(scope="module")
def wan(tiny_wan):
    return Wan.load(str(tiny_wan))


def view(size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3)).astype(np.float32) / 255


def no_guide(model, frames, size=64):
    latent = (frames - 1) // model.temporal + 1
    edge = size // model.scale
    c = 4 if model.kind == "svd" else 16
    warp = torch.zeros(1, c, latent, edge, edge)
    return Guide(warp, torch.ones(1, 1, latent, edge, edge, dtype=torch.bool), 0.0)


def sampled(model, guide, steps=3, size=64):
    cameras = orbit(model.frames, size=(size, size))
    return model.sample(view(size), cameras, guide, steps, 0, lambda i: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_svd_without_guidance_is_the_published_pipeline_to_the_bit(tiny_svd, dtype):
    from diffusers import StableVideoDiffusionPipeline

    pipeline = StableVideoDiffusionPipeline.from_pretrained(tiny_svd, dtype=dtype)
    pipeline.vae.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.rint(view() * 255).astype(np.uint8))
    theirs = pipeline(
        image, height=64, width=64, num_inference_steps=3, output_type="latent", fps=7,
        generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    model = SVD(pipeline)
    for mode in ("dgs", "worldforge"):
        guide = no_guide(model, 4)
        ours = sampled(model, Guide(guide.warp, guide.seen, 0.0, mode))
        assert torch.equal(ours.transpose(1, 2), theirs.float())


def test_wan_without_guidance_is_the_published_pipeline_to_the_bit(wan):
    image = Image.fromarray(np.rint(view() * 255).astype(np.uint8))
    wan._set(3, (64, 64))
    tokens = wan.text_tokens("")
    theirs = wan.pipeline(
        image, prompt_embeds=tokens, negative_prompt_embeds=tokens, height=64, width=64, num_frames=9,
        num_inference_steps=3, output_type="latent", generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    assert torch.equal(sampled(wan, no_guide(wan, 9)), theirs)


def test_every_mode_runs_and_full_weight_gives_the_warp(svd):
    frames = np.stack([view(seed=k) for k in range(4)])
    warp = svd.encode(frames)
    seen = torch.zeros(1, 1, 4, 8, 8, dtype=torch.bool)
    seen[..., :4] = True
    for mode in RULES:
        latents = sampled(svd, Guide(warp, seen, 1.0, mode, Settings(iterations=1)), steps=2)
        assert torch.isfinite(latents).all(), mode
        if mode == "dgs":
            assert torch.allclose(latents[..., :4], warp[..., :4], atol=1e-4)
            assert not torch.allclose(latents[..., 4:], warp[..., 4:], atol=1e-2)


def test_encode_and_decode_are_the_autoencoders_own(svd, wan):
    frames = np.stack([view(seed=k) for k in range(4)])
    latents = svd.encode(frames)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        mean = svd.pipeline.vae.encode(video).latent_dist.mean * 0.18215
    assert torch.allclose(latents[0].transpose(0, 1), mean, atol=1e-5)
    assert svd.decode(latents).shape == (4, 64, 64, 3)
    many = np.stack([view(seed=k) for k in range(9)])
    assert wan.encode(many).shape == (1, 16, 3, 8, 8)
    assert wan.decode(wan.encode(many)).shape == (9, 64, 64, 3)


def test_levels_are_those_of_the_published_schedules(svd, wan):
    levels = svd.levels(25)
    assert levels[0] == pytest.approx(700.0) and levels[-2] == pytest.approx(0.002) and levels[-1] == 0
    # Shift 3 at 480p, 5 at 720p: levels of 50 steps at step 25.
    assert wan.levels(50, (832, 480))[25] == pytest.approx(3.01, abs=0.01)
    assert wan.levels(50, (1280, 720))[25] == pytest.approx(5.01, abs=0.01)


def test_svd_at_its_published_configuration_is_built_without_memory():
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20), num_frames=25)
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            latent_channels=4, layers_per_block=2, sample_size=768,
        )  # fmt: skip
    unet = unet.to("meta")
    assert sum(p.numel() for p in unet.parameters()) == 1_524_623_082
    assert len(list(unet.parameters())) == 1_428
    assert sum(p.numel() for p in vae.parameters()) == 97_742_847
    with torch.no_grad():
        out = unet(
            torch.empty(2, 25, 8, 72, 128, device="meta"), torch.empty((), device="meta"),
            torch.empty(2, 1, 1024, device="meta"), torch.empty(2, 3, device="meta"), return_dict=False,
        )[0]  # fmt: skip
    assert out.shape == (2, 25, 4, 72, 128)


def test_tiles_of_a_full_size_latent_cover_it_and_no_other():
    found = tiles(72, 128, 24)
    covered = np.zeros((72, 128), bool)
    for rows, columns in found:
        covered[rows, columns] = True
    assert covered.all() and len(found) == 4
    assert {(r.start, r.stop) for r, _ in found} == {(0, 40), (24, 72)}
    assert tiles(8, 8, 32) == [(slice(0, 8), slice(0, 8))]


def test_a_window_is_seen_by_the_network_alone(svd):
    svd.levels(3)
    denoiser = SVDDenoiser.of(svd.pipeline, view(), torch.Generator().manual_seed(0))
    x = 10 * torch.randn(1, 4, 4, 8, 8)
    sigma = float(svd.levels(3)[1])
    with torch.no_grad():
        whole = denoiser.conditional(x, sigma)
        every = denoiser.conditional_window(x, sigma, slice(0, 8), slice(0, 8))
        part = denoiser.conditional_window(x[..., :4, :4], sigma, slice(0, 4), slice(0, 4))
    assert torch.equal(whole, every)
    assert part.shape == (1, 4, 4, 4, 4) and not torch.allclose(part, whole[..., :4, :4])


def test_untrained_weights_are_told_from_trained_ones(svd, wan):
    assert svd.prior == wan.prior == "random weights"
    network = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))
    assert untrained(network)
    with torch.no_grad():
        network[0].weight[0] = 0.99
    assert not untrained(network)


def test_the_licence_is_that_of_the_card(tmp_path):
    assert licence_of(tmp_path) == ""
    card = "---\nlicense: other\nlicense_name: stable-video-diffusion-community\n---\n# text\n"
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == "stable-video-diffusion-community"


def test_what_is_no_model_is_named_in_one_line(tmp_path, tiny_svd):
    with pytest.raises(InputError, match="no such folder"):
        pipeline_class(str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"model_index\.json"):
        pipeline_class(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(InputError, match="FluxPipeline"):
        load_video_model(str(tmp_path))
    assert load_video_model(str(tiny_svd)).kind == "svd"


def test_paths_that_a_model_does_not_make_are_refused(svd, wan):
    cameras = orbit(4, size=(64, 64))
    with pytest.raises(InputError, match="4 frames"):
        svd.check(5, (64, 64), cameras)
    with pytest.raises(InputError, match="multiples of 8"):
        svd.check(4, (60, 64), cameras)
    with pytest.raises(InputError, match="multiples of 16"):
        wan.check(5, (72, 64), cameras)
    with pytest.raises(InputError, match=r"4n \+ 1"):
        wan.check(4, (64, 64), cameras)


def test_loading_is_quiet_but_for_weights():
    """Of what a library says while it loads, only errors and warnings about weights pass."""
    from diffusers.utils import logging as library

    handler = logging.getLogger("diffusers").handlers[0]
    shown = library.is_progress_bar_enabled()
    kept = []
    with quiet():
        assert not library.is_progress_bar_enabled()
        for level, text in (
            (logging.WARNING, "There are modules that should be kept in float32"),
            (logging.WARNING, "Some weights were not used or newly initialized"),
            (logging.ERROR, "broken"),
        ):
            record = logging.LogRecord("diffusers.models", level, "", 0, text, None, None)
            kept.append(bool(handler.filter(record)))
    assert kept == [False, True, True] and library.is_progress_bar_enabled() == shown
    assert handler.filter(logging.LogRecord("diffusers", logging.WARNING, "", 0, "any", None, None))
