"""One step of `OrbitPipeline` taken from outside: conditions encoded once, then clean estimates at any t.

What score distillation and hand-made samplers need; `OrbitPipeline.__call__` takes the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.diffusion.guidance import Conditions, GuidanceWeights, predict
from orbit4d.model.diffusion.losses import clean_estimate, residual_estimate
from orbit4d.model.encoders.frozen import image_source


@dataclass(frozen=True)
class Asked:
    """What a pipeline was asked for, encoded."""

    full: Conditions
    """The conditioned branch, for every video."""
    negative: Tensor | None = None
    """Tokens of the negative prompt [1, L, D]."""
    source: Tensor | None = None
    """Latents [B, C, F, h, w] that a residual run's output is added to."""


def ask(
    pipeline: Any, image: Any, prompt: str | None, static: Any,
    motion: float | Sequence[float | None] | None, cameras: Sequence[Camera] | None, num_videos: int,
) -> Asked:  # fmt: skip
    """`OrbitPipeline.conditions`: see there."""
    parts, device = pipeline.parts, pipeline._execution_device
    count = len(motion) if isinstance(motion, Sequence) else num_videos
    cameras = list(cameras) if cameras is not None else pipeline.orbit()
    frames = pipeline.config.frames
    if len(cameras) != frames:
        raise InputError(f"this model makes {frames} frames, got {len(cameras)} cameras")
    full = pipeline._conditions(parts, image, prompt, static, motion, cameras, count, device)
    negative = source = None
    if parts.text is not None:
        negative = parts.tokens([parts.spec.negative_prompt]).to(device, pipeline.unet.dtype)
    if pipeline.config.residual:
        how = pipeline.unet.config.first_view
        source = image_source(full.static_latents, full.image_latents, len(cameras), how)
    return Asked(full, negative, source)


def estimated(
    pipeline: Any, z_t: Tensor, t: Tensor, asked: Asked, guided: bool,
    weights: GuidanceWeights, max_batch: int | None,
) -> Tensor:  # fmt: skip
    """`OrbitPipeline.clean_estimate`: see there."""
    z, t = z_t.to(pipeline.device).float(), t.to(pipeline.device)
    if guided:
        output, _ = pipeline._guided(z, t, asked.full, asked.negative, weights, max_batch)
    else:
        output = predict(pipeline.unet, z.to(pipeline.unet.dtype), t, [asked.full], max_batch)[0].float()
    if asked.source is not None:
        spread = pipeline.config.residual
        output = residual_estimate(pipeline.scheduler, output, asked.source, z, t, spread)
    return clean_estimate(pipeline.scheduler, output, z, t)
