"""What an `OrbitPipeline` is asked for, encoded once: conditions, cameras, motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.diffusion.guidance import Conditions
from orbit4d.model.encoders.frozen import FrozenParts, image_source
from orbit4d.model.network.cameras import shown_frames, videomv_cameras
from orbit4d.model.orbits.network import video_condition
from orbit4d.model.sampling.frame_types import frames_to_tensor


@dataclass(frozen=True)
class Asked:
    """What a pipeline was asked for, encoded."""

    count: int
    """Number of videos."""
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
    full = _conditions(pipeline, parts, image, prompt, static, motion, cameras, count, device)
    negative = source = None
    if parts.text is not None:
        negative = parts.tokens([parts.spec.negative_prompt]).to(device, pipeline.unet.dtype)
    if pipeline.config.residual:
        how = pipeline.unet.config.first_view
        source = image_source(full.static_latents, full.image_latents, len(cameras), how)
    return Asked(count, full, negative, source)


def _conditions(
    pipeline: Any,
    parts: FrozenParts,
    image: Any,
    prompt: str | None,
    static: Any,
    motion: Any,
    cameras: list[Camera],
    count: int,
    device: torch.device,
) -> Conditions:
    """The conditioned branch, repeated for every video."""
    if shown_frames(len(cameras), parts.autoencoder.time_factor) > len(cameras):
        cameras = [*cameras, cameras[0]]
    values: dict[str, Any] = {"camera": videomv_cameras(cameras)[None]}
    if parts.text is not None:
        caption = (
            f"{pipeline.config.caption_prefix}{prompt}{pipeline.config.caption_suffix}" if prompt else ""
        )
        if prompt is None and pipeline.unet.config.variant == "text":
            raise InputError("this model was trained on captions: give a text")
        if prompt and not pipeline.config.captions:
            raise InputError("this model was trained without captions: give an image or a static orbit")
        values["encoder_hidden_states"] = parts.tokens([caption])
    elif prompt:
        raise InputError("this model was trained without a text encoder: give an image or a static orbit")
    video = parts.spec.first_view == "video" and pipeline.unet.config.variant != "text"
    if video:
        values |= _video(pipeline, parts, image, prompt, static, device)
    elif pipeline.unet.config.variant != "text":
        values |= _visual(pipeline, parts, image, static, device)
    elif image is not None or static is not None:
        raise InputError("this model was trained on captions alone: give a text")
    # In float32: the network takes its own precision where it uses them.
    moved = {k: v.to(device).expand(count, *v.shape[1:]) for k, v in values.items()}
    if motion is not None:
        known = list(motion) if isinstance(motion, Sequence) else [motion] * count
        moved["motion"] = torch.tensor([float("nan") if m is None else m for m in known], device=device)
    return Conditions(**moved)


def _visual(
    pipeline: Any, parts: FrozenParts, image: Any, static: Any, device: torch.device
) -> dict[str, Any]:
    values: dict[str, Any] = {"fps": torch.full((1,), float(parts.spec.fps))}
    if static is not None:
        if not pipeline.takes_static:
            raise InputError("this model was not trained on static orbits: give its first view as an image")
        frames = frames_to_tensor(static, pipeline.config.resolution)[None]
        if frames.shape[1] != pipeline.config.frames:
            raise InputError(f"the static orbit needs {pipeline.config.frames} frames, got {frames.shape[1]}")
        values["static_latents"] = parts.to_latents(frames, device)
    elif pipeline.unet.config.variant == "static3d":
        raise InputError("this model animates static orbits: give a static orbit")
    elif image is None:
        raise InputError("this model starts from an image: give an image")
    else:
        pixels = np.asarray(image) if isinstance(image, Image.Image) else image
        frames = frames_to_tensor(pixels[None], pipeline.config.resolution)[None]
        values["image_latents"] = parts.to_latents(frames, device)[:, :, 0]
    if parts.image is not None:
        values["image_embeddings"] = parts.image_vectors(frames[:, 0].to(device))
    return values


def _video(
    pipeline: Any, parts: FrozenParts, image: Any, prompt: str | None, static: Any, device: torch.device
) -> dict[str, Any]:
    """What a Wan base is shown: a static orbit, a first view, or with a caption alone nothing."""
    count, size = pipeline.config.frames, pipeline.config.resolution
    shown = shown_frames(count, parts.autoencoder.time_factor)
    if static is not None:
        if not pipeline.takes_static:
            raise InputError("this model was not trained on static orbits: give its first view as an image")
        frames = frames_to_tensor(static, size)[None]
        if frames.shape[1] != count:
            raise InputError(f"the static orbit needs {count} frames, got {frames.shape[1]}")
        closed = torch.cat([frames, frames[:, :1]], dim=1)[:, :shown]
        return {"image_latents": video_condition(parts.to_latents(closed, device), _one(True, device))}
    if pipeline.unet.config.variant == "static3d":
        raise InputError("this model animates static orbits: give a static orbit")
    if image is None and not prompt:
        raise InputError("this model starts from an image or a text: give one of them")
    if image is None:
        first = torch.full((1, shown, 3, size, size), 0.5)
        given = _one(False, device)
    else:
        pixels = np.asarray(image) if isinstance(image, Image.Image) else image
        first = frames_to_tensor(pixels[None], size)[None].expand(-1, shown, -1, -1, -1)
        given = _one(True, device)
    latents = parts.first_view_latents(first, device)
    return {"image_latents": video_condition(latents, _one(False, device), given)}


def _one(value: bool, device: torch.device) -> torch.Tensor:
    return torch.tensor([value], device=device)
