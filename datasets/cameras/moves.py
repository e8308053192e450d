"""How a camera moves through a clip: progress, and the moves of MultiCamVideo's recipe.

A move takes the progress s [F] of its frames, from 0 to 1, and gives camera-to-world matrices [F, 4, 4]
(OpenGL axes). `static`, `arc` and `wander` look at the origin; `pan`, `tilt` and `translate` turn or shift
the first pose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Array, orbit_c2w

#: Points at which a spline is measured to walk it by arc length.
_SPLINE_STEPS = 512


def progress(frames: int, a: float = 0.0) -> Array:
    """s(i / (F - 1)) for F frames, from 0 to 1: even for a = 0, else (1 - e^(-a u)) / (1 - e^(-a)), which
    starts fast for a > 0 and slow for a < 0. [0] for one frame.
    """
    u = np.arange(frames) / max(frames - 1, 1)
    return u if a == 0.0 else np.expm1(-a * u) / np.expm1(-a)


def look_at_origin(position: npt.ArrayLike) -> Array:
    """Pose [4, 4] at `position` [3] that looks at the origin without roll. ValueError at the origin."""
    x, y, z = np.asarray(position, dtype=np.float64)
    radius = float(np.sqrt(x * x + y * y + z * z))
    if radius == 0.0:
        raise ValueError("a camera in the origin cannot look at it")
    c2w = orbit_c2w(
        float(np.degrees(np.arctan2(x, -y))), float(np.degrees(np.arcsin(np.clip(z / radius, -1, 1)))), radius
    )
    c2w[:3, 3] = x, y, z
    return c2w


def pan(start: Array, amount_deg: float, s: Array) -> Array:
    """Turn about the world's vertical, to the right for positive amounts; the position is fixed."""
    angle = -np.radians(amount_deg) * s
    turn = _rotations(angle, 2)
    return _posed(turn @ start[:3, :3], np.broadcast_to(start[:3, 3], (len(s), 3)))


def tilt(start: Array, amount_deg: float, s: Array) -> Array:
    """Turn about the camera's own x, upwards for positive amounts; the position is fixed."""
    turn = _rotations(np.radians(amount_deg) * s, 0)
    return _posed(start[:3, :3] @ turn, np.broadcast_to(start[:3, 3], (len(s), 3)))


def arc(azimuth_deg: float, elevation_deg: float, radius: float, by: tuple[float, float], s: Array) -> Array:
    """Along a sphere around the origin, by (azimuth, elevation) degrees."""
    return np.stack(
        [
            orbit_c2w(azimuth_deg + by[0] * u, elevation_deg + by[1] * u, radius)
            for u in np.asarray(s).tolist()
        ]
    )


def translate(start: Array, axis: npt.ArrayLike, amount: float, s: Array) -> Array:
    """Along `axis` [3] of the camera's own axes, by `amount` units; the rotation is fixed."""
    way = start[:3, :3] @ np.asarray(axis, dtype=np.float64)
    places = start[:3, 3] + np.asarray(s)[:, None] * amount * way
    return _posed(np.broadcast_to(start[:3, :3], (len(s), 3, 3)), places)


def wander(points: npt.ArrayLike, s: Array) -> Array:
    """Along the spline through `points` [P, 3] (see `spline`), looking at the origin."""
    return np.stack([look_at_origin(place) for place in spline(points, s)])


def free_way(start: Array, axis: npt.ArrayLike, amount: float, least: float) -> float:
    """How much of `amount` (>= 0) along the camera's own `axis` keeps the camera `least` from the origin."""
    way = start[:3, :3] @ np.asarray(axis, dtype=np.float64)
    half, rest = float(start[:3, 3] @ way), float(start[:3, 3] @ start[:3, 3]) - least**2
    inside = half * half - rest
    if half >= 0.0 or inside <= 0.0:
        return amount
    return float(np.clip(-half - np.sqrt(inside), 0.0, amount))


def spline(through: npt.ArrayLike, s: Array) -> Array:
    """[F, 3] points of the centripetal Catmull-Rom spline through points [P, 3], at shares `s` of its length.
    It begins and ends in the first and last point; two points make a straight line."""
    points: Array = np.asarray(through, dtype=np.float64)
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.concatenate([[True], gaps > 0.0])]
    if len(points) == 1:
        return np.repeat(points, len(s), axis=0)
    if len(points) == 2:
        return points[0] + np.asarray(s)[:, None] * (points[1] - points[0])
    ends = np.stack([2 * points[0] - points[1], 2 * points[-1] - points[-2]])
    controls = np.concatenate([ends[:1], points, ends[1:]])
    u = np.arange(_SPLINE_STEPS) / _SPLINE_STEPS
    pieces = [_catmull_rom(controls[i : i + 4], u) for i in range(len(points) - 1)]
    dense = np.concatenate([*pieces, points[-1:]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    at = np.asarray(s) * length[-1]
    return np.stack([np.interp(at, length, dense[:, k]) for k in range(3)], axis=1)


def _catmull_rom(points: Array, u: Array) -> Array:
    """The piece between the middle two of four points, by Barry and Goldman's pyramid; knots at square roots
    of distances."""
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1)))])
    t = (knots[1] + u * (knots[2] - knots[1]))[:, None]

    def between(a: Array, b: Array, i: int, j: int) -> Array:
        return (a * (knots[j] - t) + b * (t - knots[i])) / (knots[j] - knots[i])

    first = [between(points[i], points[i + 1], i, i + 1) for i in range(3)]
    second = [between(first[i], first[i + 1], i, i + 2) for i in range(2)]
    return between(second[0], second[1], 1, 2)


def _rotations(angles: Array, axis: int) -> Array:
    """[F, 3, 3] rotations about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.zeros((len(angles), 3, 3))
    turn[:, axis, axis] = 1.0
    turn[:, i, i] = turn[:, j, j] = np.cos(angles)
    turn[:, j, i], turn[:, i, j] = np.sin(angles), -np.sin(angles)
    return turn


def _posed(rotation: Array, position: Array) -> Array:
    c2w = np.zeros((len(position), 4, 4))
    c2w[:, :3, :3], c2w[:, :3, 3], c2w[:, 3, 3] = rotation, position, 1.0
    return c2w
