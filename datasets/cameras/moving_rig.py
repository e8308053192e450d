"""The moving cameras of MultiCamVideo (KwaiVGI/ReCamMaster), one random draw each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.cameras import moves
from orbit4d.datasets.cameras.camera import Array, orbit_c2w

SENSOR_MM = 23.76
#: Focal length in mm and f-number of the lenses; a scene has one of them.
LENSES = ((18.0, 10.0), (24.0, 5.0), (35.0, 2.4), (50.0, 2.4))
KINDS = ("pan", "tilt", "translate", "arc", "random", "static")
#: Radii in metres of the hemispheres that cameras start in, and the least distance.
HEMISPHERES_M = (3.0, 5.0, 7.0, 10.0)
LEAST_START_M = 2.5
#: Units that a camera keeps from the origin.
LEAST_DISTANCE = 1.0
DRAWS = 100
#: Where a pose lies at a limit, it lies there but for rounding.
_EPSILON = 1e-9

Generator = np.random.Generator


@dataclass(frozen=True)
class MovingCamera:
    """Poses of one camera and the numbers they come from."""

    c2w: Array
    """[F, 4, 4]"""
    azimuth_deg: float
    elevation_deg: float
    radius: float
    told: Mapping[str, Any]


def scene_lens(generator: Generator) -> tuple[float, float]:
    """(focal length in mm, f-number) of a scene."""
    return LENSES[int(generator.integers(len(LENSES)))]


def moving_camera(
    generator: Generator, frames: int, metres_per_unit: float, ground: float
) -> MovingCamera | None:
    """A camera that stays 1 unit from the origin and above the height `ground`; None after 100 draws.

    Start, kind of move, progress and move are drawn in this order.
    """
    for _ in range(DRAWS):
        radius = HEMISPHERES_M[int(generator.integers(len(HEMISPHERES_M)))]
        distance = generator.uniform(LEAST_START_M, radius) / metres_per_unit
        azimuth, elevation = generator.uniform(0.0, 360.0), generator.uniform(0.0, 45.0)
        kind = KINDS[int(generator.integers(len(KINDS)))]
        even, a = generator.random() < 0.5, _signed(generator, 1.0, 4.0)
        easing = 0.0 if even else a
        s = moves.progress(frames, easing)
        c2w, told = _moved(generator, kind, (azimuth, elevation, distance), s)
        places = c2w[:, :3, 3]
        near = np.linalg.norm(places, axis=1).min() < LEAST_DISTANCE - _EPSILON
        if not near and places[:, 2].min() >= ground - _EPSILON:
            told = {"kind": kind, **told}
            if kind != "static":
                told["easing"] = easing
            return MovingCamera(c2w, azimuth, elevation, distance, told)
    return None


def _moved(
    generator: Generator, kind: str, place: tuple[float, float, float], s: Array
) -> tuple[Array, dict[str, Any]]:
    start = orbit_c2w(*place)
    if kind == "pan":
        amount = _signed(generator, 5.0, 45.0)
        return moves.pan(start, amount, s), {"amount_deg": amount}
    if kind == "tilt":
        amount = _signed(generator, 5.0, 30.0)
        return moves.tilt(start, amount, s), {"amount_deg": amount}
    if kind == "translate":
        axis = np.zeros(3)
        side = int(generator.integers(6))
        axis[side // 2] = 1.0 if side % 2 == 0 else -1.0
        amount = moves.free_way(start, axis, generator.uniform(0.25, 1.0) * place[2], LEAST_DISTANCE)
        return moves.translate(start, axis, amount, s), {"axis": axis.tolist(), "amount": amount}
    if kind == "arc":
        by = _arc_angles(generator, place[1])
        return moves.arc(*place, by, s), {"by_deg": list(by)}
    if kind == "random":
        points = _points(generator, start[:3, 3], place[2])
        return moves.wander(points, s), {"points": points.tolist()}
    return np.repeat(start[None], len(s), axis=0), {}


def _arc_angles(generator: Generator, elevation: float) -> tuple[float, float]:
    """(azimuth, elevation) that an arc goes by; one in four goes over the elevation, within 0 to 45."""
    upright = generator.random() < 0.25
    amount = _signed(generator, 15.0, 75.0)
    while upright and not 0.0 <= elevation + amount <= 45.0:
        amount = _signed(generator, 15.0, 75.0)
    return (0.0, amount) if upright else (amount, 0.0)


def _points(generator: Generator, start: Array, distance: float) -> Array:
    """[P, 3] the start and 1 to 3 points around it, as long a way as 1/4 to 1 times the distance."""
    n = int(generator.integers(1, 4))
    ways = generator.normal(size=(n, 3))
    ways *= (generator.random(n) ** (1 / 3) / np.linalg.norm(ways, axis=1))[:, None]
    length = generator.uniform(0.25, 1.0) * distance
    offsets = np.concatenate([np.zeros((1, 3)), ways])
    return start + offsets * (length / np.linalg.norm(np.diff(offsets, axis=0), axis=1).sum())


def _signed(generator: Generator, low: float, high: float) -> float:
    amount = generator.uniform(low, high)
    return float(amount if generator.random() < 0.5 else -amount)
