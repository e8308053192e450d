"""A known scene seen through a camera, as a prior sees it: on white, then biased, then on what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.datasets.images.over import over
from orbit4d.datasets.images.resize import area

#: Stable Diffusion's table, float64 [1000]: what priors in closed form count time by.
TABLE = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
#: Factors of red, green and blue under the bias `tint`.
TINT = (0.75, 1.0, 1.25)


class Renders(Protocol):
    """Anything that is drawn at a camera and a time; `recon4d.Scene` is one."""

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        """Straight RGBA, float32 [H, W, 4] in [0, 1]."""


@dataclass(frozen=True)
class Layers:
    """N views on white [N, 3, h, w], and their alphas [N, 1, h, w]."""

    white: Tensor
    alpha: Tensor

    def on(self, background: Tensor) -> Tensor:
        """The views on a colour [3], [N, 3, h, w]."""
        behind = background.to(self.white).view(1, 3, 1, 1)
        return self.white - (1 - self.alpha) * (1 - behind)


Bias = Callable[[Layers], Layers]


def rendered(scene: Renders, views: Sequence[tuple[Camera, float]], size: tuple[int, int]) -> Layers:
    """Views of a scene at h x w pixels; `render_all` of a scene that has one draws them at once."""
    h, w = size
    asked = [(camera if (camera.h, camera.w) == size else camera.resized(w, h), t) for camera, t in views]
    together: Any = getattr(scene, "render_all", None)
    images = together(asked) if together else [scene.render(camera, t) for camera, t in asked]
    rgba = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    alpha = rgba[:, 3:]
    return Layers(over(rgba[:, :3], alpha, 1.0), alpha)


def tint(layers: Layers) -> Layers:
    """Red by 0.75 and blue by 1.25, of the object alone."""
    factors = layers.white.new_tensor(TINT).view(1, 3, 1, 1)
    clear = 1 - layers.alpha
    return Layers(((layers.white - clear) * factors + clear).clamp(0, 1), layers.alpha)


def blur(layers: Layers) -> Layers:
    """Means over squares of w / 32 pixels, and back to size bilinearly."""
    return Layers(_softened(layers.white), _softened(layers.alpha))


def _softened(images: Tensor) -> Tensor:
    h, w = images.shape[-2:]
    edge = max(w // 32, 1)
    if edge == 1:
        return images
    small = area(images, (max(h // edge, 1), max(w // edge, 1)))
    return functional.interpolate(small, (h, w), mode="bilinear", align_corners=False)


BIASES: dict[str, Bias] = {"tint": tint, "blur": blur}


def bias_of(names: Sequence[str]) -> Bias | None:
    """Biases by name, applied in order; None for none. InputError for a name that is none."""
    for name in names:
        if name not in BIASES:
            raise InputError(f"bias {name!r}: {or_known(name, BIASES)}")
    if not names:
        return None

    def applied(layers: Layers) -> Layers:
        for name in names:
            layers = BIASES[name](layers)
        return layers

    return applied
