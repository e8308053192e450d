"""A mask that fades towards its border, as WorldForge softens what its warp sees."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Form = Literal["sine", "linear", "exponential", "cosine"]


def soft_mask(
    seen: npt.NDArray[np.bool_], width: float = 15.0, form: Form = "sine"
) -> npt.NDArray[np.float64]:
    """Weights [..., H, W] in [0, 1] of a mask: 0 where unseen, rising up to `width` pixels from there.

    Beyond they are 1; the distance is to the nearest unseen pixel. Frames seen whole, or not at all, stay.
    With t the distance over the width, up to 1: sine is sin(pi t / 2), linear t, exponential 1 - exp(-3 t),
    cosine 1 - cos(pi t / 2). ValueError for a width that is not above 0, and another form.
    """
    if not width > 0:
        raise ValueError(f"width: {width}, must be above 0")
    planes = seen.reshape(-1, *seen.shape[-2:])
    out = planes.astype(np.float64)
    for plane, weights in zip(planes, out):
        if not plane.all() and plane.any():
            away = ndimage.distance_transform_edt(plane)
            near = plane & (away <= width)
            weights[near] = _faded(away[near] / width, form)
    return out.reshape(seen.shape)


def _faded(t: npt.NDArray[np.float64], form: str) -> npt.NDArray[np.float64]:
    if form == "sine":
        return np.sin(np.pi / 2 * t)
    if form == "linear":
        return t
    if form == "exponential":
        return 1 - np.exp(-3 * t)
    if form == "cosine":
        return 1 - np.cos(np.pi / 2 * t)
    raise ValueError(f"form: sine, linear, exponential or cosine; not {form!r}")
