"""What a step looks at: times of a clip, and where its camera stands."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.compose.animate.settings import Rig
from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit_c2w


def clip_times(
    rng: random.Random, n_frames: int, precision: int = 256, zero_rate: float = 0.2, mirror: float = 0.5
) -> tuple[npt.NDArray[np.float64], bool]:
    """Times [F] in [0, 1] of a clip, ascending, and whether it is a start clip.

    Animate124's over-sampling of both ends (HeliosZhao/Animate124): times are multiples of 1 / `precision`,
    the stride is that of a length drawn from F to `precision`. With `zero_rate` the clip starts at 0, and
    with `mirror` it is turned to end where it would have started, which alone reaches 1. A start clip was
    started at 0 by that draw and is not turned. ValueError for fewer than one frame, or more than
    `precision`.
    """
    if not 1 <= n_frames <= precision:
        raise ValueError(f"a clip has 1 to {precision} frames, got {n_frames}")
    stride = rng.randint(n_frames, precision) // n_frames
    at_zero = rng.random() < zero_rate
    start = 0 if at_zero else rng.randint(0, precision - stride * n_frames)
    quanta = start + stride * np.arange(n_frames)
    turned = rng.random() < mirror
    if turned:
        quanta = (precision - quanta)[::-1]
    return quanta / precision, at_zero and not turned


@dataclass(frozen=True)
class View:
    """Where a camera stands, looking at the origin."""

    elevation: float
    azimuth: float
    """Degrees; azimuth 0 is the front, counter-clockwise from above."""
    radius: float

    def camera(self, size: int, fov: float) -> Camera:
        """A square camera of `size` pixels and `fov` degrees."""
        focal = focal_from_fov(fov, size)
        c2w = orbit_c2w(self.azimuth, self.elevation, self.radius)
        return Camera(c2w, focal, focal, size / 2, size / 2, size, size)

    def as_tuple(self) -> tuple[float, float, float]:
        """(elevation, azimuth, distance): what view priors are given."""
        return self.elevation, self.azimuth, self.radius

    def angle_to(self, other: View) -> float:
        """Degrees between the directions of two views."""
        a, b = (_direction(view) for view in (self, other))
        return math.degrees(math.acos(min(1.0, max(-1.0, float(a @ b)))))


def _direction(view: View) -> npt.NDArray[np.float64]:
    e, a = math.radians(view.elevation), math.radians(view.azimuth)
    return np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])


def draw_view(rng: random.Random, rig: Rig) -> View:
    """A view of a step."""
    on_sphere = rig.upper_sphere > 0 and rng.random() < rig.upper_sphere
    azimuth = rng.uniform(-180.0, 180.0)
    if on_sphere:
        return View(math.degrees(math.asin(rng.random())), azimuth, rig.radius)
    return View(rng.uniform(-rig.elevation, rig.elevation), azimuth, rig.radius)


def draw_clip_views(rng: random.Random, rig: Rig, n_frames: int) -> tuple[list[View], bool]:
    """The views of a clip's frames, and whether the camera moves."""
    first = draw_view(rng, rig)
    if rng.random() >= rig.moving:
        return [first] * n_frames, False
    turn = rng.uniform(-rig.swing_azimuth, rig.swing_azimuth)
    rise = rng.uniform(-rig.swing_elevation, rig.swing_elevation)
    views = []
    for i in range(n_frames):
        share = i / n_frames
        elevation = max(-rig.highest, min(rig.highest, first.elevation + share * rise))
        views.append(View(elevation, first.azimuth + share * turn, rig.radius))
    return views, True


def side_of(view: View) -> str:
    """front, side or back view: what prompts of a standing camera say."""
    azimuth = abs((view.azimuth + 180.0) % 360.0 - 180.0)
    return "front view" if azimuth < 45 else "back view" if azimuth > 135 else "side view"
