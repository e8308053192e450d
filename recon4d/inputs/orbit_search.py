"""The orbit of a video that brings no cameras, from its silhouettes: which way, how fast, how high, lens.

A pixel on an outline belongs to some point of its ray which lies inside every other silhouette. With wrong
cameras no depth does so; by how many pixels the best one misses is what is searched over (silhouette
coherence, Hernandez, Schmitt and Cipolla 2007). Distances in the image make it smooth below a pixel.

Gauge: the first view is at azimuth 0 and the given radius, unless a reference with known cameras (a static
orbit) says where it stands: without one the scene may be turned about its axis and scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec

Float = npt.NDArray[np.float64]

#: Longer side of the silhouettes that are compared, and pixels of each outline.
EDGE, OUTLINE = 192, 20
#: Depths tried along a ray within the ball of this radius, units of the fit.
DEPTHS, BALL = 160, 0.85
#: A miss counts at most as many pixels.
MOST = 6.0
#: Views of a moving object further apart in time are not compared; with a reference, frames of the video.
WINDOW, WINDOW_FRAMES, WINDOW_EXACT = 0.2, 1.5, 0.25
#: Pixels that a moving object's orbit pays per degree, and per turn, away from the given one: its silhouettes
#: never agree, and other orbits make up for the motion.
PRIOR = {"elevation_deg": 0.05, "fov_x_deg": 0.05, "turns": 3.0}
#: The same where silhouettes agree: what leaves them alike (a dolly zoom) stays at the given lens, or at that
#: of the reference.
SLIGHT = {"fov_x_deg": 2e-4, "turns": 0.02}
LIKE_REFERENCE = {"fov_x_deg": 5e-3}
#: Pixels that the other end of the orbit, closed or open, must gain: it moves each view by little.
OTHER_END = 0.01
#: Pixels that a found orbit must gain at least.
GAIN = 4e-3
#: Outlines touch at a pixel's centre: closer than this nothing is missed.
SLACK = 0.0
#: A found orbit must miss less than this share of what the given one misses.
BETTER = 0.8


@dataclass(frozen=True)
class Found:
    """The orbit that fits best."""

    spec: OrbitSpec
    before: float
    """Mean miss of the given orbit, pixels at EDGE."""
    after: float

    @property
    def better(self) -> bool:
        """Whether it is clearly better than the given one."""
        return self.after < BETTER * self.before and self.before - self.after > GAIN

    def note(self, frames: Frames) -> str:
        """What was found, for the user."""
        return (
            f"orbit found by silhouettes (outlines miss by {self.after:.2f} px, before {self.before:.2f}): "
            f"{told(self.spec)}"
        )


def told(spec: OrbitSpec) -> str:
    """An orbit in words."""
    return (
        f"{'clockwise' if spec.clockwise else 'counter-clockwise'}, {'closed' if spec.closed else 'open'}, "
        f"start {spec.azimuth0_deg:.1f}, elevation {spec.elevation_deg:.1f}, field of view "
        f"{spec.fov_x_deg:.1f} degrees, radius {spec.radius:.3f}, {spec.turns:.3g} turns"
    )


class Silhouettes:
    """Outlines and distance maps of frames and of a reference, read once."""

    def __init__(
        self, frames: Frames, reference: Frames | None = None, window: float = WINDOW_FRAMES
    ) -> None:
        small = frames.resized(EDGE)
        fixed = reference.resized(max(small.rgba.shape[1:3])) if reference is not None else None
        if fixed is not None and fixed.rgba.shape[1:3] != small.rgba.shape[1:3]:
            fixed = None
        self.shape = (small.rgba.shape[1], small.rgba.shape[2])
        self.n = len(small)
        self.fixed: tuple[Camera, ...] = () if fixed is None else fixed.cameras
        images = small.rgba if fixed is None else np.concatenate([small.rgba, fixed.rgba])
        masks = images[..., 3] > 0.5
        self.maps = np.stack([_signed(mask) for mask in masks])
        self.times = np.array([*small.time, *(() if fixed is None else fixed.time)])
        picked = [_outline(plane) for plane in self.maps]
        self.view = np.concatenate([np.full(len(p), v) for v, p in enumerate(picked)]).astype(np.int64)
        self.pixels = np.concatenate(picked) if len(self.view) else np.zeros((0, 2))
        self.moving = bool(np.ptp(self.times) > 0)
        self.beside = self._comparable(window)
        kept = self.beside.any(1)[self.view]
        self.view, self.pixels = self.view[kept], np.ascontiguousarray(self.pixels[kept])

    def _comparable(self, window: float) -> npt.NDArray[np.bool_]:
        """[V, V] which views saw the same shape, or nearly."""
        apart = np.abs(self.times[:, None] - self.times[None])
        near = np.ones_like(apart, bool)
        if self.moving and self.fixed:
            known = np.arange(len(self.times)) >= self.n
            near = (known[:, None] != known[None]) & (apart <= window / max(self.n - 1, 1))
        elif self.moving:
            near = apart <= WINDOW
        np.fill_diagonal(near, False)
        return near

    def miss(self, cameras: Sequence[Camera]) -> float:
        """Mean pixels, at most MOST, by which outlines miss the other silhouettes."""
        h, w = self.shape
        every = [c if (c.w, c.h) == (w, h) else c.resized(w, h) for c in (*cameras, *self.fixed)]
        views = np.stack([camera.w2c_opencv[:3] for camera in every])
        lenses = np.array([[c.fl_x, c.fl_y, c.cx, c.cy] for c in every], np.float64)
        c2w = np.stack([camera.c2w for camera in every])
        out = np.zeros(len(self.view))
        _misses(self.view, self.pixels, self.maps, self.beside, views, lenses, c2w, BALL, DEPTHS, MOST, out)
        return float(np.maximum(out - SLACK, 0).mean()) if len(out) else 0.0


def search_orbit(
    frames: Frames, spec: OrbitSpec, reference: Frames | None = None, quick: bool = False
) -> Found:
    """The orbit of `frames` near `spec`, and otherwise: direction, closed or open, elevation, field of view;
    with a `reference`, whose cameras are known, start azimuth and radius too. `quick` looks closer only where
    another direction, end or elevation is clearly better. Deterministic.
    """
    seen = Silhouettes(frames, reference)
    h, w = seen.shape

    prior = LIKE_REFERENCE if seen.fixed else PRIOR if seen.moving else SLIGHT
    likely = replace(spec, fov_x_deg=seen.fixed[0].fov_x_deg) if seen.fixed else spec

    def misser(seen: Silhouettes) -> Callable[[OrbitSpec], float]:
        def miss(tried: OrbitSpec) -> float:
            away = sum(abs(getattr(tried, key) - getattr(likely, key)) * cost for key, cost in prior.items())
            away += OTHER_END * (tried.closed != spec.closed)
            return seen.miss(tried.cameras(seen.n, w, h)) + away

        return miss

    miss = misser(seen)
    before = miss(spec)
    ways = [replace(likely, clockwise=c, closed=o) for c in (False, True) for o in (False, True)]
    starts = [(miss(one), one) for way in ways for one in _elevations(way)]
    starts.sort(key=lambda item: item[0])
    if quick and starts[0][0] >= BETTER * before:
        return Found(spec, before, before)
    picked = [item for i, item in enumerate(starts) if i < 3]
    picked.append((before, spec))
    # The two directions are alike but for perspective: the best of each is followed.
    picked += [next(item for item in starts if item[1].clockwise != picked[0][1].clockwise)]
    free = ["elevation_deg", "fov_x_deg"] + ([] if seen.moving and seen.fixed else ["turns"])
    if seen.fixed:
        free += ["azimuth0_deg", "radius", "dolly"]
    best = min((descend(miss, cost, one, free) for cost, one in picked), key=lambda item: item[0])
    exact = Silhouettes(frames, reference, WINDOW_EXACT) if seen.moving and seen.fixed else None
    if exact is not None and len(exact.view):
        # What moves has moved one frame on: what is left is decided by the frame of the reference's time.
        fine = misser(exact)
        return Found(descend(fine, fine(best[1]), best[1], free)[1], before, best[0])
    return Found(best[1], before, best[0])


#: First steps of the descent, and the last.
_STEPS = {
    "elevation_deg": 4.0,
    "fov_x_deg": 4.0,
    "turns": 0.02,
    "azimuth0_deg": 4.0,
    "radius": 0.1,
    "dolly": 4.0,
}
_HALVINGS = 6


def _elevations(spec: OrbitSpec) -> list[OrbitSpec]:
    lifts = (-20.0, -10.0, 0.0, 10.0, 20.0, 30.0)
    found = [spec.elevation_deg + lift for lift in lifts]
    return [replace(spec, elevation_deg=e) for e in found if -80 <= e <= 80]


def descend(
    miss: Callable[[OrbitSpec], float], cost: float, spec: OrbitSpec, free: Sequence[str]
) -> tuple[float, OrbitSpec]:
    """Pattern search: each number up or down by its step, which halves where nothing helps."""
    scale = 1.0
    for _ in range(_HALVINGS):
        moved = True
        while moved:
            moved = False
            for name in free:
                for sign in (1, -1):
                    tried = _moved(spec, name, sign * scale * _STEPS[name])
                    if tried is not None and (found := miss(tried)) < cost - 1e-6:
                        cost, spec, moved = found, tried, True
                        break
        scale /= 2
    return cost, spec


def _moved(spec: OrbitSpec, name: str, step: float) -> OrbitSpec | None:
    """The spec with one number changed; `dolly` changes the lens and keeps the object's size in the image."""
    if name != "dolly":
        return _within(spec, name, getattr(spec, name) + step)
    zoomed = _within(spec, "fov_x_deg", spec.fov_x_deg + step)
    if zoomed is None:
        return None
    size = np.tan(np.radians(spec.fov_x_deg) / 2) / np.tan(np.radians(zoomed.fov_x_deg) / 2)
    return _within(zoomed, "radius", float(spec.radius * size))


