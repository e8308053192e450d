"""An image of an object, made ready to be the first view of an orbit: matte, crop, background, size.

What was done to it is said in plain sentences, since a wrong matte is the commonest cause of a bad orbit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.flat_background import behind_one_image
from orbit4d.datasets.images.folders import UNREADABLE, rgba_of, upright
from orbit4d.datasets.images.matting import cut_out
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.datasets.images.resize import resampled

MATTES = ("flat", "rembg", "none")

#: Share of the frame's edge that a cropped object's longer side gets; rendered clips under `fit` show about
#: this.
FILL = 0.8
#: Alpha (of 255) from which a pixel counts as object.
_SOLID = 13


@dataclass(frozen=True)
class Photo:
    """An image ready for the network, and what was done to it."""

    rgb: npt.NDArray[np.uint8]
    """[size, size, 3] on the background."""
    alpha: npt.NDArray[np.float32]
    """[size, size] in [0, 1]; 1 everywhere when there was no matte."""
    notes: tuple[str, ...]
    """One sentence per step."""


def prepare_photo(
    source: str | os.PathLike[str] | Image.Image,
    size: int,
    background: tuple[int, int, int] = (255, 255, 255),
    crop: bool | None = None,
    matte: str = "flat",
) -> Photo:
    """Read an image (a file or a PIL image) of any size, depth and mode, with or without alpha.

    Matte: its alpha if it has any, else as `matte` says: "flat" takes off a flat background seen from the
    border, "rembg" asks a network, "none" takes the whole image for the object. Crop: the object
    is centred and fills 80 % of the frame, unless it is square, has alpha and lies inside the frame, which
    is how renders come (`crop=None`); True and False decide it. InputError for what is no image or shows
    nothing, and under "flat" for one without alpha or a flat background.
    """
    if matte not in MATTES:
        raise InputError(f"--matte {matte}: choose from {', '.join(MATTES)}")
    rgba = _open(source)
    notes = [f"read {rgba.shape[1]} x {rgba.shape[0]}"]
    alpha, how = _matte(rgba, matte, _name(source))
    notes.append(how)
    if not (alpha > _SOLID).any():
        raise InputError(f"{_name(source)}: the image is empty ({how}): give one that shows an object")
    rgba = np.dstack([rgba[..., :3], alpha])
    rows, columns = np.nonzero(alpha > _SOLID)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    height, width = alpha.shape
    has_matte = bool((alpha < 255).any())
    inside = box[0] > 0 and box[1] > 0 and box[2] < width and box[3] < height
    if crop is None:
        crop = has_matte and not (width == height and inside and how.startswith("used its alpha"))
    if crop:
        rgba = _centred(rgba, box)
        notes.append(f"cropped to the object and centred it at {FILL:.0%} of the frame")
    elif width != height:
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        rgba = rgba[top : top + edge, left : left + edge]
        notes.append(f"cut the middle {edge} x {edge}")
    else:
        notes.append("kept its framing")
    rgba_small = _resize(rgba, size)
    notes.append(f"scaled to {size} x {size} on background {background}")
    opacity = rgba_small[..., 3:]
    rgb = over_premultiplied(rgba_small[..., :3], opacity, np.array(background, dtype=np.float32) / 255.0)
    return Photo(np.rint(rgb.clip(0, 1) * 255).astype(np.uint8), opacity[..., 0], tuple(notes))


def _name(source: object) -> str:
    return "the image" if isinstance(source, Image.Image) else str(source)


def _open(source: str | os.PathLike[str] | Image.Image) -> npt.NDArray[np.uint8]:
    """Straight RGBA, uint8 [H, W, 4]."""
    if not isinstance(source, Image.Image):
        return np.array(upright(source))
    try:
        return rgba_of(source)
    except UNREADABLE as error:
        raise InputError(f"{_name(source)}: not a readable image ({error})") from error


def _matte(rgba: npt.NDArray[np.uint8], matte: str, name: str) -> tuple[npt.NDArray[np.uint8], str]:
    """Alpha [H, W] uint8 and how it was found."""
    alpha = rgba[..., 3]
    if (alpha < 255).any():
        return alpha, "used its alpha channel as matte"
    if matte == "none":
        return alpha, "the whole image is taken for the object"
    if matte == "rembg":
        instead = "give an image with alpha, or --matte none to take the whole image for the object"
        return cut_out(rgba[None], name, instead)[0], "matte made by rembg"
    found = behind_one_image(rgba[..., :3])
    if found is None:
        raise InputError(
            f"{name}: neither alpha nor a flat background: give an image with alpha, cut it out with "
            "--matte rembg, or take the whole image for the object with --matte none"
        )
    colour, outside = found
    if outside.all():
        return np.zeros_like(alpha), "the image is one flat colour"
    how = f"cut out a flat background of colour {tuple(colour.astype(int))}"
    return np.where(outside, 0, 255).astype(np.uint8), how


def _centred(rgba: npt.NDArray[np.uint8], box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """The box in the middle of a transparent square whose edge is its longer side / FILL."""
    left, top, right, bottom = box
    cut = rgba[top:bottom, left:right]
    edge = int(np.ceil(max(cut.shape[:2]) / FILL))
    square = np.zeros((edge, edge, 4), dtype=np.uint8)
    y, x = (edge - cut.shape[0]) // 2, (edge - cut.shape[1]) // 2
    square[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return square


def _resize(rgba: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    """[size, size, 4] premultiplied, in [0, 1]: colours of transparent pixels must not bleed in."""
    values = rgba.astype(np.float32) / 255.0
    values[..., :3] *= values[..., 3:]
    return resampled(values, (size, size), shrinks=size < rgba.shape[0]).clip(0.0, 1.0)
