"""Cameras and orbits: the conventions every other module links to.

World: right-handed, +Z up, the object centred at the origin. "Front" is seen from -Y looking along +Y.
Camera: `c2w` is a 4x4 float64 camera-to-world matrix with OpenGL axes (+X right, +Y up, looks along -Z).
Intrinsics are in pixels; the centre of the pixel in column j, row i lies at (j + 0.5, i + 0.5).
Names carry the direction of a transform (`c2w`, `w2c`); OpenCV axes (+X right, +Y down, looks along +Z)
appear only behind a name that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Horizontal field of view of Blender's start-up camera: 50 mm on a 36 mm sensor.
DEFAULT_FOV_X_DEG = 39.5978
DEFAULT_RADIUS = 2.0
#: Turns OpenGL camera axes into OpenCV camera axes and back (it is its own inverse).
FLIP_YZ: Array = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion. ValueError for a `c2w` that is no finite 4x4 matrix."""

    c2w: Array
    """Camera-to-world, [4, 4], OpenGL axes."""
    fl_x: float
    """Horizontal focal length in pixels."""
    fl_y: float
    """Vertical focal length in pixels."""
    cx: float
    """Principal point, column, in pixels."""
    cy: float
    """Principal point, row, in pixels."""
    w: int
    """Image width in pixels."""
    h: int
    """Image height in pixels."""

    def __post_init__(self) -> None:
        c2w = np.array(self.c2w, dtype=np.float64)
        if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
            raise ValueError(f"c2w must be a finite 4x4 matrix, got shape {c2w.shape}")
        c2w.setflags(write=False)
        object.__setattr__(self, "c2w", c2w)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Camera):
            return NotImplemented
        return self.intrinsics == other.intrinsics and np.array_equal(self.c2w, other.c2w)

    def __hash__(self) -> int:
        return hash((self.c2w.tobytes(), self.intrinsics))

    @property
    def intrinsics(self) -> tuple[float, float, float, float, int, int]:
        """(fl_x, fl_y, cx, cy, w, h)."""
        return (self.fl_x, self.fl_y, self.cx, self.cy, self.w, self.h)

    @property
    def K(self) -> Array:
        """Intrinsic matrix, [3, 3], for OpenCV camera axes."""
        return np.array([[self.fl_x, 0.0, self.cx], [0.0, self.fl_y, self.cy], [0.0, 0.0, 1.0]])

    @property
    def w2c_opencv(self) -> Array:
        """World-to-camera, [4, 4], OpenCV axes: what gsplat calls a view matrix."""
        return c2w_to_w2c_opencv(self.c2w)

    @property
    def position(self) -> Array:
        """Camera centre in the world, [3]."""
        return self.c2w[:3, 3].copy()

    @property
    def fov_x_deg(self) -> float:
        """Horizontal field of view in degrees."""
        return float(np.degrees(2.0 * np.arctan(self.w / (2.0 * self.fl_x))))

    def resized(self, w: int, h: int) -> Camera:
        """The same view sampled on another pixel grid."""
        sx, sy = w / self.w, h / self.h
        return replace(
            self, fl_x=self.fl_x * sx, fl_y=self.fl_y * sy, cx=self.cx * sx, cy=self.cy * sy, w=w, h=h
        )

    def project(self, points: npt.ArrayLike) -> tuple[Array, Array]:
        """Project world points [..., 3] to pixels [..., 2] (column, row) and view-axis depths [...].

        Depths are positive in front of the camera; pixels of points behind it are meaningless.
        """
        points = np.asarray(points, dtype=np.float64)
        w2c = self.w2c_opencv
        local = points @ w2c[:3, :3].T + w2c[:3, 3]
        depth = local[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            column = self.fl_x * local[..., 0] / depth + self.cx
            row = self.fl_y * local[..., 1] / depth + self.cy
        return np.stack([column, row], axis=-1), depth


def c2w_to_w2c_opencv(c2w: npt.ArrayLike) -> Array:
    """Camera-to-world with OpenGL axes [..., 4, 4] to world-to-camera with OpenCV axes [..., 4, 4]."""
    return np.linalg.inv(np.asarray(c2w, dtype=np.float64) @ FLIP_YZ)


def w2c_opencv_to_c2w(w2c: npt.ArrayLike) -> Array:
    """Inverse of `c2w_to_w2c_opencv`."""
    return np.linalg.inv(np.asarray(w2c, dtype=np.float64)) @ FLIP_YZ


def focal_from_fov(fov_deg: float, size: int) -> float:
    """Focal length in pixels of a field of view in degrees over `size` pixels."""
    return float(size / (2.0 * np.tan(np.radians(fov_deg) / 2.0)))


def orbit_c2w(azimuth_deg: float, elevation_deg: float = 0.0, radius: float = DEFAULT_RADIUS) -> Array:
    """Camera-to-world [4, 4] of one orbit view that looks at the origin.

    Azimuth 0 is the front (-Y); it grows counter-clockwise seen from above, from -Y towards +X.
    The frame is built from the angles and not from a cross product with up, so it is defined at the poles.
    """
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    back = np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
    right = np.array([np.cos(a), np.sin(a), 0.0])
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2], c2w[:3, 3] = right, np.cross(back, right), back, radius * back
    return c2w


def orbit(
    n: int,
    radius: float = DEFAULT_RADIUS,
    elevation_deg: float = 0.0,
    fov_x_deg: float = DEFAULT_FOV_X_DEG,
    azimuth0_deg: float = 0.0,
    size: tuple[int, int] = (256, 256),
    closed: bool = False,
) -> list[Camera]:
    """`n` cameras on a circle around the origin.

    View i stands at azimuth `azimuth0_deg + 360 i / n` (no view repeats). `closed=True` gives the sampling of
    the published Diffusion4D renders, `360 i / (n - 1)`, whose last view repeats the first
    (VITA-Group/Diffusion4D, rendering/blender.py). `elevation_deg` is the real angle above the horizon.
    `radius` is in units of the normalised scene. `size` is (width, height) in pixels; pixels are square.
    ValueError for fewer than one view, or two where the orbit is closed.
    """
    if n < 1:
        raise ValueError(f"an orbit needs at least one view, got n={n}")
    if closed and n < 2:
        raise ValueError("a closed orbit needs at least two views")
    w, h = size
    focal = focal_from_fov(fov_x_deg, w)
    step = 360.0 / (n - 1 if closed else n)
    return [
        Camera(orbit_c2w(azimuth0_deg + step * i, elevation_deg, radius), focal, focal, w / 2, h / 2, w, h)
        for i in range(n)
    ]


def published_azimuth0_deg(fraction: float) -> float:
    """Azimuth of view 0 of a published folder with the suffix `_az<fraction>` (they turn the other way)."""
    return -360.0 * fraction


def published_elevation_deg(asked_deg: float) -> float:
    """Real elevation of a published folder with the suffix `_el<asked_deg>`.

    Their script uses degrees/180 as the z component of an un-normalised direction: 30 becomes 9.46 degrees.
    """
    return float(np.degrees(np.arctan(asked_deg / 180.0)))


def stack_c2w(cameras: Sequence[Camera]) -> Array:
    """[n, 4, 4] camera-to-world matrices of several cameras."""
    return np.stack([camera.c2w for camera in cameras])
