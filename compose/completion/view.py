"""An image of a scene with its camera, time and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.images.over import over

Floats = npt.NDArray[np.float32]

#: Alpha above which a pixel shows the object.
SOLID = 0.5


@dataclass(frozen=True)
class View:
    """An image of the scene."""

    image: Floats
    """[H, W, 3] straight colours in [0, 1]."""
    alpha: Floats | None
    """[H, W] in [0, 1]; None where the image has none."""
    name: str
    camera: Camera | None = None
    time: float = 0.0
    depth: Floats | None = None
    """[H, W] along the view axis; inf: nothing is known there."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]

    def on(self, background: tuple[int, int, int]) -> Floats:
        """The image over a colour of 0 to 255, [H, W, 3]."""
        if self.alpha is None:
            return self.image
        shown = over(self.image, self.alpha[..., None], np.array(background, np.float32) / 255)
        return shown.astype(np.float32)  # type: ignore[no-any-return]

    @property
    def premultiplied(self) -> Floats:
        """[H, W, 4], colours times alpha; alpha is 1 where the image has none."""
        alpha = np.ones(self.image.shape[:2], np.float32) if self.alpha is None else self.alpha
        return np.concatenate([self.image * alpha[..., None], alpha[..., None]], -1).astype(np.float32)

    @property
    def solid_depth(self) -> Floats:
        """Depth where the image shows the object, else inf."""
        assert self.depth is not None
        if self.alpha is None:
            return self.depth
        return np.where(self.alpha > SOLID, self.depth, np.float32(np.inf))


def view_of(rgba: npt.NDArray[np.uint8], name: str, time: float = 0.0) -> View:
    """A view of uint8 [H, W, 3 or 4]; alpha that is 255 everywhere is none."""
    values = rgba.astype(np.float32) / 255
    alpha = values[..., 3] if values.shape[-1] == 4 and (rgba[..., 3] < 255).any() else None
    return View(values[..., :3], alpha, name, time=time)
