"""Refinement that cannot run away: scale first, then every location, within tau / 2 (C3V, 6 and 7).

The energy is exact and needs no model: contact with the ground, what the lower body has inside blocked cells,
what of the box is outside the image, the scale's prior, and second differences of the path. Lengths are in
heights. S' = S + tau (sigmoid(raw) - 1/2), and L' so for each coordinate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.placement.bounds import bounded
from orbit4d.compose.placement.facing import capped, face
from orbit4d.compose.placement.ground import Ground
from orbit4d.compose.placement.planning import Placed, Plan
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.composition import MOST_TURN

Floats = npt.NDArray[np.float64]

#: Full width of the bounds, scene units (the paper's).
TAU = 0.1
RATE, ITERATIONS, ENOUGH = 0.05, 300, 1e-6
#: Largest raw value: 99.5 % of the bound; beyond it the slope is so small that it never comes back.
MOST_RAW = 6.0
#: Times that the locations are gone through: the first has neighbours that have not moved yet.
SWEEPS = 4
_PRIOR, _SMOOTH = 0.1, 0.1


@dataclass(frozen=True)
class Body:
    """What stands on the ground, in units of its own that a scale multiplies."""

    height: float
    radius: float


class Geometry:
    """The energy of one actor on one ground, seen by a camera or by none."""

    def __init__(self, ground: Ground, body: Body, prior: float, camera: Camera | None = None) -> None:
        from scipy.ndimage import distance_transform_edt

        self.ground, self.body, self.prior, self.camera = ground, body, prior, camera
        outside = (
            distance_transform_edt(~ground.blocked)
            if ground.blocked.any()
            else np.full(ground.blocked.shape, 1e9)
        )
        inside = distance_transform_edt(ground.blocked)
        self.distance = np.where(ground.blocked, -inside + 0.5, outside - 0.5) * ground.cell
        self.heights = np.nan_to_num(ground.heights)
        self.unit = prior * body.height
        """World length of a height: fixed, so that growing does not make lengths small."""

    def energy(
        self, scale: float, point: Floats, before: Floats | None = None, after: Floats | None = None
    ) -> tuple[float, float, Floats]:
        """(E, dE/dscale, dE/dpoint [3]) at a scale and a location; neighbours [3] where it has both."""
        h = self.unit
        total, by_scale, by_point = 0.0, 0.0, np.zeros(3)
        z, slope = self._field(self.heights, point)
        gap = (point[2] - z) / h
        total += gap * gap
        by_point += 2 * gap / h * np.array([-slope[0], -slope[1], 1.0])
        away, gradient = self._field(self.distance, point)
        into = (scale * self.body.radius - away) / h
        if into > 0:
            total += into * into
            by_scale += 2 * into / h * self.body.radius
            by_point[:2] -= 2 * into / h * gradient
        for excess, d_scale, d_point in self._outside(scale, point):
            total += (excess / h) ** 2
            by_scale += 2 * excess / h**2 * d_scale
            by_point += 2 * excess / h**2 * d_point
        change = scale / self.prior - 1
        total += _PRIOR * change * change
        by_scale += 2 * _PRIOR * change / self.prior
        if before is not None and after is not None:
            bend = (before - 2 * point + after) / h
            total += _SMOOTH * float(bend @ bend)
            by_point += -4 * _SMOOTH * bend / h
        return total, by_scale, by_point

    def _field(self, table: Floats, point: Floats) -> tuple[float, Floats]:
        """Bilinear value of a table over the ground, and its gradient by x and y."""
        rows, columns = table.shape
        x = (point[0] - self.ground.origin[0]) / self.ground.cell
        y = (point[1] - self.ground.origin[1]) / self.ground.cell
        j, i = int(np.clip(np.floor(x), 0, columns - 2)), int(np.clip(np.floor(y), 0, rows - 2))
        a, b = float(np.clip(x - j, 0, 1)), float(np.clip(y - i, 0, 1))
        (p, q), (r, s) = table[i, j : j + 2], table[i + 1, j : j + 2]
        value = (1 - b) * ((1 - a) * p + a * q) + b * ((1 - a) * r + a * s)
        dx = ((1 - b) * (q - p) + b * (s - r)) / self.ground.cell if 0 <= x - j <= 1 else 0.0
        dy = ((1 - a) * (r - p) + a * (s - q)) / self.ground.cell if 0 <= y - i <= 1 else 0.0
        return float(value), np.array([dx, dy])

    def _outside(self, scale: float, point: Floats) -> list[tuple[float, float, Floats]]:
        """World lengths by which a box reaches over each side of the image, with their derivatives."""
        if self.camera is None:
            return []
        cam = self.camera
        right, up, back = cam.c2w[:3, 0], cam.c2w[:3, 1], cam.c2w[:3, 2]
        half = np.array([0, 0, 0.5 * self.body.height])
        q = point + scale * half - cam.position
        depth = -float(q @ back)
        reach = {0: self.body.radius, 1: 0.5 * self.body.height}
        found = []
        for axis, way, low, high, focal in (
            (0, right, cam.cx, cam.w - cam.cx, cam.fl_x),
            (1, up, cam.h - cam.cy, cam.cy, cam.fl_y),
        ):
            for sign, room in ((-1.0, low), (1.0, high)):
                tangent = room / focal
                excess = sign * float(q @ way) + scale * reach[axis] - tangent * depth
                if excess > 0:
                    by_q = sign * way + tangent * back
                    found.append((excess, float(by_q @ half) + reach[axis], by_q))
        return found


def minimised(
    energy: Callable[[Floats], tuple[float, Floats]], base: Floats, tau: float = TAU
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(values, at_bound) of `base` changed within tau / 2 so that an energy (value, gradient) is least.

    Adam on the raw values, which are kept within ±6. Where the gradient vanishes at once nothing changes, to
    the bit.
    """
    raw = np.zeros_like(base)
    first, second = np.zeros_like(base), np.zeros_like(base)
    values, best, least = base, base, np.inf
    for step in range(1, ITERATIONS + 1):
        values = base if not raw.any() else np.asarray(bounded(raw, tau, base))
        value, gradient = energy(values)
        if value < least:
            best, least = values, value
        share = 1 / (1 + np.exp(-raw))
        # The slope of the bound is divided out of its size, so that a step is one of the same kind anywhere.
        pull = gradient * tau * share * (1 - share)
        if np.abs(gradient).max() * tau < ENOUGH:
            break
        first = 0.9 * first + 0.1 * pull
        second = 0.999 * second + 0.001 * pull * pull
        ahead = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
        rate = RATE * (
            1.0 if step < ITERATIONS // 2 else 0.05 ** ((step - ITERATIONS / 2) / (ITERATIONS / 2))
        )
        raw = np.clip(raw - 4 * rate * ahead, -MOST_RAW, MOST_RAW)
    at_bound = np.abs(best - base) > 0.98 * tau / 2
    return best, at_bound


