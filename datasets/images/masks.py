"""Masks as tools write them: grey mattes, labels 0 and 1, indexed colours, silhouettes with alpha.

What is meant is decided over all masks of a set at once: an image of one label alone says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally, number_of
from orbit4d.datasets.images.folders import UNREADABLE, image_files, rgba_of, upright_plane

Plane = npt.NDArray[np.uint8]
#: Masks whose largest value is at most this hold labels and no grey.
_MAX_LABEL = 31
#: More colours than this are an image and no labels.
_MAX_COLOURS = 64


@dataclass(frozen=True)
class _Kind:
    """How the values of a set of masks become 0 to 255."""

    table: npt.NDArray[np.uint8]
    """[256]"""
    note: str = ""


def read_masks(files: Sequence[Path], what: str) -> tuple[Iterator[Plane], tuple[str, ...]]:
    """Masks of their own sizes, uint8 [H, W], 255 inside the object; and notes on what their values meant.

    Values: 0 to 255 as they are; labels (0 and 1, or a few more) and two values of any kind as background and
    object; indexed colours as labels; images with transparency by their alpha. `what` names the set in
    messages. InputError for unreadable masks, and for masks that are empty or hold a coloured image.
    """
    counts = np.zeros(256, np.int64)
    for file in files:
        counts += np.bincount(_plane(file, what).ravel(), minlength=256)
    kind = _kind(counts, what)
    return (kind.table[_plane(file, what)] for file in files), (kind.note,) if kind.note else ()


def _kind(counts: npt.NDArray[np.int64], what: str) -> _Kind:
    values = np.nonzero(counts)[0]
    as_they_are = np.arange(256, dtype=np.uint8)
    if len(values) == 1:
        raise InputError(
            f"{what}: every pixel is {values[0]}: give 0 for the background and 255 for the object"
        )
    low, high = int(values[0]), int(values[-1])
    if len(values) == 2:
        object_ = np.where(as_they_are == high, 255, 0).astype(np.uint8)
        plain = (low, high) == (0, 255)
        return _Kind(object_, "" if plain else f"masks: {low} is taken for background, {high} for the object")
    if high <= _MAX_LABEL:
        return _Kind(
            np.where(as_they_are > 0, 255, 0).astype(np.uint8),
            f"masks: labels 0 to {high}; all above 0 are taken for the object",
        )
    return _Kind(as_they_are)


def _plane(file: Path, what: str) -> Plane:
    """uint8 [H, W]: grey, alpha, or labels of one mask, before it is known what they mean."""
    try:
        with Image.open(file) as image:
            return _values(image)
    except FileNotFoundError:
        raise InputError(f"{what}: {file} is not there") from None
    except UNREADABLE as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{what}: {file}: not a readable image ({why})") from None


def _values(image: Image.Image) -> Plane:
    plane = upright_plane(image)
    if plane.mode == "1":
        return np.where(np.asarray(plane), 255, 0).astype(np.uint8)
    if plane.mode in ("L", "I", "F") or plane.mode.startswith("I;16"):
        values = np.asarray(plane).astype(np.float64)
        if plane.mode == "F":
            return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        # Labels may be stored with 16 bits; grey of 16 bits reaches further than 255.
        return np.rint(values / 257 if values.max() > 255 else values).clip(0, 255).astype(np.uint8)
    if plane.mode == "P" and not _is_grey_palette(plane):
        return np.where(np.asarray(plane) == _ground(plane), 0, 255).astype(np.uint8)
    rgba = rgba_of(plane)
    if (rgba[..., 3] < 255).any():
        return rgba[..., 3]
    rgb = rgba[..., :3]
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    colours = np.unique(rgb.reshape(-1, 3), axis=0)
    if len(colours) > _MAX_COLOURS:
        raise ValueError(f"an image of {len(colours)} colours and no mask: give grey, 0 outside the object")
    return np.where(rgb.any(-1), 255, 0).astype(np.uint8)


def _palette(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Colours [256, 3] of an indexed image; those that are not given are black."""
    found = np.asarray(image.getpalette("RGB") or [], np.uint8)
    return np.pad(found, (0, 768 - len(found))).reshape(256, 3)


def _is_grey_palette(image: Image.Image) -> bool:
    used = _palette(image)[np.unique(np.asarray(image))]
    return "transparency" in image.info or bool((used == used[:, :1]).all() and len(used) > 1)


def _ground(image: Image.Image) -> int:
    """Index of the background: black where a used colour is, else 0."""
    used = np.unique(np.asarray(image))
    black = used[(_palette(image)[used] == 0).all(1)]
    return int(black[0]) if len(black) else 0


def join_masks(folder: str | Path, masks: Sequence[Path], images: Sequence[Path]) -> list[Path]:
    """The mask of each image by its name: the same stem, the image's whole name (COLMAP), the stem with
    `mask` before or after it, or the same number.

    InputError that names an image without a mask.
    """
    folders: dict[str, set[Path]] = {}
    for mask in masks:
        folders.setdefault(mask.stem.lower(), set()).add(mask.parent)
    by_name = {mask.stem.lower(): mask for mask in masks if len(folders[mask.stem.lower()]) == 1}
    by_name |= {f"{mask.parent.name}/{mask.stem}".lower(): mask for mask in masks}
    found = [
        next((by_name[name] for name in _mask_names(image) if name in by_name), None) for image in images
    ]
    if not any(found):
        found = _by_number(masks, images)
    if None in found:
        image = images[found.index(None)]
        raise InputError(
            f"--mask {folder}: no mask for {image.name} ({len(masks)} images for {len(images)} frames); "
            "give one grey image per frame, named as it is"
        )
    joined = [mask for mask in found if mask is not None]
    if len(set(joined)) < len(joined):
        mask = next(mask for mask in joined if joined.count(mask) > 1)
        raise InputError(
            f"--mask {folder}: {mask.name} goes with several frames; put masks into folders as the frames are"
        )
    return joined


def mask_files(folder: str | Path) -> list[Path]:
    """Masks of a folder in natural order; where it holds none itself, those of the folders in it."""
    inside = image_files(folder)
    if inside or not Path(folder).is_dir():
        return inside
    return [file for sub in naturally(Path(folder).iterdir()) if sub.is_dir() for file in image_files(sub)]


def _mask_names(image: Path) -> tuple[str, ...]:
    stem = image.stem.lower()
    return (
        f"{image.parent.name}/{image.stem}".lower(),
        stem,
        image.name.lower(),
        f"{stem}_mask",
        f"{stem}.mask",
        f"{stem}-mask",
        f"mask_{stem}",
    )


def _by_number(masks: Sequence[Path], images: Sequence[Path]) -> list[Path | None]:
    """Masks by the last number in the names; all None where numbers do not tell the images apart."""
    numbers, own = [number_of(mask) for mask in masks], [number_of(image) for image in images]
    if None in own or len(set(own)) < len(own) or len(set(numbers)) < len(numbers):
        return [None] * len(images)
    table = dict(zip(numbers, masks))
    return [table.get(number) for number in own]