def _within(spec: OrbitSpec, name: str, value: float) -> OrbitSpec | None:
    low, high = {
        "elevation_deg": (-85.0, 85.0), "fov_x_deg": (8.0, 110.0), "turns": (0.1, 4.0),
        "azimuth0_deg": (-360.0, 360.0), "radius": (0.9, 20.0),
    }[name]  # fmt: skip
    change: dict[str, Any] = {name: value}
    return replace(spec, **change) if low <= value <= high else None


def _signed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Pixels to the outline, positive inside; 0 on it."""
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _outline(plane: npt.NDArray[np.float32]) -> Float:
    """[P, 2] (column, row) of pixels along the inside of an outline, evenly picked; those at the image's edge
    say nothing.
    """
    rows, columns = np.nonzero((plane > 0) & (plane < 1))
    h, w = plane.shape
    good = (rows > 0) & (rows < h - 1) & (columns > 0) & (columns < w - 1)
    rows, columns = rows[good], columns[good]
    if len(rows) == 0:
        return np.zeros((0, 2))
    angle = np.arctan2(rows - rows.mean(), columns - columns.mean())
    order = np.argsort(angle, kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(OUTLINE, len(order))).round().astype(int)]
    return np.stack([columns[picked] + 0.5, rows[picked] + 0.5], axis=-1)


@jit
def _misses(view, pixels, maps, beside, views, lenses, c2w, ball, n_depths, most, out):
    """Of each outline's pixel the least, over depths, of the most that another silhouette is missed by."""
    n_views, h, w = maps.shape
    for s in range(len(view)):
        v = view[s]
        x = (pixels[s, 0] - lenses[v, 2]) / lenses[v, 0]
        y = -(pixels[s, 1] - lenses[v, 3]) / lenses[v, 1]
        length = np.sqrt(x * x + y * y + 1)
        wx = (c2w[v, 0, 0] * x + c2w[v, 0, 1] * y - c2w[v, 0, 2]) / length
        wy = (c2w[v, 1, 0] * x + c2w[v, 1, 1] * y - c2w[v, 1, 2]) / length
        wz = (c2w[v, 2, 0] * x + c2w[v, 2, 1] * y - c2w[v, 2, 2]) / length
        ox, oy, oz = c2w[v, 0, 3], c2w[v, 1, 3], c2w[v, 2, 3]
        middle = -(ox * wx + oy * wy + oz * wz)
        best = most
        for d in range(n_depths):
            t = middle + ball * (2 * (d + 0.5) / n_depths - 1)
            px, py, pz = ox + t * wx, oy + t * wy, oz + t * wz
            worst = 0.0
            for u in range(n_views):
                if not beside[v, u]:
                    continue
                depth = views[u, 2, 0] * px + views[u, 2, 1] * py + views[u, 2, 2] * pz + views[u, 2, 3]
                if depth <= 1e-6:
                    worst = most
                    break
                across = views[u, 0, 0] * px + views[u, 0, 1] * py + views[u, 0, 2] * pz + views[u, 0, 3]
                down = views[u, 1, 0] * px + views[u, 1, 1] * py + views[u, 1, 2] * pz + views[u, 1, 3]
                column = min(max(lenses[u, 0] * across / depth + lenses[u, 2] - 0.5, 0.0), w - 1.001)
                row = min(max(lenses[u, 1] * down / depth + lenses[u, 3] - 0.5, 0.0), h - 1.001)
                j, i = int(column), int(row)
                a, b = column - j, row - i
                top = maps[u, i, j] * (1 - a) + maps[u, i, j + 1] * a
                low = maps[u, i + 1, j] * (1 - a) + maps[u, i + 1, j + 1] * a
                worst = max(worst, -(top * (1 - b) + low * b))
                if worst >= best:
                    break
            best = min(best, worst)
        out[s] = best