def refine_scale(geometry: Geometry, scale: float, point: Floats, tau: float = TAU) -> tuple[float, bool]:
    """The scale at the first point, and whether it ended at its bound."""

    def energy(values: Floats) -> tuple[float, Floats]:
        value, by_scale, _ = geometry.energy(float(values[0]), point)
        return value, np.array([by_scale])

    found, bound = minimised(energy, np.array([scale], np.float64), tau)
    return float(found[0]), bool(bound[0])


def refine_points(
    geometry: Geometry, scale: float, points: Floats, tau: float = TAU
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Locations [N, 3] in turn, each with its neighbours as they are, and who is at a bound [N]."""
    found, bounds = points.copy(), np.zeros(len(points), bool)
    for _ in range(SWEEPS):
        before_sweep = found.copy()
        for i in range(len(points)):
            inner = 0 < i < len(points) - 1
            before, after = (found[i - 1], found[i + 1]) if inner else (None, None)

            def energy(values: Floats, before: Any = before, after: Any = after) -> tuple[float, Floats]:
                value, _, by_point = geometry.energy(scale, values, before, after)
                return value, by_point

            found[i], at = minimised(energy, points[i], tau)
            bounds[i] = bool(at.any())
        if np.array_equal(found, points) or np.abs(found - before_sweep).max() < 1e-3 * tau:
            break
    return found, bounds


def tau_of(one: Placed, units: str) -> float:
    """Full width of the bounds of an individual, metres: of the scene (`scene`), or of its own height
    (`height`: 0.05 of a mouse is not that of a tower)."""
    return TAU * one.cast.metres if units == "height" else TAU


def refined(plan: Plan, units: str = "scene") -> list[str]:
    """Refine every individual of a plan in place; a line for each that ended at a bound."""
    lines = []
    for one in plan.placed:
        if plan.ground is None or plan.above(one):
            continue
        tau = tau_of(one, units)
        clip = one.cast.clip
        body = Body(clip.height, one.cast.radius / one.cast.scale)
        geometry = Geometry(plan.ground, body, one.track.scale)
        scale, scale_bound = refine_scale(geometry, one.track.scale, one.track.points[0], tau)
        points, bounds = refine_points(geometry, scale, one.track.points, tau)
        if scale == one.track.scale and np.array_equal(points, one.track.points):
            continue
        # A shorter or longer way in the same time would be another pace: the time follows.
        before = one.track.length
        moved = replace(
            one.track, scale=scale, points=points, stride=one.track.stride * scale / one.track.scale
        )
        if one.going and before > 0:
            forward = tuple(clip.gait["forward"]) if clip.gait["usable"] else (0.0, -1.0, 0.0)
            moved = replace(
                moved,
                turns=capped(face(points, forward), points, one.speed, MOST_TURN),
                end=moved.begin + moved.length / one.speed + moved.ease,
            )
        one.track = moved
        if scale_bound or bounds.any():
            lines.append(
                f"actor {one.actor}: at_bound after refinement ({int(bounds.sum())} of {len(bounds)} "
                "locations"
                f"{', scale' if scale_bound else ''}); the coarse place is kept to {tau / 2:g}"
            )
    return lines
