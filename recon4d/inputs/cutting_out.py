"""Straight RGBA of footage: by masks, by its own alpha channel, or off a flat background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.flat_background import find_background, unmix

Float = npt.NDArray[np.float32]
#: The object must cover at least this share of a frame on average to be seen at all.
_MIN_COVERAGE = 2e-4


def with_matte(
    pixels: npt.NDArray[np.uint8],
    mattes: npt.NDArray[np.uint8] | None,
    known: Float | None,
    notes: list[str],
    name: str,
) -> Float:
    """Straight RGBA float32 [F, H, W, 4] of frames uint8 [F, H, W, 3 or 4].

    `mattes` uint8 [F, H, W] are taken as alpha. Where they keep most of the frames' border they only say what
    to ignore (as nerfstudio's masks do), and a flat background is removed from what they keep. `known` is the
    colour that the frames were generated on. Notes are added on what was done.
    """
    rgb = pixels[..., :3].astype(np.float32) / 255
    if mattes is not None:
        kept = mattes[..., None].astype(np.float32) / 255
        if _border(kept).mean() > 0.5:
            filled = np.where(kept > 0.5, rgb, _kept_border_colour(rgb, kept))
            if (background := find_background(filled, known)) is not None:
                notes.append("the masks keep the background: it is removed from what they keep")
                rgba = unmix(filled, background)
                return np.concatenate([rgba[..., :3], rgba[..., 3:] * kept], axis=-1)
        return np.concatenate([rgb, kept], axis=-1)
    if has_alpha(pixels):
        return pixels.astype(np.float32) / 255
    background = find_background(rgb, known)
    if background is None:
        raise InputError(
            f"{name}: the background is not one flat colour; give --mask FOLDER or frames with alpha, or try "
            "--matte rembg"
        )
    colour = " ".join(f"{255 * c:.0f}" for c in background.colour)
    notes.append(f"background {colour} removed")
    if background.grainy:
        grain, lost = (255 * value for value in (background.grain, sum(background.ramp) / 2))
        notes.append(f"the background has grain of sigma {grain:.0f}: parts within {lost:.0f} of it are lost")
    return unmix(rgb, background)


def _border(frames: Float) -> Float:
    """The outermost pixels of frames [F, H, W, C], [P, C]."""
    sides = (frames[:, 0], frames[:, -1], frames[:, 1:-1, 0], frames[:, 1:-1, -1])
    return np.concatenate([side.reshape(-1, frames.shape[-1]) for side in sides])


def _kept_border_colour(rgb: Float, kept: Float) -> Float:
    """Median colour [3] of the border where the masks keep it."""
    return np.median(_border(rgb)[_border(kept)[:, 0] > 0.5], axis=0).astype(np.float32)


def has_alpha(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether frames [F, H, W, C] carry transparency."""
    return pixels.shape[-1] == 4 and bool((pixels[..., 3] < 250).any())


def check_content(rgba: Float, name: str) -> None:
    """InputError where straight RGBA [F, H, W, 4] shows no object, or nothing else."""
    coverage = rgba[..., 3].mean((1, 2))
    if coverage.mean() < _MIN_COVERAGE:
        raise InputError(
            f"{name}: no object found (the frames are empty, or the object has the background's colour); "
            "give --mask FOLDER or frames with alpha"
        )
    if (coverage > 0.97).all():
        raise InputError(f"{name}: the object fills every frame; give --mask FOLDER or an alpha channel")
    if float((rgba[..., :3] * rgba[..., 3:]).max()) < 0.02:
        raise InputError(f"{name}: every frame is black")
