"""A clip in an export's frame: how many frames, which size, on what ground, and its cameras there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.settings import ExportSettings, behind
from orbit4d.datasets.store.clip import Clip

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fit:
    """Images of `source` size resized to cover `target` and cut about the centre; sizes (width, height)."""

    source: tuple[int, int]
    target: tuple[int, int]

    @property
    def covering(self) -> tuple[int, int]:
        """Size after the resize and before the cut."""
        (w, h), (tw, th) = self.source, self.target
        scale = max(tw / w, th / h)
        return max(round(w * scale), tw), max(round(h * scale), th)

    @property
    def corner(self) -> tuple[int, int]:
        """(left, top) of the cut."""
        (w, h), (tw, th) = self.covering, self.target
        return (w - tw) // 2, (h - th) // 2

    def camera(self, camera: Camera) -> Camera:
        """The camera that took the fitted image."""
        left, top = self.corner
        resized = camera.resized(*self.covering)
        return replace(resized, cx=resized.cx - left, cy=resized.cy - top, w=self.target[0], h=self.target[1])

    def smooth(self, frames: Pixels) -> Pixels:
        """Pictures [F, H, W, C] resampled (Lanczos) and cut."""
        if self.source == self.target:
            return frames
        left, top = self.corner
        resized = frames if self.covering == self.source else _resize(frames, self.covering)
        return np.ascontiguousarray(resized[:, top : top + self.target[1], left : left + self.target[0]])

    def nearest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Numbers [F, H, W, ...], which must not be mixed: the stored pixel nearest to each centre."""
        if self.source == self.target:
            return values
        (w, h), (cw, ch), (left, top) = self.source, self.covering, self.corner
        columns = ((np.arange(self.target[0]) + left + 0.5) * w / cw).astype(int).clip(0, w - 1)
        rows = ((np.arange(self.target[1]) + top + 0.5) * h / ch).astype(int).clip(0, h - 1)
        return values[:, rows[:, None], columns]


def _resize(frames: Pixels, size: tuple[int, int]) -> Pixels:
    out = []
    for frame in frames:
        image = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
        array = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
        out.append(array[..., None] if array.ndim == 2 else array)
    return np.stack(out)


def fit_for(
    size: tuple[int, int], buckets: Sequence[tuple[int, int]], multiple: int, name: str, trainer: str
) -> Fit:
    """Where a clip of `size` goes: the bucket of the nearest aspect (of several, of the nearest area), or
    without buckets its own size cut to the trainer's multiple. Raises InputError where no edge is left, and
    for a bucket that the trainer does not divide."""
    for w, h in buckets:
        if w % multiple or h % multiple:
            good = f"{max(multiple, w // multiple * multiple)}x{max(multiple, h // multiple * multiple)}"
            raise InputError(f"--size {w}x{h}: {trainer} takes multiples of {multiple}; {good} is one")
    if buckets:
        w, h = size
        off = [(abs(np.log(bw / bh * h / w)), abs(np.log(bw * bh / (w * h)))) for bw, bh in buckets]
        return Fit(size, buckets[min(range(len(buckets)), key=lambda i: off[i])])
    if min(size) < multiple:
        raise InputError(
            f"{name}: is {size[0]}x{size[1]}, {trainer} takes multiples of {multiple}; give --size"
        )
    return Fit(size, (size[0] // multiple * multiple, size[1] // multiple * multiple))


def shortened(clip: Clip, count: int) -> Clip:
    """The clip's first `count` frames, with their cameras, times and passes."""
    if count == len(clip.frames):
        return clip
    return replace(
        clip,
        frames=clip.frames[:count],
        cameras=clip.cameras[:count],
        time=clip.time[:count],
        seconds=clip.seconds[:count],
        passes={name: members[:count] for name, members in clip.passes.items()},
    )


def background_of(settings: ExportSettings, name: str) -> tuple[int, int, int]:
    """The colour behind a clip."""
    if settings.background != "random":
        return behind(settings.background)
    drawn = hashlib.sha256(f"orbit4d background {settings.seed} {name}".encode()).digest()
    return drawn[0], drawn[1], drawn[2]
