"""Frames between the types that callers of the pipeline give and take, and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from orbit4d.datasets.images.resize import smooth


def frames_to_tensor(frames: npt.NDArray[Any] | Tensor, size: int) -> Tensor:
    """[F, H, W, 3] arrays (uint8 or float) or [F, 3, H, W] tensors to [F, 3, size, size] float32 in [0,
    1]."""
    if isinstance(frames, np.ndarray):
        scale = 255.0 if frames.dtype == np.uint8 else 1.0
        frames = torch.from_numpy(np.ascontiguousarray(frames[..., :3])).permute(0, 3, 1, 2).float() / scale
    frames = frames.float()
    if frames.shape[-2:] != (size, size):
        frames = smooth(frames, (size, size))
    return frames


def tensor_to_frames(frames: Tensor, output_type: str) -> Any:
    """Frames [B, F, 3, H, W] in [0, 1] as `output_type`: pt, np, uint8 or pil; latents pass as "latent".

    Raises ValueError for any other type.
    """
    if output_type in ("pt", "latent"):
        return frames
    array = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    if output_type == "np":
        return array
    array = np.rint(array * 255).astype(np.uint8)
    if output_type == "uint8":
        return array
    if output_type == "pil":
        return [[Image.fromarray(frame) for frame in video] for video in array]
    raise ValueError(f"output_type must be np, uint8, pil, pt or latent, got {output_type!r}")
