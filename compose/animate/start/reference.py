"""The reference: the one image of a run, cut out and centred, or the front of an object that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orbit4d.compose.animate.priors.truth import Truth
from orbit4d.compose.animate.sampling import View
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import UNREADABLE
from orbit4d.model.sampling.photo import prepare_photo
from orbit4d.recon4d.scene import Scene

#: Pixels on the shorter side below which an image shows too little.
SMALLEST = 64
#: Shares of the frame that a matte covers at least and at most.
LEAST, MOST = 2e-4, 0.97
#: IoU of mattes below which an image does not fit the still object.
FITS = 0.5


@dataclass(frozen=True)
class Reference:
    """Premultiplied RGBA [H, W, 4] in [0, 1], and what was done to it."""

    rgba: Tensor
    notes: tuple[str, ...]


def read_reference(path: str | Path, size: int, matte: str) -> Reference:
    """An image file as reference. InputError, one line, for what shows no object."""
    notes = _look(path)
    photo = prepare_photo(path, size, (255, 255, 255), matte=matte)
    alpha = torch.from_numpy(photo.alpha)[..., None]
    covered = float(alpha.mean())
    if covered > MOST:
        raise InputError(f"{path}: the object fills the frame: give an image with alpha or a flat background")
    if covered < LEAST:
        raise InputError(f"{path}: the matte is empty; give an image that shows an object")
    white = torch.from_numpy(photo.rgb.astype(np.float32) / 255)
    rgb = (white - (1 - alpha)).clamp(min=0)
    return Reference(torch.cat([torch.minimum(rgb, alpha), alpha], -1), (*notes, *photo.notes))


def _look(path: str | Path) -> list[str]:
    """Notes on an image's file. InputError where it is too small, moves, or is none."""
    try:
        with Image.open(path) as image:
            w, h = image.size
            moving, mode = getattr(image, "n_frames", 1) > 1, image.mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an image (png, jpg, webp, tif)") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable image ({error})") from None
    if moving:
        raise InputError(
            f"{path}: is animated; save its first frame alone, say `ffmpeg -i {path} -frames:v 1 first.png`"
        )
    if min(w, h) < SMALLEST:
        raise InputError(f"{path}: {w} x {h} pixels; the shorter side needs at least {SMALLEST}")
    converted = mode in ("CMYK", "I", "F") or mode.startswith("I;16")
    return [f"{mode} converted to 8-bit RGB"] if converted else []


def reference_of_truth(truth: Truth, view: View, size: int, fov: float) -> Reference:
    """The front of a known object at time 0."""
    straight = torch.from_numpy(truth.render(view.camera(size, fov), 0.0))
    rgba = torch.cat([straight[..., :3] * straight[..., 3:], straight[..., 3:]], -1)
    return Reference(rgba, ("the front of the known object at time 0",))


def reference_of_scene(scene: Scene, view: View, size: int, fov: float) -> Reference:
    """The front of the still object."""
    straight = torch.from_numpy(scene.render(view.camera(size, fov), 0.0))
    rgba = torch.cat([straight[..., :3] * straight[..., 3:], straight[..., 3:]], -1)
    return Reference(rgba, ("the front of the still object",))


def misfit(reference: Reference, scene: Scene, view: View, fov: float) -> str | None:
    """A warning where a reference does not cover what the still object shows at its view."""
    drawn = scene.render(view.camera(len(reference.rgba), fov), 0.0)[..., 3] > 0.5
    wanted = reference.rgba[..., 3].numpy() > 0.5
    union = int((drawn | wanted).sum())
    iou = int((drawn & wanted).sum()) / union if union else 1.0
    if iou >= FITS:
        return None
    return (
        f"warning: the image does not fit the still object: IoU of their mattes at the front is {iou:.2f} "
        f"(below {FITS:g}); turn the object, or give --elevation"
    )


def save_reference(reference: Reference, path: Path) -> None:
    """As straight RGBA."""
    rgba = reference.rgba.cpu().numpy()
    alpha = rgba[..., 3:]
    rgb = np.where(alpha > 1 / 255, rgba[..., :3] / np.maximum(alpha, 1 / 255), 0)
    Image.fromarray((np.concatenate([rgb, alpha], -1).clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(path)
