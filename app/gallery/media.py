"""Images and videos of the gallery: clips as animated WebP with transparency, pairs of videos in step."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.layers import layers
from orbit4d.datasets.geometry.reader import read_geometry
from orbit4d.datasets.images.codec import decode
from orbit4d.datasets.images.measures import composite, psnr
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.clip import Clip

Frames = npt.NDArray[np.uint8]

#: Seconds that one turn around the object takes on the page.
TURN_SECONDS = 2.8
#: Longer side of what is shown, in pixels; the dataset keeps its own size.
SHOWN_PIXELS = 256


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)


def clip_frames(clip: Clip) -> Frames:
    """Straight RGBA [F, H, W, 4], reduced to the size shown."""
    return np.stack([np.asarray(_fit(Image.fromarray(decode(frame)))) for frame in clip.frames])


def _fit(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= SHOWN_PIXELS:
        return image
    size = (round(image.width * SHOWN_PIXELS / longest), round(image.height * SHOWN_PIXELS / longest))
    return image.resize(size, Image.Resampling.LANCZOS)


def write_loop(path: Path, frames: Frames, seconds: float = TURN_SECONDS) -> None:
    """An endless animated WebP with alpha, and its first frame as NAME-still.webp.

    The still is what readers who asked their system for less motion are shown.
    """
    images = [Image.fromarray(frame) for frame in frames]
    loop, still = io.BytesIO(), io.BytesIO()
    options = {"quality": 80, "alpha_quality": 90, "method": 2}
    images[0].save(
        loop,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=max(20, round(1000 * seconds / len(images))),
        loop=0,
        **options,
    )
    images[0].save(still, "WEBP", **options)
    put(path, loop.getvalue())
    put(path.with_name(f"{path.stem}-still.webp"), still.getvalue())


def geometry_layers(index: Index, clip: Clip) -> dict[str, Frames]:
    """Layer -> frames [F, H, W, 3] of what lies beside a clip; {} where there is no geometry."""
    try:
        geometry = read_geometry(index, clip.uid, clip.action_index)
        surfaces = geometry.clip(clip.rig, clip.orbit)
    except InputError:
        return {}
    skeleton = None
    with contextlib.suppress(InputError):
        skeleton = geometry.skeleton
    frames = on_white(clip_frames(clip))
    return layers(surfaces.resized(frames.shape[2], frames.shape[1]), frames, skeleton)


def first_picture(strip: bytes | None) -> bytes | None:
    """The first of the square images in a preview strip, as WebP; None without a strip."""
    if not strip:
        return None
    image = Image.open(io.BytesIO(strip))
    side = image.height
    out = io.BytesIO()
    image.crop((0, 0, min(side, image.width), side)).save(out, "WEBP", quality=85)
    return out.getvalue()


def on_white(frames: Frames) -> Frames:
    """Composite straight RGBA on white, uint8 [F, H, W, 3]."""
    if frames.shape[-1] == 3:
        return frames
    return np.round(composite(frames, 1.0) * 255.0).astype(np.uint8)


def frame_psnr(film: Frames, truth: Frames) -> list[float] | None:
    """PSNR of each frame of `film` against `truth` (both on white); None when they cannot be paired."""
    if len(film) != len(truth):
        return None
    height, width = truth.shape[1:3]
    pairs = []
    for a, b in zip(film, truth):
        # An mp4 has even sides; the padding is cut off again.
        a = a[:height, :width]
        if a.shape[:2] != (height, width):
            a = np.asarray(Image.fromarray(a).resize((width, height), Image.Resampling.LANCZOS))
        pairs.append(psnr(a, b))
    return pairs


def mean_square(a: Frames, b: Frames) -> float | None:
    """Mean squared difference of two videos, values in [0, 1]; None when their shapes differ."""
    if a.shape != b.shape:
        return None
    return float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2) / 255.0**2)


def downsample(values: Sequence[float], at_most: int = 400) -> list[float]:
    """Means of equal runs of values, so that a curve of any length draws fast."""
    if len(values) <= at_most:
        return [float(v) for v in values]
    return [float(np.mean(part)) for part in np.array_split(np.asarray(values, float), at_most)]
