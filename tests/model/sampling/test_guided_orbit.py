"""OrbitPipeline samples through the one loop: to the bit as its scheduler alone, and pulled by a warp."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model import GuidanceWeights, OrbitPipeline
from orbit4d.model.diffusion.losses import residual_estimate
from orbit4d.model.encoders.frozen import image_source
from orbit4d.model.guided.modes import Settings
from orbit4d.model.guided.sampler import RULES, Guide
from orbit4d.model.sampling.guided_orbit import OrbitRun, load_video_model
from orbit4d.model.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_dataset, micro_config):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("guided") / "run"
    train(micro_config("optim.lr=0.01", "optim.optimizer=adamw"), str(synthetic_dataset), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(run):
    return OrbitPipeline.of_folder(run)


def view(size=16, seed=0):
    return np.random.default_rng(seed).random((size, size, 3)).astype(np.float32)


@torch.no_grad()
def plain_loop(pipeline, noise, image, steps):
    """DDIM as diffusers' users write it: the scheduler's own steps on the networks' guided output."""
    full = pipeline._conditions(pipeline.parts, image, None, None, 0.01, pipeline.orbit(), 1, noise.device)
    weights = GuidanceWeights(pipeline.config.w1, pipeline.config.w2, pipeline.config.w_motion)
    source = None
    if pipeline.config.residual:
        source = image_source(full.static_latents, full.image_latents, 4, pipeline.unet.config.first_view)
    pipeline.scheduler.set_timesteps(steps)
    z = noise
    for t in pipeline.scheduler.timesteps:
        output, _ = pipeline._guided(z, t.expand(1), full, None, weights, None)
        if source is not None:
            spread = pipeline.config.residual
            output = residual_estimate(pipeline.scheduler, output, source, z, t.expand(1), spread)
        z = pipeline.scheduler.step(output, t, z, return_dict=False)[0]
    return z


def test_without_a_guide_it_is_the_plain_loop_to_the_bit(pipeline):
    noise = torch.randn(1, 48, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    theirs = plain_loop(pipeline, noise, view(), 5)
    settings = {"latents": noise, "num_inference_steps": 5, "output_type": "latent", "motion": 0.01}
    assert torch.equal(pipeline(image=view(), **settings).frames, theirs)
    warp, seen = torch.zeros(1, 48, 4, 4, 4), torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    for mode in (*RULES, "none"):
        guide = Guide(warp, seen, np.zeros((5, 4)), mode)
        assert torch.equal(pipeline(image=view(), guide=guide, **settings).frames, theirs), mode
        assert guide.evaluations == [5]


def test_every_mode_runs_and_full_weight_gives_the_warp(run):
    model = load_video_model(str(run))
    assert model.kind == "orbit4d" and model.prior == "trained here" and model.frames == 4
    frames = np.stack([view(seed=k) for k in range(4)])
    warp = model.encode(frames)
    seen = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    seen[..., :2] = True
    cameras = model.pipeline.orbit()
    for mode in RULES:
        guide = Guide(warp, seen, 1.0, mode, Settings(iterations=1))
        latents = model.sample(frames[0], cameras, guide, 3, 0, lambda i: None)
        assert torch.isfinite(latents).all(), mode
        if mode == "dgs":
            # VideoMV's last level is above 0: a rest of the noise stays on the clean estimate.
            away = (latents - warp)[..., :2].abs().mean() / (latents - warp)[..., 2:].abs().mean()
            assert away < 0.3
    assert model.decode(latents).shape == (4, 16, 16, 3)


def test_other_frames_sizes_and_lenses_are_refused(run):
    model = OrbitRun.load(str(run))
    cameras = model.pipeline.orbit()
    model.check(4, (16, 16), cameras)
    with pytest.raises(InputError, match="4 frames"):
        model.check(5, (16, 16), cameras)
    with pytest.raises(InputError, match="16x16"):
        model.check(4, (32, 32), cameras)
    with pytest.raises(InputError, match="radius"):
        model.check(4, (16, 16), [camera_at(c, 1.3) for c in cameras])


def camera_at(camera, factor):
    from dataclasses import replace

    c2w = camera.c2w.copy()
    c2w[:3, 3] *= factor
    return replace(camera, c2w=c2w)
