"""Cameras as trainers read them: RealEstate10K lines, and Pluecker maps.

A line holds 19 numbers: `timestamp fx fy cx cy 0 0` and the upper three rows of world-to-camera with OpenCV
axes; fx and cx in units of the image's width, fy and cy of its height. VideoX-Fun and DiffSynth take the
intrinsics for those of a 1280x720 original that was resized to cover the image and cut: `videox-fun` writes
the numbers that come out right there, `realestate` the plain ones.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import FLIP_YZ, Camera

_WIDE = 16 / 9


def intrinsics_line(camera: Camera, convention: str) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) of a camera in `realestate` or `videox-fun` convention."""
    fx, fy = camera.fl_x / camera.w, camera.fl_y / camera.h
    if convention == "videox-fun":
        aspect = camera.w / camera.h
        fx *= min(1.0, aspect / _WIDE)
        fy *= min(1.0, _WIDE / aspect)
    return fx, fy, camera.cx / camera.w, camera.cy / camera.h


def camera_text(cameras: Sequence[Camera], seconds: Sequence[float], convention: str, title: str = "") -> str:
    """A camera file: a title line, then a line a frame, numbers with all their digits."""
    lines = [" ".join(title.split())]
    for camera, second in zip(cameras, seconds):
        w2c = camera.w2c_opencv[:3].reshape(-1)
        numbers = [*intrinsics_line(camera, convention), 0, 0, *w2c.tolist()]
        stamp = round(1e6 * (second - seconds[0]))
        lines.append(" ".join([str(stamp), *(repr(float(n)) if n else "0" for n in numbers)]))
    return "\n".join(lines) + "\n"


def pluecker_maps(cameras: Sequence[Camera]) -> npt.NDArray[np.float64]:
    """[F, H, W, 6] of (moment o x d, direction d) of each pixel's ray, relative to the first camera.

    Poses are E_i = w2c_0 c2w_i with OpenCV axes, not rescaled; d has length 1, o is the camera's centre.
    """
    first = cameras[0].w2c_opencv
    maps = []
    for camera in cameras:
        pose = first @ camera.c2w @ FLIP_YZ
        column, row = np.meshgrid(np.arange(camera.w) + 0.5, np.arange(camera.h) + 0.5)
        x, y = (column - camera.cx) / camera.fl_x, (row - camera.cy) / camera.fl_y
        rays = np.stack([x, y, np.ones_like(x)], -1) @ pose[:3, :3].T
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        moments = np.cross(np.broadcast_to(pose[:3, 3], rays.shape), rays)
        maps.append(np.concatenate([moments, rays], -1))
    return np.stack(maps)


def pluecker_file(cameras: Sequence[Camera], dtype: str) -> bytes:
    """An npz with `plucker` [F, H, W, 6] and `order`."""
    buffer = io.BytesIO()
    np.savez(buffer, plucker=pluecker_maps(cameras).astype(dtype), order=np.array("moment,direction"))
    return buffer.getvalue()
