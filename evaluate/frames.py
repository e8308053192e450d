"""Frames to compare, of a dataset's clip, a video file or a folder of images: on white, float32 in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.clips import Clip
from orbit4d.datasets.errors import InputError

IMAGES = (".png", ".webp", ".jpg", ".jpeg")
VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")


@dataclass(frozen=True)
class Frames:
    """RGB on white [F, 3, H, W] and alpha [F, 1, H, W], float32 in [0, 1]."""

    rgb: Tensor
    alpha: Tensor | None

    def __len__(self) -> int:
        return len(self.rgb)


def on_white(rgba: np.ndarray) -> Frames:
    """Straight RGBA [F, H, W, 4], uint8 or float in [0, 1], composited on white."""
    values = rgba.astype(np.float32) / 255 if rgba.dtype == np.uint8 else rgba.astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2)
    alpha = pixels[:, 3:4]
    return Frames(pixels[:, :3] * alpha + 1 - alpha, alpha)


def clip_frames(clip: Clip) -> Frames:
    """Frames of a dataset's clip."""
    return on_white(clip.pixels())


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES)


def check_source(source: str) -> Path:
    """The path of a video or of a folder with images; InputError for anything else."""
    path = Path(source)
    if path.is_dir() and not images_in(path):
        raise InputError(f"{source}: no image in this folder; give a video or a folder of frames")
    if not path.exists():
        raise InputError(f"{source}: no such video, folder or DATASET:uid[:action]")
    return path


def load_frames(source: str) -> Frames:
    """Frames of a video file or a folder of images."""
    path = check_source(source)
    if path.is_dir():
        from PIL import Image

        images = [np.asarray(Image.open(file).convert("RGBA")) for file in images_in(path)]
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{source}: frames of different sizes")
        return on_white(np.stack(images))
    from orbit4d.datasets.video import read_video

    frames = read_video(path).frames
    if frames.shape[-1] == 4:
        return on_white(frames)
    return Frames(torch.from_numpy(frames.astype(np.float32) / 255).permute(0, 3, 1, 2), None)


def resized(video: Tensor, size: int) -> Tensor:
    """Square frames [F, C, H, W] at `size` pixels a side, averaged over areas."""
    if video.shape[-1] == size:
        return video
    return torch.nn.functional.interpolate(video, (size, size), mode="area")
