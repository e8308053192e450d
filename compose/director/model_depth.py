"""Depth of an image by a monocular model, its scale and shift fitted on the ground plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.placement.lifting import fitted_depth
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.guided.depth.network import estimate_depth

Floats = npt.NDArray[np.float64]

#: Relative difference to the plane z = 0 up to which a pixel shows the ground, and the least of them.
_FLAT, _LEAST = 0.02, 100


def estimated_depth(
    name: str, image: npt.NDArray[np.uint8], depth: Floats, camera: Camera
) -> tuple[Floats, str]:
    """(depth [H, W] along the viewing axis, a line that says how it was scaled) by a model.

    image [H, W, 3]; depth [H, W] of the scene, NaN where nothing is seen, which says only where the ground
    is. A model of metres is taken at its word; of a relative one 1/depth = scale x + shift is fitted on the
    ground by least squares. Where it says no depth, and in the sky, there is NaN.

    Raises:
        InputError: the model is not there, or is none of depth.
        WorkError: the image shows too little ground, or the model says the same everywhere on it.
    """
    found = estimate_depth(name, np.asarray(image, np.float32)[None] / 255)
    values = found.values[0].astype(np.float64)
    if found.metric:
        return _seen(values, depth), f"depth     {name} (metres, as the network says)"
    plane = ground_depth(camera)
    with np.errstate(invalid="ignore"):
        flat = np.abs(depth / plane - 1) <= _FLAT
    if flat.sum() < _LEAST:
        raise WorkError(
            f"--depth-model {name}: {int(flat.sum())} pixels show the ground plane, too few for its scale; "
            "leave the option out"
        )
    try:
        scale, shift, residual = fitted_depth(values[flat], plane[flat])
    except ValueError as error:
        raise WorkError(f"--depth-model {name}: {error}; give another model") from None
    inverse = scale * values + shift
    with np.errstate(divide="ignore"):
        depths = np.where(inverse > 0, 1 / inverse, np.nan)
    line = f"depth     {name} (fitted to {int(flat.sum())} pixels of the ground, residual {residual:.1%})"
    return _seen(depths, depth), line


def _seen(values: Floats, depth: Floats) -> Any:
    return np.where(np.isfinite(depth) & (values > 0), values, np.nan)


def ground_depth(camera: Camera) -> Floats:
    """Depth [h, w] along the viewing axis of the plane z = 0 at pixel centres; NaN above the horizon."""
    x = (np.arange(camera.w) + 0.5 - camera.cx) / camera.fl_x
    y = (np.arange(camera.h) + 0.5 - camera.cy) / camera.fl_y
    # Of a ray with depth 1, how far down it goes.
    down = -(camera.c2w[2, 0] * x[None, :] - camera.c2w[2, 1] * y[:, None] - camera.c2w[2, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(down > 0, camera.c2w[2, 3] / down, np.nan)
