"""Stable Video Diffusion (SVD, SVD-XT) from diffusers, sampled by `guided_sample`.

Without guidance it is `StableVideoDiffusionPipeline` to the bit: the pipeline's own parts encode, and its
scheduler steps; the loop is ours. Weights are the user's: none is shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    StableVideoDiffusionPipeline,
)
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.models.video_model import (
    Floats,
    Pixels,
    Tick,
    as_image,
    as_pixels,
    check_size,
    device_and_type,
    hub,
    licence_of,
    nearest_step,
    run_guide,
    untrained,
)
from orbit4d.model.guided.sampler import Guide
from orbit4d.model.guided.schedules import DiffusersSchedule, Levels
from orbit4d.model.weights.quiet import quiet

#: The conditions of the published models: frame rate less 1, motion bucket, noise on the first view.
FPS_ID, MOTION_BUCKET, NOISE_AUGMENTATION = 6, 127, 0.02
#: Classifier-free guidance, linear over the frames.
LEAST_GUIDANCE, MOST_GUIDANCE = 1.0, 3.0
#: Frames that the autoencoder takes at once.
CHUNK = 8


class SVD:
    """`VideoModel` of a StableVideoDiffusionPipeline."""

    kind = "svd"
    factor = scale = 8
    temporal = 1
    steps = 25
    background = (255, 255, 255)

    def __init__(self, pipeline: Any, licence: str = "") -> None:
        self.pipeline, self.licence = pipeline, licence
        self.scale = self.factor = int(pipeline.vae_scale_factor)
        self.frames = int(pipeline.unet.config.num_frames)
        edge = int(pipeline.unet.config.sample_size) * self.scale
        # The published folders name 96, with which the pipeline is called at 1024 x 576.
        self.size = (1024, 576) if edge == 768 else (edge, edge)
        self.prior = "random weights" if untrained(pipeline.unet) else "user's weights"
        with quiet():
            pipeline.vae.to(torch.float32)

    @classmethod
    def load(cls, name: str) -> SVD:
        """From a folder or by hub name. InputError where that is not there."""
        device, dtype = device_and_type()
        with hub(name):
            pipeline = StableVideoDiffusionPipeline.from_pretrained(name, dtype=dtype)
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, licence_of(name))

    def check(self, frames: int, size: tuple[int, int], cameras: Sequence[Camera]) -> None:
        """InputError for another number of frames, or a size that latents do not divide."""
        check_size(size, self.factor)
        if frames != self.frames:
            raise InputError(f"--frames {frames}: this model makes {self.frames} frames")

    def levels(self, steps: int, size: tuple[int, int] = (0, 0)) -> Levels:
        """Karras levels [N + 1], 700 to 0.002 and 0."""
        self.pipeline.scheduler.set_timesteps(steps)
        return DiffusersSchedule(self.pipeline.scheduler).sigmas

    @torch.no_grad()
    def encode(self, frames: Floats) -> Tensor:
        """Frames [F, H, W, 3] in [0, 1] to scaled latents [1, 4, F, h, w]: the mode, in float32."""
        vae = self.pipeline.vae
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() * 2 - 1
        parts = [
            vae.encode(video[i : i + CHUNK].to(vae.device)).latent_dist.mode().float().cpu()
            for i in range(0, len(video), CHUNK)
        ]
        return (torch.cat(parts) * vae.config.scaling_factor).transpose(0, 1)[None]

    @torch.no_grad()
    def sample(
        self, first: Floats, cameras: Sequence[Camera], guide: Guide, steps: int, seed: int, tick: Tick
    ) -> Tensor:
        """Latents [1, 4, F, h, w]; the cameras reach this model through the guide alone."""
        pipeline = self.pipeline
        generator = torch.Generator().manual_seed(seed)
        denoiser = SVDDenoiser.of(pipeline, first, generator)
        pipeline.scheduler.set_timesteps(steps, device=pipeline.device)
        height, width = first.shape[:2]
        noise = pipeline.prepare_latents(
            1, self.frames, pipeline.unet.config.in_channels, height, width, denoiser.dtype, pipeline.device,
            generator,
        )  # fmt: skip

        schedule = DiffusersSchedule(pipeline.scheduler)
        return run_guide(guide, denoiser, schedule, noise.transpose(1, 2), generator, tick)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pixels:
        """Frames [F, H, W, 3] of latents, in chunks of 8."""
        vae = self.pipeline.vae
        moved = latents.transpose(1, 2).to(vae.device, vae.dtype)
        video = self.pipeline.decode_latents(moved, self.frames, CHUNK)
        return as_pixels(video[0])


class SVDDenoiser:
    """The network with its conditions and classifier-free guidance, as the denoiser of `guided_sample`."""

    def __init__(self, pipeline: Any, tokens: Tensor, image: Tensor, time_ids: Tensor, frames: int) -> None:
        self.pipeline, self.tokens, self.image, self.time_ids = pipeline, tokens, image, time_ids
        self.dtype: torch.dtype = tokens.dtype
        ramp = torch.linspace(LEAST_GUIDANCE, MOST_GUIDANCE, frames).to(tokens.device, tokens.dtype)
        self.ramp = ramp.view(1, -1, 1, 1, 1)
        self.evaluations = 0

    @classmethod
    def of(cls, pipeline: Any, first: Floats, generator: torch.Generator) -> SVDDenoiser:
        """Conditioned on a first view [H, W, 3] in [0, 1]; draws the noise that is added to it."""
        device, frames = pipeline.device, int(pipeline.unet.config.num_frames)
        view = as_image(first)
        tokens = pipeline._encode_image(view, device, 1, True)
        height, width = first.shape[:2]
        image = pipeline.video_processor.preprocess(view, height=height, width=width)
        noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
        noisy = (image + NOISE_AUGMENTATION * noise).to(device)
        latents = pipeline._encode_vae_image(noisy, device, 1, True).to(tokens.dtype)
        repeated = latents.unsqueeze(1).repeat(1, frames, 1, 1, 1)
        ids = pipeline._get_add_time_ids(
            FPS_ID, MOTION_BUCKET, NOISE_AUGMENTATION, tokens.dtype, 1, 1, True
        ).to(device)
        return cls(pipeline, tokens, repeated, ids, frames)

    def output(self, x: Tensor, i: int) -> Tensor:
        """What the network predicts for the state x [1, 4, F, h, w] before step i."""
        without, given = self._network(x, i, self.image, slice(None)).chunk(2)
        return (without + self.ramp * (given - without)).transpose(1, 2)

    def conditional(self, x: Tensor, sigma: float) -> Tensor:
        """The clean estimate of the conditioned branch alone."""
        return self._clean(x, sigma, self.image)

    def conditional_window(self, x: Tensor, sigma: float, rows: slice, columns: slice) -> Tensor:
        """The same for a window of the latents, of which the network sees nothing else."""
        return self._clean(x, sigma, self.image[..., rows, columns])

    def _clean(self, x: Tensor, sigma: float, image: Tensor) -> Tensor:
        schedule = DiffusersSchedule(self.pipeline.scheduler)
        i = nearest_step(schedule, sigma)
        output = self._network(x, i, image, slice(1, 2)).transpose(1, 2)
        return schedule.to_x0(output.to(x.dtype), i, x)

    def _network(self, x: Tensor, i: int, image: Tensor, branches: slice) -> Tensor:
        """[branches, F, 4, h, w]; the first branch has no condition, the second has the view."""
        scheduler = self.pipeline.scheduler
        t = scheduler.timesteps[i]
        image, tokens, ids = image[branches], self.tokens[branches], self.time_ids[branches]
        state = torch.cat([x.to(self.dtype).transpose(1, 2)] * len(image))
        scaled = torch.cat([scheduler.scale_model_input(state, t), image], dim=2)
        self.evaluations += 1
        output: Tensor = self.pipeline.unet(
            scaled, t, encoder_hidden_states=tokens, added_time_ids=ids, return_dict=False
        )[0]
        return output
