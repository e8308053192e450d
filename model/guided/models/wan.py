"""Wan 2.1 image-to-video from diffusers, sampled by `guided_sample`: flow matching with UniPC steps.

Weights are the user's: none is shipped. Frames come in fours after a first one, and so do latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
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

#: Classifier-free guidance of the published pipeline.
GUIDANCE = 5.0
TEXT_TOKENS = 512
#: More pixels than this are 720p, whose flow is shifted by 5, not by 3.
LARGEST_480P = 600_000


class Wan:
    """`VideoModel` of a WanImageToVideoPipeline."""

    kind = "wan"
    steps = 50
    background = (255, 255, 255)

    def __init__(self, pipeline: Any, licence: str = "", prompt: str = "") -> None:
        config = pipeline.config
        if getattr(config, "expand_timesteps", False) or getattr(config, "boundary_ratio", None) is not None:
            raise InputError("this is a Wan 2.2 pipeline; give one of Wan 2.1 image-to-video")
        self.pipeline, self.licence, self.prompt = pipeline, licence, prompt
        self.scale = int(pipeline.vae_scale_factor_spatial)
        self.temporal = int(pipeline.vae_scale_factor_temporal)
        self.factor = self.scale * int(pipeline.transformer.config.patch_size[1])
        self.frames, self.size = 81, (832, 480)
        self.prior = "random weights" if untrained(pipeline.transformer) else "user's weights"
        with quiet():
            pipeline.vae.to(torch.float32)

    @classmethod
    def load(cls, name: str) -> Wan:
        """From a folder or by hub name. InputError where that is not there."""
        device, dtype = device_and_type()
        # Half precision of this network is published as bfloat16.
        dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        with hub(name):
            pipeline = WanImageToVideoPipeline.from_pretrained(name, dtype=dtype)
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, licence_of(name))

    def check(self, frames: int, size: tuple[int, int], cameras: Sequence[Camera]) -> None:
        """InputError unless there are 4n + 1 frames, and latents divide the size."""
        check_size(size, self.factor)
        if frames % self.temporal != 1:
            raise InputError(f"--frames {frames}: this model makes 4n + 1 frames, such as 81")

    def levels(self, steps: int, size: tuple[int, int]) -> Levels:
        """Levels t / (1 - t) [N + 1] of the shifted flow; the first is 10^6, all but pure noise."""
        self._set(steps, size)
        return DiffusersSchedule(self.pipeline.scheduler).sigmas

    @torch.no_grad()
    def encode(self, frames: Floats) -> Tensor:
        """Frames [4n + 1, H, W, 3] in [0, 1] to normalised latents [1, 16, n + 1, h, w]: the mode."""
        vae = self.pipeline.vae
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() * 2 - 1
        latents: Tensor = vae.encode(video.to(vae.device)).latent_dist.mode().float().cpu()
        mean, std = self._statistics()
        return (latents - mean) / std

    @torch.no_grad()
    def sample(
        self, first: Floats, cameras: Sequence[Camera], guide: Guide, steps: int, seed: int, tick: Tick
    ) -> Tensor:
        """Latents [1, 16, f, h, w]; the cameras reach this model through the guide alone."""
        pipeline = self.pipeline
        generator = torch.Generator().manual_seed(seed)
        count = (guide.warp.shape[2] - 1) * self.temporal + 1
        self._set(steps, (first.shape[1], first.shape[0]))
        denoiser, noise = self._denoiser(first, count, generator)

        return run_guide(guide, denoiser, DiffusersSchedule(pipeline.scheduler), noise, generator, tick)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pixels:
        """Frames [F, H, W, 3] of latents."""
        vae = self.pipeline.vae
        mean, std = self._statistics()
        video = vae.decode((latents.cpu() * std + mean).to(vae.device, vae.dtype), return_dict=False)[0]
        return as_pixels(video[0])

    def _denoiser(self, first: Floats, frames: int, generator: torch.Generator) -> tuple[WanDenoiser, Tensor]:
        pipeline, device = self.pipeline, self.pipeline._execution_device
        height, width = first.shape[:2]
        dtype = pipeline.transformer.dtype
        told, without = self.text_tokens(self.prompt), self.text_tokens("")
        view = as_image(first)
        tokens = None
        if pipeline.transformer.config.image_dim is not None:
            tokens = pipeline.encode_image(view, device).to(dtype)
        image = pipeline.video_processor.preprocess(view, height=height, width=width).to(device)
        noise, condition = pipeline.prepare_latents(
            image, 1, pipeline.vae.config.z_dim, height, width, frames, torch.float32, device, generator
        )
        return WanDenoiser(pipeline, told.to(dtype), without.to(dtype), tokens, condition), noise

    @torch.no_grad()
    def text_tokens(self, prompt: str) -> Tensor:
        """Tokens [1, 512, D] of a prompt, zeros after its end. The pipeline's own way would ask for ftfy."""
        pipeline = self.pipeline
        inputs = pipeline.tokenizer(
            [prompt], padding="max_length", max_length=TEXT_TOKENS, truncation=True, add_special_tokens=True,
            return_attention_mask=True, return_tensors="pt",
        )  # fmt: skip
        ids, mask = (inputs[k].to(pipeline.text_encoder.device) for k in ("input_ids", "attention_mask"))
        tokens: Tensor = pipeline.text_encoder(ids, mask).last_hidden_state
        return (tokens * mask[..., None]).to(pipeline.device)

    def _set(self, steps: int, size: tuple[int, int]) -> None:
        shift = 5.0 if size[0] * size[1] > LARGEST_480P else 3.0
        scheduler = self.pipeline.scheduler
        if isinstance(scheduler, UniPCMultistepScheduler):
            scheduler = UniPCMultistepScheduler.from_config(scheduler.config, flow_shift=shift)
        scheduler.set_timesteps(steps, device=self.pipeline.device)
        self.pipeline.scheduler = scheduler

    def _statistics(self) -> tuple[Tensor, Tensor]:
        config = self.pipeline.vae.config
        return tuple(  # type: ignore[return-value]
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )


class WanDenoiser:
    """The network with its conditions and classifier-free guidance, as the denoiser of `guided_sample`."""

    def __init__(
        self, pipeline: Any, told: Tensor, without: Tensor, tokens: Tensor | None, condition: Tensor
    ) -> None:
        self.pipeline, self.told, self.without = pipeline, told, without
        self.tokens, self.condition = tokens, condition
        self.evaluations = 0

    def output(self, x: Tensor, i: int) -> Tensor:
        """The flow n - x0 that the network predicts for the state x [1, 16, f, h, w] before step i."""
        told = self._network(x, i, self.told)
        without = self._network(x, i, self.without)
        return without + GUIDANCE * (told - without)

    def conditional(self, x: Tensor, sigma: float) -> Tensor:
        """The clean estimate of the conditioned branch alone, at a variance-exploding state."""
        schedule = DiffusersSchedule(self.pipeline.scheduler)
        i = nearest_step(schedule, sigma)
        state = schedule.from_ve(x, i)
        return schedule.to_x0(self._network(state, i, self.told).to(x.dtype), i, state)

    def _network(self, x: Tensor, i: int, text: Tensor) -> Tensor:
        network = self.pipeline.transformer
        t = self.pipeline.scheduler.timesteps[i].expand(x.shape[0])
        self.evaluations += 1
        output: Tensor = network(
            hidden_states=torch.cat([x, self.condition.to(x)], dim=1).to(network.dtype),
            timestep=t,
            encoder_hidden_states=text,
            encoder_hidden_states_image=self.tokens,
            return_dict=False,
        )[0]
        return output
