"""The released forward warps of NVS-Solver, for parity: soft splatting, quirks included.

Pixels lie at whole numbers. A point whose target coordinate is a whole number is added twice; how softly near
wins depends on the farthest pixel; a point behind the camera lands mirrored with the largest weight, which
the upper limit of the weight removes where there is one. Our own warp is `warp.forward_warp`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Per rule: largest depth, largest summed weight of a pixel that counts as seen.
RULES = {"repo-single": (5_000.0, 0.6), "repo-video": (10_000.0, 0.6), "repo-two": (1_000.0, np.inf)}


def repo_warp(
    image: npt.NDArray[Any], depth: Array, K: Array, pose1: Array, pose2: Array, rule: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The warped image [H, W, 3] and where it is seen [H, W]; poses are world-to-camera in OpenCV axes."""
    h, w = depth.shape
    farthest, most = RULES[rule]
    x, y = np.meshgrid(np.arange(w, dtype=np.float64), np.arange(h, dtype=np.float64))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    motion = pose2 @ np.linalg.inv(pose1)
    moved = (rays * depth[..., None]) @ motion[:3, :3].T + motion[:3, 3]
    at = moved @ K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        target = at[..., :2] / at[..., 2:]
    total, weight = _splat(image.astype(np.float64), target, _nearness(moved[..., 2], farthest), h, w)
    seen = weight > 0
    colour = np.divide(total, weight[..., None], out=np.zeros_like(total), where=seen[..., None])
    colour[~seen] = 0
    if image.dtype == np.uint8:
        colour = np.rint(np.clip(colour, 0, 255))
    return colour.astype(image.dtype), seen & (weight <= most)


def _nearness(z: Array, farthest: float) -> Array:
    logarithm = np.log1p(np.clip(z, 0, farthest))
    largest = logarithm.max()
    return np.asarray(np.exp(-50 * logarithm / largest) if largest > 0 else np.ones_like(z))


def _splat(image: Array, target: Array, near: Array, h: int, w: int) -> tuple[Array, Array]:
    """Sums of colour times weight [H, W, 3] and of weight [H, W] over the four pixels around each target.

    Targets beyond the image fall on a ring of one pixel around it, which is cut off at the end.
    """
    position = np.nan_to_num(target, nan=-1e9, posinf=1e9, neginf=-1e9) + 1
    limit = np.array([w + 1, h + 1])
    low = np.clip(np.floor(position), 0, limit).astype(np.int64)
    high = np.clip(np.ceil(position), 0, limit).astype(np.int64)
    position = np.clip(position, 0, limit)
    total, weight = np.zeros((h + 2, w + 2, image.shape[-1])), np.zeros((h + 2, w + 2))
    for row, column in ((low, low), (high, low), (low, high), (high, high)):
        share = (1 - np.abs(position[..., 1] - row[..., 1])) * (1 - np.abs(position[..., 0] - column[..., 0]))
        share = share * near
        index = (row[..., 1].ravel(), column[..., 0].ravel())
        np.add.at(weight, index, share.ravel())
        for channel in range(image.shape[-1]):
            np.add.at(total[..., channel], index, (image[..., channel] * share).ravel())
    return total[1:-1, 1:-1], weight[1:-1, 1:-1]
