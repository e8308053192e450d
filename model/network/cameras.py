"""orbit4d's cameras (conventions: datasets/cameras/camera.py) in the world of VideoMV's checkpoints.

VideoMV starts its orbit at +X, orbit4d at -Y: the same world turned by +90 degrees about Z. Axes of the
camera (OpenGL) and the direction of travel agree. Trainer and pipeline go through this one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera

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
