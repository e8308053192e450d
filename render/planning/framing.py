"""Scale and centre: how an asset is brought into the frame. Pure functions over vertex samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera

Points = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Framing:
    """World points x of the asset are shown at scale · (x − centre)."""

    scale: float
    centre: tuple[float, float, float]

    def apply(self, points: Points) -> npt.NDArray[np.float64]:
        """Points [..., 3] in the normalised scene."""
        return self.scale * (np.asarray(points, np.float64) - np.array(self.centre))


def union_box(poses: Iterable[Points]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(low [3], high [3]) of the box around vertices [V, 3] of all times. ValueError when there are
    none.
    """
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for points in poses:
        if len(points):
            low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("no finite vertex to frame")
    return low, high


def box_framing(low: Points, high: Points) -> Framing:
    """Longest edge of the box 1, its centre at the origin."""
    edge = float(np.max(high - low))
    if edge <= 0.0:
        raise ValueError("the box has no extent")
    centre = tuple(float(c) for c in (low + high) / 2.0)
    return Framing(1.0 / edge, centre)  # type: ignore[arg-type]


def frame_load(points: Points, radius: float, half_tan: float, elevation_deg: float = 0.0) -> float:
    """How far points [V, 3] fill the frame over all azimuths; 1 touches the edge, 0 for no points.

    For a camera on the orbit let b be a point's coordinate towards the camera, and x, u its coordinates to
    the right and up. It is seen where |x| and |u| ≤ k (d − b), with k = tan(fov/2) and d the radius. Over all
    azimuths a point at distance ρ from the axis and height z has, at elevation e, in the worst case

        x + k b = ρ √(1 + k² cos² e) + k z sin e
        ±u + k b = ρ |k cos e ∓ sin e| + z (k sin e ± cos e)

    and each must be ≤ k d. All are linear in scale, so k d over the largest is the scale that just fits.
    At e = 0 these are ρ/√(d² − ρ²) ≤ k and |z|/(d − ρ) ≤ k.
    """
    if len(points) == 0:
        return 0.0
    points = np.asarray(points, np.float64)
    sin, cos, k = np.sin(np.radians(elevation_deg)), np.cos(np.radians(elevation_deg)), half_tan
    rho, z = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    side = rho * np.sqrt(1.0 + (k * cos) ** 2) + k * z * sin
    up = rho * abs(k * cos - sin) + z * (k * sin + cos)
    down = rho * abs(k * cos + sin) + z * (k * sin - cos)
    return float(np.max([side.max(), up.max(), down.max()]) / (k * radius))


def fit(
    box: Framing,
    poses: Iterable[Points],
    radius: float,
    fov_x_deg: float,
    elevation_deg: float = 0.0,
    margin: float = 0.02,
) -> Framing:
    """Shrink `box` until every vertex [V, 3] of every time is inside the frame at any azimuth.

    `margin` is the share of the half-frame that stays free on each side. Never enlarges.
    """
    return fit_all(box, poses, [FramedFor(radius, fov_x_deg, elevation_deg)], margin)


@dataclass(frozen=True)
class FramedFor:
    """What an object must be in view of: a circle of cameras, at any azimuth, or cameras one by one."""

    radius: float
    fov_x_deg: float
    elevation_deg: float = 0.0
    cameras: tuple[Camera, ...] = ()
    """Of a path that is no plain circle; all look at the origin. The numbers above then do not count."""

    def load(self, points: Points, margin: float) -> float:
        """How far points [V, 3] fill the frame less its margin; 1 touches the edge."""
        if self.cameras:
            return camera_load(points, self.cameras, margin)
        half_tan = (1.0 - margin) * np.tan(np.radians(self.fov_x_deg) / 2.0)
        return frame_load(points, self.radius, half_tan, self.elevation_deg)


def camera_load(points: Points, cameras: Sequence[Camera], margin: float) -> float:
    """As `frame_load`, for these cameras alone, which look at the origin with the principal point in the
    middle: |x| and |u| ≤ k (d - b) is linear in scale for each of them."""
    points = np.asarray(points, np.float64)
    if len(points) == 0:
        return 0.0
    found = 0.0
    for camera in dict.fromkeys(cameras):
        local = points @ camera.c2w[:3, :3]
        distance = float(np.linalg.norm(camera.position))
        for axis, size, focal in ((0, camera.w, camera.fl_x), (1, camera.h, camera.fl_y)):
            k = (1.0 - margin) * size / (2.0 * focal)
            found = max(found, float((np.abs(local[:, axis]) + k * local[:, 2]).max() / (k * distance)))
    return found


def fit_all(
    box: Framing, poses: Iterable[Points], framed_for: Sequence[FramedFor], margin: float = 0.02
) -> Framing:
    """As `fit`, for all that the object must be in view of."""
    distinct = list(dict.fromkeys(framed_for))
    load = max(
        (each.load(placed, margin) for placed in map(box.apply, poses) for each in distinct), default=0.0
    )
    return Framing(box.scale / max(1.0, load), box.centre)
