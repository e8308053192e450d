"""Cameras of DTU as MVSNet's text files hold them, for images of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera, w2c_opencv_to_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally

#: The image that the files' intrinsics are a quarter of.
SIZE, QUARTER = (640, 512), 4
#: Farthest that a rotation of six digits may be from one.
_ROUNDED = 1e-3


def is_dtu(path: Path) -> bool:
    """Whether a --cameras is a text file, or a folder of them."""
    return path.suffix.lower() == ".txt" or (path.is_dir() and any(path.glob("*.txt")))


def read_dtu_cameras(path: Path, count: int, size: tuple[int, int]) -> list[Camera]:
    """One camera for each of `count` images of `size` (width, height): a file, or those of a folder.

    InputError for another number of files, and for a file that is none of these.
    """
    files = naturally(path.glob("*.txt")) if path.is_dir() else [path]
    if len(files) != count:
        raise InputError(f"{path}: {len(files)} cameras for {count} images; give one for each")
    return [read_dtu_camera(file, size) for file in files]


def read_dtu_camera(file: Path, size: tuple[int, int]) -> Camera:
    """A camera: lines 2 to 4 world to camera [R|t] (OpenCV axes), lines 8 to 10 K of a quarter of 640 x 512.

    K's rows grow to `size` each by its own factor, as NVS-Solver's released code has it. InputError for what
    is no such file.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        pose, k = _matrix(lines[1:4], 4), _matrix(lines[7:10], 3)
    except (OSError, ValueError, IndexError):
        raise InputError(
            f"{file}: no camera of DTU (lines 2 to 4 [R|t] of four numbers each, lines 8 to 10 K of three)"
        ) from None
    rotation = pose[:, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ROUNDED or np.linalg.det(rotation) < 0:
        raise InputError(f"{file}: lines 2 to 4 hold no rotation; they are world to camera [R|t]")
    if not (k[0, 0] > 0 and k[1, 1] > 0):
        raise InputError(f"{file}: lines 8 to 10 hold no focal lengths above 0")
    across, down = (QUARTER * own / whole for own, whole in zip(size, SIZE))
    w2c = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    return Camera(
        w2c_opencv_to_c2w(w2c), k[0, 0] * across, k[1, 1] * down, k[0, 2] * across, k[1, 2] * down, *size
    )


def _matrix(lines: list[str], columns: int) -> npt.NDArray[np.float64]:
    matrix = np.array([[float(x) for x in line.split()] for line in lines])
    if matrix.shape != (3, columns) or not np.isfinite(matrix).all():
        raise ValueError
    return matrix
