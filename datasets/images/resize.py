"""Images at another size, one function for each rule that results hang on.

`area` is what fits, evaluation and published protocols take: each pixel is the mean of what it covers.
`smooth` is the loader's and the trainer's: bilinear, and antialiased where it shrinks. `resampled` is for
single images: the mean where they shrink, another filter where they grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def area(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes [N, C, H, W] averaged over areas, [N, C, *size]; size is (height, width)."""
    from torch.nn import functional

    return functional.interpolate(planes, size, mode="area")


def smooth(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes [N, C, H, W] in [0, 1], bilinear with antialiasing, [N, C, *size]; size is (height, width)."""
    from torch.nn import functional

    return functional.interpolate(planes, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def resampled(
    planes: npt.NDArray[np.float32],
    size: tuple[int, int],
    shrinks: bool,
    growing: Image.Resampling = Image.Resampling.BICUBIC,
    box: tuple[float, float, float, float] | None = None,
) -> npt.NDArray[np.float32]:
    """Float32 planes [H, W, C] at `size` (width, height), [height, width, C].

    Where it `shrinks` a pixel is the mean of what it covers, else the filter `growing` is taken; bicubic may
    leave [0, 1]. `box` is the part that is taken, in pixels (left, top, right, bottom).
    """
    kind = Image.Resampling.BOX if shrinks else growing
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(size, kind, box=box))
        for c in range(planes.shape[-1])
    ]
    return np.stack(channels, axis=-1)
