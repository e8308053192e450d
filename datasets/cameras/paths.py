"""Paths of a camera around the origin: circles, vertical circles, spirals, and splines through key poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orbit4d.datasets.cameras import moves
from orbit4d.datasets.cameras.camera import Array, orbit_c2w
from orbit4d.datasets.core.errors import InputError

PATHS = ("circle", "vertical", "spiral", "spline")
#: Units that a camera on a spline keeps from the origin: as near as a radius may be.
LEAST_RADIUS = 0.6

#: (azimuth, elevation) in degrees and radius in units.
Pose = tuple[float, float, float]


@dataclass(frozen=True)
class CameraPath:
    """How the camera of one orbit moves. All of them look at the origin."""

    kind: str = "circle"
    """`circle`: at one elevation. `vertical`: over the poles, at one azimuth. `spiral`: a circle that rises.
    `spline`: through key poses at an even speed."""
    turns: float = 1.0
    """Full turns over the clip; below 0 clockwise seen from above (of `vertical`: downwards first)."""
    rise_deg: float = 0.0
    """Elevation that a spiral gains over the clip."""
    roll_deg: float = 0.0
    """Turn of the camera about its viewing axis, counter-clockwise seen from behind it."""
    easing: float = 0.0
    """As in `moves.progress`: above 0 starts fast, below 0 slowly."""
    key_poses: tuple[Pose, ...] = ()
    """What a spline runs through; azimuths count from that of the orbit's start."""

    def c2w(self, start: Pose, frames: int, closed: bool) -> Array:
        """Camera-to-world [frames, 4, 4]; `closed` ends where the path ends, otherwise the last step is left
        out, so that no view of a full turn repeats. A spline always ends in its last pose."""
        azimuth, elevation, radius = start
        if self.kind == "spline":
            c2w = self._spline(azimuth, moves.progress(frames, self.easing))
        else:
            steps = max(frames - 1, 1) if closed else frames
            s = _eased(np.arange(frames) / steps, self.easing)
            turned = 360.0 * self.turns * s
            if self.kind == "vertical":
                poses = [(azimuth, elevation + turn, radius) for turn in turned.tolist()]
            else:
                rise = self.rise_deg if self.kind == "spiral" else 0.0
                # A spiral reaches its height in the last frame, closed or not.
                up = elevation + rise * (moves.progress(frames, self.easing))
                poses = [(azimuth + a, e, radius) for a, e in zip(turned.tolist(), up.tolist())]
            c2w = np.stack([orbit_c2w(*pose) for pose in poses])
        return rolled(c2w, self.roll_deg)

    def _spline(self, azimuth: float, s: Array) -> Array:
        places = [orbit_c2w(azimuth + a, e, r)[:3, 3] for a, e, r in self.key_poses]
        walked = moves.spline(places, s)
        nearest = float(np.linalg.norm(walked, axis=1).min())
        if nearest < LEAST_RADIUS:
            raise InputError(
                f"key poses: the path comes within {nearest:.2f} units of the centre; keep {LEAST_RADIUS:g}"
            )
        return np.stack([moves.look_at_origin(place) for place in walked])


def rolled(c2w: Array, roll_deg: float) -> Array:
    """Poses [..., 4, 4] turned about their own viewing axis, counter-clockwise seen from behind."""
    if roll_deg == 0.0:
        return c2w
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    return c2w @ turn


def parse_key_poses(text: str, option: str = "--key-poses") -> tuple[Pose, ...]:
    """`az,el,radius; az,el,radius; ...`, at least two. InputError, one line, for anything else."""
    poses: list[Pose] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            azimuth, elevation, radius = (float(number) for number in part.split(","))
        except ValueError:
            raise InputError(f"{option}: {part!r} is no pose; write azimuth,elevation,radius") from None
        if not (abs(elevation) <= 89.0 and LEAST_RADIUS <= radius <= 100.0 and abs(azimuth) <= 36000.0):
            raise InputError(
                f"{option}: {part!r}: elevations lie within -89 to 89 degrees, radii within "
                f"{LEAST_RADIUS:g} to 100 units"
            )
        poses.append((azimuth, elevation, radius))
    check_key_poses(poses, option)
    return tuple(poses)


def check_key_poses(poses: Sequence[Pose], option: str = "--key-poses") -> None:
    """InputError unless there are two poses at least, and not all in one place."""
    if len(set(poses)) < 2:
        raise InputError(f"{option}: {len(poses)} poses; a spline needs two different ones at least")


def _eased(u: Array, a: float) -> Array:
    return u if a == 0.0 else np.expm1(-a * u) / np.expm1(-a)
