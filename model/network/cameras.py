"""orbit4d's cameras (conventions: datasets/cameras/camera.py) in the world of VideoMV's checkpoints.

VideoMV starts its orbit at +X, orbit4d at -Y: the same world turned by +90 degrees about Z. Axes of the
camera (OpenGL) and the direction of travel agree. Trainer and pipeline go through this one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.unreal import METRES_PER_UNIT, relative_numbers
from orbit4d.datasets.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: VideoMV's world from orbit4d's: +90 degrees about Z.
VIDEOMV_FROM_ORBIT4D = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def videomv_cameras(cameras: Sequence[Camera] | Any) -> Tensor:
    """Cameras as VideoMV's networks take them: [..., F, 16] float32, row-major camera-to-world.

    `cameras` is a sequence of F objects `Camera`, or an array or tensor [..., F, 4, 4] of camera-to-world
    matrices in orbit4d's world. Intrinsics are no part of the published condition. Raises ValueError for
    other shapes.
    """
    import torch

    if len(cameras) and isinstance(cameras[0], Camera):
        cameras = np.stack([camera.c2w for camera in cameras])
    device = cameras.device if isinstance(cameras, torch.Tensor) else None
    c2w = torch.as_tensor(cameras, dtype=torch.float64, device=device)
    if c2w.ndim < 3 or tuple(c2w.shape[-2:]) != (4, 4):
        raise ValueError(f"cameras must be [..., F, 4, 4] camera-to-world matrices, got {tuple(c2w.shape)}")
    turned = torch.as_tensor(VIDEOMV_FROM_ORBIT4D, device=device) @ c2w
    return turned.flatten(-2).float()


def view_cameras(c2w: Any, metres_per_unit: float = METRES_PER_UNIT) -> Tensor:
    """Condition of the view module: [..., V, F, 12] float32, the rows of [R|t] of each view's camera in the
    frame of view 0 at the same time (OpenCV axes, t in units of 2 m).

    `c2w` [..., V, F, 4, 4] are camera-to-world matrices in orbit4d's world, one per latent frame.
    ValueError for another shape.
    """
    import torch

    matrices = _matrices(c2w, 4)
    numbers = relative_numbers(matrices[..., :1, :, :, :], matrices, metres_per_unit=metres_per_unit)
    return torch.from_numpy(numbers).float()


def own_cameras(c2w: Any, metres_per_unit: float = METRES_PER_UNIT) -> Tensor:
    """A video's cameras [..., F, 12] relative to its own first frame, for an orbit without other views.

    `c2w` [..., F, 4, 4]; units as in `view_cameras`.
    """
    import torch

    matrices = _matrices(c2w, 3)
    numbers = relative_numbers(matrices[..., :1, :, :], matrices, metres_per_unit=metres_per_unit)
    return torch.from_numpy(numbers).float()


def latent_frames(frames: int, stride: int = 4) -> list[int]:
    """The frame that each latent stands for: 0, 4, 8, .. of 4n + 1 frames, all of them at `stride` 1.

    ValueError for a number of frames that the autoencoder does not take.
    """
    if frames < 1 or (frames - 1) % stride:
        raise ValueError(f"{frames} frames: an autoencoder of stride {stride} takes {stride}n + 1")
    return list(range(0, frames, stride))


def shown_frames(frames: int, stride: int = 4) -> int:
    """Frames of a video that shows an orbit of `frames`: one more where `stride` divides them, the first
    again at the end, so that they are stride n + 1. InputError for other numbers."""
    if (frames - 1) % stride == 0:
        return frames
    if frames % stride == 0:
        return frames + 1
    near = frames - frames % stride
    raise InputError(f"data.frames={frames}: the autoencoder takes {stride}n or {stride}n + 1; set {near}")


def _matrices(c2w: Any, dims: int) -> npt.NDArray[np.float64]:
    matrices = np.asarray(c2w, dtype=np.float64)
    if matrices.ndim < dims or matrices.shape[-2:] != (4, 4):
        raise ValueError(f"cameras must be camera-to-world matrices [..., 4, 4], got {matrices.shape}")
    return matrices
