"""What a source shows, before mattes and times: images, which of its frames they are, and their names.

Videos and folders are reduced frame by frame while they are read, so that memory is that of the result.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras.posed_frames import Transforms, same_shape
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import (
    check_same_size,
    image_files,
    read_image,
    read_sized_image,
    reduced,
    rgba_of,
)
from orbit4d.datasets.images.listed_images import listed_images, with_listed

Pixels = npt.NDArray[np.uint8]
#: Larger footage is reduced while it is read: no preset fits more, and a thousand frames must fit in memory.
MAX_EDGE = 512
#: More frames than this are spread evenly over the video; an orbit gains nothing from more.
MAX_FRAMES = 240


@dataclass(frozen=True)
class Footage:
    """F images of one size."""

    pixels: Pixels
    """[F, H, W, 3 or 4] straight RGB or RGBA."""
    index: npt.NDArray[np.int64]
    """[F] places among the `total` frames of the source, ascending."""
    total: int
    size: tuple[int, int]
    """(width, height) before they were reduced."""
    stored_size: tuple[int, int]
    """The same before pixels were made square."""
    record: Transforms | None = None
    """Cameras of all frames of the source, in their order."""
    files: tuple[Path, ...] = ()
    """F image files, where they are files."""
    seconds: npt.NDArray[np.float64] | None = None
    """[total] time stamps of a video of variable frame rate."""
    stamps: npt.NDArray[np.float64] | None = None
    """[total] time stamps of any video."""
    places: npt.NDArray[np.float64] | None = None
    """[total] places of listed images among all images of their folder, which follow time."""
    notes: tuple[str, ...] = ()

    def has_shape(self, size: tuple[int, int]) -> bool:
        """Whether (width, height) of cameras or masks fits the images, but for a scale."""
        return same_shape(size, self.size) or same_shape(size, self.stored_size)


def read_footage(source: Any, name: str, record: Transforms | None, max_edge: int = MAX_EDGE) -> Footage:
    """Read a video, a folder of images, a list of image files, a list of images [H, W, 3 or 4] or an array.

    A record with names says which images of a folder are read, and in which order. InputError for what
    cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            return _folder(path, record, max_edge)
        if not path.exists():
            raise InputError(
                f"{path}: no such video or folder; give one that exists, or DATASET:uid[:action]"
            )
        return replace(_video(path, max_edge), record=record)
    items = _items(source, name)
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        files = [Path(item) for item in items]
        if record is not None and record.files:
            record = with_listed(record, files)
        return replace(_files(name, files, max_edge), record=record)
    images = [_image(item, name) for item in items]
    keep, size = thinned(len(images)), _check_arrays(images, name)
    pixels = _stack([images[i] for i in keep], max_edge)
    return Footage(pixels, keep, len(images), size, size, record)


#: What may be given in place of a file, for messages.
ACCEPTED = (
    "a video or folder (path), a list of image files, a list of PIL images or of uint8 arrays "
    "[H, W, 3 or 4], or one uint8 array [F, H, W, 3 or 4]"
)


def _items(source: Any, name: str) -> list[Any]:
    """The frames of what is no path; InputError that names what is accepted."""
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise InputError(f"{name}: an array {list(source.shape)}; give {ACCEPTED}")
    if not isinstance(source, Image.Image | Mapping | bytes) and isinstance(source, Iterable):
        return list(source)
    raise InputError(f"{name}: {type(source).__name__} is no orbit; give {ACCEPTED}")


def _image(item: Any, name: str) -> Pixels:
    """One frame as an array; checked by `_check_arrays`."""
    if isinstance(item, Image.Image):
        rgba = rgba_of(item)
        return rgba if (rgba[..., 3] < 255).any() else np.ascontiguousarray(rgba[..., :3])
    if isinstance(item, str | os.PathLike):
        return read_image(item)
    try:
        return np.asarray(item)
    except Exception:  # Whatever a foreign type raises, such as a tensor on a GPU.
        raise InputError(f"{name}: a frame is {type(item).__name__}; give {ACCEPTED}") from None


def thinned(n: int) -> npt.NDArray[np.int64]:
    """Which of `n` frames are used: all, or MAX_FRAMES evenly spread."""
    if n <= MAX_FRAMES:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, MAX_FRAMES).round().astype(np.int64))


def _folder(path: Path, record: Transforms | None, max_edge: int) -> Footage:
    if record is not None and record.files:
        found = listed_images(record, path)
        footage = _files(str(path), found.files, max_edge)
        return replace(footage, record=record, places=found.places, notes=found.notes)
    inside = (image_files(path / sub) for sub in ("frames", "", "images"))
    files: list[Path] = next(filter(None, inside), [])
    if not files:
        raise InputError(f"{path}: no image in this folder; give a video or a folder of frames")
    return replace(_files(str(path), files, max_edge), record=record)


def _files(name: str, files: Sequence[Path], max_edge: int) -> Footage:
    keep = thinned(len(files))
    pixels: Pixels | None = None
    first: tuple[int, int] = (0, 0)
    for i, place in enumerate(keep):
        image, size = read_sized_image(files[place], max_edge)
        if pixels is None:
            pixels, first = np.empty((len(keep), *image.shape), np.uint8), size
        check_same_size(name, files[0], first, files[place], size)
        pixels[i] = image
    if pixels is None:
        raise InputError(f"{name}: no frame")
    if (pixels[..., 3] == 255).all():
        pixels = np.ascontiguousarray(pixels[..., :3])
    return Footage(pixels, keep, len(files), first, first, files=tuple(files[i] for i in keep))


def _video(path: Path, max_edge: int) -> Footage:
    from orbit4d.datasets.videos.video import read_video

    video = read_video(path, max_edge=max_edge)
    keep = thinned(len(video.frames))
    seconds = video.seconds if video.uneven else None
    frames = video.frames if len(keep) == len(video.frames) else video.frames[keep]
    return Footage(
        frames, keep, len(video.frames), video.size, video.stored_size, seconds=seconds,
        stamps=video.seconds, notes=video.notes,
    )  # fmt: skip


def _check_arrays(images: Sequence[Pixels], name: str) -> tuple[int, int]:
    """(width, height) of images given as arrays; InputError where they are none, or of several sizes."""
    if not images:
        raise InputError(f"{name}: no frame")
    for image in images:
        if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8:
            raise InputError(
                f"{name}: a frame is {image.dtype} {list(image.shape)}: frames must be uint8 [H, W, 3] or "
                f"[H, W, 4]; give {ACCEPTED}"
            )
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(f"{w}x{h}" for h, w in sorted(shapes)[:3])
        raise InputError(f"{name}: frames of different sizes ({sizes}); resize them to one")
    return images[0].shape[1], images[0].shape[0]


def _stack(images: list[Pixels], max_edge: int) -> Pixels:
    """Arrays [H, W, 3 or 4] of one size as one, reduced; opaque where some lack alpha."""
    if max(images[0].shape[:2]) > max_edge:
        images = [np.asarray(reduced(Image.fromarray(image), max_edge)) for image in images]
    if len({image.shape[2] for image in images}) > 1:
        opaque = [np.full((*image.shape[:2], 1), 255, np.uint8) for image in images]
        images = [i if i.shape[2] == 4 else np.concatenate([i, a], 2) for i, a in zip(images, opaque)]
    return np.stack(images)
