"""Animated WebP and PNG, of which FFmpeg's libraries decode nothing or one frame: through Pillow instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import UNREADABLE, reduced


def is_animated_image(path: Path) -> bool:
    """Whether a file begins as WebP or PNG does, whatever its name."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:8] == b"\x89PNG\r\n\x1a\n" or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def animated_frames(path: Path, max_edge: int | None) -> Iterator[tuple[npt.NDArray[np.uint8], float]]:
    """(straight RGBA uint8 [H, W, 4], seconds at which it appears) of each frame; InputError if damaged."""
    seconds = 0.0
    try:
        with Image.open(path) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                frame = image.convert("RGBA")
                yield np.array(reduced(frame, max_edge)), seconds
                seconds += image.info.get("duration", 0) / 1000
    except UNREADABLE as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: damaged or not a video ({why}); write it again, or give a folder of frames"
        ) from None
