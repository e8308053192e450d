"""Cameras of Unreal Engine as the SynCamVideo and MultiCamVideo sets store them, and ours.

A matrix string has four bracketed rows: forward, right, up, position, in Unreal's left-handed world (x
forward, y right, z up), centimetres. S swaps x and y and turns it into ours (Unreal forward is +Y, right is
+X). With t the target in cm and m metres a unit, the columns of c2w are x = S right, y = S up, z = -S forward
and position = S (p - t) / (100 m). Taken as right-handed, as the released code does, absolute matrices are
mirrored (determinant -1); here they never are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import FLIP_YZ, Array, c2w_to_w2c_opencv

#: Width of the square sensor of both sets, mm.
SENSOR_MM = 23.76
#: Metres that one of our units stands for.
METRES_PER_UNIT = 2.0
#: Moving cameras look at a point this far ahead of the first pose, cm.
AHEAD_CM = 400.0
#: Optical axes that miss their common point by more than this have none, cm.
MISS_CM = 50.0

_SWAP: Array = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


def parse_matrix(text: str) -> Array:
    """[4, 4] rows forward, right, up, position of a matrix string; ValueError for anything else.

    A row of three numbers (older files) gets its 0, the position its 1.
    """
    rows = [[float(word) for word in part.split()] for part in _BRACKETS.findall(text)]
    if len(rows) != 4 or any(len(row) not in (3, 4) for row in rows):
        raise ValueError("a camera is four bracketed rows of four numbers")
    matrix = np.array([[*row[:3], 1.0 if i == 3 else 0.0] for i, row in enumerate(rows)])
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise ValueError("a camera's forward, right and up are independent, finite directions")
    return matrix


def matrix_text(matrix: npt.ArrayLike, digits: int | None = None) -> str:
    """The matrix string; `digits` 6 as in the 2025 files (with their trailing blank), None: all digits."""
    rows = np.asarray(matrix, dtype=np.float64)
    if digits is None:
        return " ".join("[" + " ".join(repr(float(v) + 0.0) for v in row) + "]" for row in rows)
    return "".join("[" + " ".join(f"{v:.{digits}g}" for v in row) + "] " for row in rows)


def to_c2w(
    matrix: npt.ArrayLike, target_cm: npt.ArrayLike, metres_per_unit: float = METRES_PER_UNIT
) -> Array:
    """Our camera-to-world [..., 4, 4] of rows forward, right, up, position [..., 4, 4]."""
    rows = np.asarray(matrix, dtype=np.float64)
    forward, right, up, position = (rows[..., i, :3] @ _SWAP.T for i in range(4))
    c2w = np.zeros(rows.shape)
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2] = right, up, -forward
    offset = _SWAP @ np.asarray(target_cm, dtype=np.float64)
    c2w[..., :3, 3] = (position - offset) / (100.0 * metres_per_unit)
    c2w[..., 3, 3] = 1.0
    return c2w


def from_c2w(c2w: npt.ArrayLike, target_cm: npt.ArrayLike, metres_per_unit: float = METRES_PER_UNIT) -> Array:
    """Inverse of `to_c2w`."""
    ours = np.asarray(c2w, dtype=np.float64)
    rows = np.zeros(ours.shape)
    for i, (column, sign) in enumerate(((2, -1.0), (0, 1.0), (1, 1.0))):
        rows[..., i, :3] = sign * ours[..., :3, column] @ _SWAP.T
    rows[..., 3, :3] = 100.0 * metres_per_unit * ours[..., :3, 3] @ _SWAP.T + np.asarray(target_cm)
    rows[..., 3, 3] = 1.0
    return rows


def target_of(matrices: Sequence[npt.ArrayLike], moving: bool = False) -> Array:
    """The point [3], cm, that cameras look at: nearest to all optical axes of static ones; where axes miss it
    by more than MISS_CM, or cameras move, the first pose's position and AHEAD_CM forward."""
    rows = np.stack([np.asarray(matrix, dtype=np.float64) for matrix in matrices])
    forward = rows[:, 0, :3] / np.linalg.norm(rows[:, 0, :3], axis=1, keepdims=True)
    position = rows[:, 3, :3]
    ahead = position[0] + AHEAD_CM * forward[0]
    if moving or len(rows) < 2:
        return ahead
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.sum(0)
    if np.linalg.cond(total) > 1e8:
        return ahead
    point: Array = np.linalg.solve(total, np.einsum("nij,nj->i", across, position))
    missed = np.linalg.norm(np.einsum("nij,nj->ni", across, position - point), axis=1)
    return point if missed.max() <= MISS_CM else ahead


def relative_numbers(reference: npt.ArrayLike, c2w: npt.ArrayLike, unit_metres: float = 2.0,
                     metres_per_unit: float = METRES_PER_UNIT) -> Array:  # fmt: skip
    """[..., 12] rows of [R|t] of each camera in the reference's OpenCV frame, t in `unit_metres`
    (SynCamMaster counts in 2 m, ReCamMaster in 1 m)."""
    relative = c2w_to_w2c_opencv(reference) @ (np.asarray(c2w, dtype=np.float64) @ FLIP_YZ)
    relative[..., :3, 3] *= metres_per_unit / unit_metres
    return relative[..., :3, :].reshape(*relative.shape[:-2], 12)


def focal_of(lens_mm: float, size: tuple[int, int]) -> float:
    """Focal length in pixels: wider images crop the square sensor."""
    return lens_mm / SENSOR_MM * max(size)


def lens_of(focal: float, size: tuple[int, int]) -> float:
    """Lens in mm of a focal length in pixels."""
    return focal * SENSOR_MM / max(size)
