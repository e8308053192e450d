"""Frames to compare, of a dataset's clip, a video file or a folder of images: float32 in [0, 1], on white or
on the background that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.transforms import find_transforms, read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import image_files, read_images
from orbit4d.datasets.images.over import over
from orbit4d.datasets.images.resize import area
from orbit4d.datasets.store.clip import Clip

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".m4v")


@dataclass(frozen=True)
class Frames:
    """RGB on a background [F, 3, H, W] and alpha [F, 1, H, W], float32 in [0, 1]."""

    rgb: Tensor
    alpha: Tensor | None

    def __len__(self) -> int:
        return len(self.rgb)


#: Red, green, blue in [0, 1].
Colour = Sequence[float]
WHITE: Colour = (1.0, 1.0, 1.0)


def on_background(rgba: np.ndarray, colour: Colour = WHITE) -> Frames:
    """Straight RGBA [F, H, W, 4], uint8 or float in [0, 1], composited on a colour."""
    values = rgba.astype(np.float32) / 255 if rgba.dtype == np.uint8 else rgba.astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2)
    alpha = pixels[:, 3:4]
    behind = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1)
    return Frames(over(pixels[:, :3], alpha, behind), alpha)


def clip_frames(clip: Clip, colour: Colour = WHITE) -> Frames:
    """Frames of a dataset's clip on a colour."""
    return on_background(clip.pixels(), colour)


def background_of(orbit: str | Path) -> Colour:
    """What a generated orbit stands on: the `background` in the transforms.json of its folder, else white.

    `orbit` is that folder, its frames/ or the video beside it.
    """
    record = find_transforms(orbit)
    named = read_transforms(record).background if record is not None else None
    return WHITE if named is None else named.tolist()


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder in natural order."""
    return image_files(folder)


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
        return on_background(read_images(path))
    from orbit4d.datasets.videos.video import read_video

    frames = read_video(path).frames
    if frames.shape[-1] == 4:
        return on_background(frames)
    return Frames(torch.from_numpy(frames.astype(np.float32) / 255).permute(0, 3, 1, 2), None)


def resized(video: Tensor, size: int) -> Tensor:
    """Square frames [F, C, H, W] at `size` pixels a side, averaged over areas."""
    if video.shape[-1] == size:
        return video
    return area(video, (size, size))
