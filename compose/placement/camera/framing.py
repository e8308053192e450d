"""What one camera holds: the nearest place from which points fill a square frame, and who is inside it.

Boxes are [F, A, 2, 3], low and high corners of every individual at every frame, metres.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import DEFAULT_FOV_X_DEG, Camera, focal_from_fov, orbit_c2w

Floats = npt.NDArray[np.float64]

#: Share of the frame that boxes may fill.
FILL = 0.90
ELEVATIONS = {"low": -5.0, "eye": 10.0, "high": 35.0, "top": 80.0}
FOV = DEFAULT_FOV_X_DEG
#: Metres above the ground below which no camera goes, and metres that it keeps from what it films.
LOWEST, NEAREST = 0.1, 0.3


def tan_half(fov: float = FOV) -> float:
    return float(np.tan(np.radians(fov / 2)))


def corners_of(boxes: Floats) -> Floats:
    """[..., 8, 3] corners of boxes [..., 2, 3]."""
    return np.stack(
        [np.stack([boxes[..., k[a], a] for a in range(3)], axis=-1) for k in product((0, 1), repeat=3)],
        axis=-2,
    )


def tightest(local: Floats, tan: float, fill: float = FILL) -> Floats:
    """[3] the nearest eye, in camera axes (right, up, back), from which points [N, 3] fill a square frame.

    Closed form per axis: |x - eye| <= fill tan (back - z) of every point is one bound to each side, and the
    distance is where both are met. Along the axis that leaves room the points are in the middle.
    """
    t = fill * tan
    eye, need = np.zeros(3), [float(local[:, 2].max()) + NEAREST]
    for axis in (0, 1):
        right, left = (float((s * local[:, axis] + t * local[:, 2]).max()) for s in (1, -1))
        eye[axis] = (right - left) / 2
        need.append((right + left) / (2 * t))
    eye[2] = max(need)
    for axis in (0, 1):
        eye[axis] = _between(local[:, axis], eye[2] - local[:, 2])
    return eye


def _between(places: Floats, depths: Floats) -> float:
    """Where an eye stands along an axis so that points are as far from the middle of the frame on both sides:
    bisection of two bounds, one that falls and one that rises."""
    low, high = float(places.min()), float(places.max())
    for _ in range(50):
        middle = (low + high) / 2
        slopes = (places - middle) / depths
        low, high = (middle, high) if slopes.max() > -slopes.min() else (low, middle)
    return (low + high) / 2


def back_for(local: Floats, eye: Floats, tan: float, fill: float = FILL) -> float:
    """How far back, in camera axes, an eye that looks past (eye x, eye y) must stand for points [N, 3]."""
    reach = np.abs(local[:, :2] - eye[:2]).max(axis=1) / (fill * tan)
    return max(float((local[:, 2] + reach).max()), float(local[:, 2].max()) + NEAREST)


def distance_for(points: Floats, target: Floats, axes: Floats, tan: float, fill: float = FILL) -> float:
    """Smallest distance from `target` along back = axes[:, 2] at which points [N, 3] fill a square frame."""
    return back_for((points - target) @ axes, np.zeros(3), tan, fill)


def camera_at(
    target: Floats, azimuth: float, elevation: float, distance: float, size: int, pan: float = 0.0,
    fov: float = FOV,
) -> Camera:  # fmt: skip
    """A camera that looks at `target`; where it would be below the ground it stands higher and looks down."""
    lowest = (LOWEST - target[2]) / max(distance, 1e-9)
    if np.sin(np.radians(elevation)) < lowest:
        elevation = float(np.degrees(np.arcsin(min(lowest, 1.0))))
    c2w = orbit_c2w(azimuth, elevation, distance)
    c2w[:3, 3] += target
    if pan:
        a = np.radians(pan)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
        c2w[:3, :3] = turn @ c2w[:3, :3]
    focal = focal_from_fov(fov, size)
    return Camera(c2w, focal, focal, size / 2, size / 2, size, size)


def overview(low: Floats, high: Floats, elevation: float, size: int) -> Camera:
    """A camera in front of a box [3], [3], which fills its square frame."""
    corners, target = corners_of(np.stack([low, high])), (low + high) / 2
    axes = orbit_c2w(0.0, elevation, 1.0)[:3, :3]
    return camera_at(target, 0.0, elevation, distance_for(corners, target, axes, tan_half()), size)


def anybody(cameras: list[Camera], boxes: Floats) -> bool:
    """Whether anything of any box [F, A, 2, 3] is in the image of its frame."""
    for camera, frame in zip(cameras, boxes, strict=True):
        pixels, depth = camera.project(corners_of(frame))
        ahead = (depth > 0).any(axis=-1)
        low = np.where(depth[..., None] > 0, pixels, np.inf).min(axis=-2)
        high = np.where(depth[..., None] > 0, pixels, -np.inf).max(axis=-2)
        if (ahead & (high > 0).all(-1) & (low < [camera.w, camera.h]).all(-1)).any():
            return True
    return False


def inside_share(cameras: list[Camera], boxes: Floats) -> tuple[float, float]:
    """(share of frames with every box inside the image, least height of an actor in pixels)."""
    whole, least = [], np.inf
    for camera, frame in zip(cameras, boxes, strict=True):
        pixels, depth = camera.project(corners_of(frame))
        good: Any = (depth > 0) & (pixels >= 0).all(-1) & (pixels <= [camera.w, camera.h]).all(-1)
        whole.append(bool(good.all()))
        least = min(least, float(np.ptp(pixels[..., 1], axis=-1).min()))
    return float(np.mean(whole)), least
