"""Scenes made of nothing but their name: a ground of flat Gaussians, and landmarks that stand on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.recon4d.gaussians import Gaussians

Floats = npt.NDArray[np.float64]

#: Colours of a ground, and how much they vary.
GROUNDS = {
    "meadow": ((0.36, 0.52, 0.22), 0.10),
    "stage": ((0.42, 0.30, 0.22), 0.03),
    "room": ((0.62, 0.55, 0.46), 0.03),
    "street": ((0.38, 0.38, 0.40), 0.04),
    "beach": ((0.86, 0.77, 0.58), 0.05),
    "arena": ((0.70, 0.58, 0.42), 0.06),
    "snow": ((0.93, 0.95, 0.98), 0.02),
    "forest": ((0.28, 0.36, 0.18), 0.10),
    "plain": ((0.60, 0.60, 0.60), 0.03),
}
#: Words of a prompt's scene to one of `GROUNDS`.
STANDS_FOR = {
    "field": "meadow", "park": "meadow", "garden": "meadow", "farm": "meadow", "villa": "meadow",
    "hill": "meadow", "village": "meadow", "lake": "meadow", "river": "meadow", "jungle": "forest",
    "swamp": "forest", "mountain": "forest", "desert": "beach", "island": "beach", "sea": "beach",
    "canyon": "beach", "road": "street", "city": "street", "livingroom": "room", "kitchen": "room",
    "barn": "room", "castle": "arena", "stadium": "arena", "cave": "arena", "ice": "snow", "moon": "plain",
    **dict.fromkeys(("prairie", "savanna", "savannah", "steppe", "pasture", "grassland", "lawn"), "meadow"),
    **dict.fromkeys(("orchard", "clearing", "valley", "moor", "pond", "creek", "countryside"), "meadow"),
    **dict.fromkeys(("woods", "wood", "woodland", "grove", "rainforest"), "forest"),
    **dict.fromkeys(("dune", "sand", "shore", "coast", "seashore", "oasis", "ocean"), "beach"),
    **dict.fromkeys(("town", "alley", "avenue", "highway", "square", "plaza", "bridge", "pier"), "street"),
    **dict.fromkeys(("hall", "ballroom", "classroom", "office", "cabin", "dungeon", "garage"), "room"),
    **dict.fromkeys(("glacier", "tundra", "iceberg"), "snow"),
    **dict.fromkeys(("court", "pitch", "rink", "dojo"), "arena"),
    **dict.fromkeys(("theatre", "theater", "podium", "catwalk"), "stage"),
    **dict.fromkeys(("mars", "planet", "space"), "plain"),
}  # fmt: skip
#: Landmarks by word: size in metres (x, y, z), colour, and whether one walks on it.
LANDMARKS = {
    "barn": ((4.0, 3.0, 3.2), (0.62, 0.20, 0.16), False),
    "house": ((3.5, 3.0, 3.0), (0.80, 0.74, 0.64), False),
    "tree": ((1.2, 1.2, 3.2), (0.22, 0.42, 0.16), False),
    "rock": ((1.0, 0.9, 0.7), (0.50, 0.49, 0.47), False),
    "fence": ((3.5, 0.15, 1.0), (0.55, 0.40, 0.26), False),
    "bench": ((1.6, 0.6, 0.8), (0.45, 0.30, 0.20), False),
    "car": ((3.8, 1.7, 1.4), (0.30, 0.36, 0.55), False),
    "table": ((1.5, 0.9, 0.8), (0.50, 0.36, 0.24), False),
    "wall": ((4.0, 0.3, 1.6), (0.66, 0.62, 0.58), False),
    "river": ((1.8, 9.0, 0.0), (0.24, 0.46, 0.68), True),
    "lake": ((4.0, 3.0, 0.0), (0.24, 0.46, 0.68), True),
    "pond": ((2.4, 1.8, 0.0), (0.24, 0.46, 0.68), True),
    "road": ((2.2, 9.0, 0.0), (0.36, 0.36, 0.38), True),
}


@dataclass(frozen=True)
class Landmark:
    """Something named that stands in a scene."""

    name: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    walkable: bool = False

    @property
    def centre(self) -> Floats:
        """[2] on the ground."""
        return np.array([(self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2])


@dataclass(frozen=True)
class Stage:
    """A scene in which actors are placed; world units are metres, the ground is z = 0."""

    name: str
    gaussians: Gaussians
    half_width: float
    """Metres from the middle to the left and right ends of the strip in which actors move."""
    half_depth: float
    landmarks: tuple[Landmark, ...] = field(default=())

    def obstacles(self) -> list[tuple[float, float, float, float]]:
        """Boxes (x0, y0, x1, y1) that cannot be walked through."""
        return [(m.low[0], m.low[1], m.high[0], m.high[1]) for m in self.landmarks if not m.walkable]


def ground_name(text: str | None) -> tuple[str, bool]:
    """(one of `GROUNDS`, whether the text said it) for a scene's words."""
    words = (text or "").lower().replace("-", " ").split()
    for word in words[::-1]:
        for known in (word, word.removesuffix("s")):
            if known in GROUNDS:
                return known, True
            if known in STANDS_FOR:
                return STANDS_FOR[known], True
    return ("meadow" if not words else "plain"), False


def build(
    name: str, half_width: float, half_depth: float, places: dict[str, tuple[float, float]], seed: int = 0
) -> Stage:
    """A stage of one of `GROUNDS`, with landmarks by word at their places (x, y) in metres.

    A landmark that is no key of `LANDMARKS` is a rock. Same arguments, same bytes.
    """
    rng = np.random.default_rng(seed)
    colour, spread = GROUNDS[name]
    parts = [_floor(half_width, half_depth, np.array(colour), spread, rng)]
    landmarks = []
    for word, (x, y) in places.items():
        (w, d, h), paint, walkable = LANDMARKS.get(word, LANDMARKS["rock"])
        low, high = (x - w / 2, y - d / 2, 0.0), (x + w / 2, y + d / 2, h)
        landmarks.append(Landmark(word, low, high, walkable))
        parts.append(
            _patch(low, high, np.array(paint), rng) if walkable else _thing(word, low, high, paint, rng)
        )
    rows = [np.concatenate(columns) for columns in zip(*parts)]
    return Stage(name, _gaussians(*rows), half_width, half_depth, tuple(landmarks))


Rows = tuple[Floats, Floats, Floats]


def _floor(
    half_width: float, half_depth: float, colour: Floats, spread: float, rng: np.random.Generator
) -> Rows:
    """Discs that grow with their distance from the strip, out to where the horizon is."""
    far = 8.0 * max(half_width, half_depth)
    fine = max(0.12, 2.0 * np.sqrt(half_width * half_depth / 8000.0))
    centres, radii = [], []
    grid_x = np.arange(-half_width - 1, half_width + 1, fine)
    grid_y = np.arange(-half_depth - 1, half_depth + 1, fine)
    x, y = (a.ravel() for a in np.meshgrid(grid_x, grid_y))
    centres.append(np.column_stack([x, y]))
    radii.append(np.full(len(x), fine))
    size = fine
    inner_x, inner_y = half_width + 1, half_depth + 1
    while inner_x < far:
        size *= 1.5
        outer_x, outer_y = inner_x + 8 * size, inner_y + 8 * size
        x, y = (
            a.ravel()
            for a in np.meshgrid(np.arange(-outer_x, outer_x, size), np.arange(-outer_y, outer_y, size))
        )
        ring = (np.abs(x) > inner_x - size / 2) | (np.abs(y) > inner_y - size / 2)
        centres.append(np.column_stack([x[ring], y[ring]]))
        radii.append(np.full(int(ring.sum()), size))
        inner_x, inner_y = outer_x, outer_y
    flat, radius = np.concatenate(centres), np.concatenate(radii)
    # Round, so that the horizon is level whichever way one looks.
    round_ = np.linalg.norm(flat, axis=1) <= min(inner_x, inner_y)
    flat, radius = flat[round_], radius[round_]
    flat = flat + rng.uniform(-0.15, 0.15, flat.shape) * radius[:, None]
    tint = colour * (1 + spread * rng.standard_normal((len(flat), 1))) + 0.3 * spread * rng.standard_normal(
        (len(flat), 3)
    )
    means = np.column_stack([flat, np.full(len(flat), -0.01)])
    return means, np.column_stack([0.62 * radius, 0.62 * radius, np.full(len(flat), 0.004)]), tint.clip(0, 1)


def _patch(low: tuple[float, ...], high: tuple[float, ...], colour: Floats, rng: np.random.Generator) -> Rows:
    step = 0.18
    x, y = (
        a.ravel() for a in np.meshgrid(np.arange(low[0], high[0], step), np.arange(low[1], high[1], step))
    )
    means = np.column_stack([x, y, np.full(len(x), 0.002)])
    tint = colour * (1 + 0.06 * rng.standard_normal((len(x), 1)))
    return means, np.tile([0.62 * step, 0.62 * step, 0.003], (len(x), 1)), tint.clip(0, 1)


def _thing(
    word: str,
    low: tuple[float, ...],
    high: tuple[float, ...],
    paint: tuple[float, ...],
    rng: np.random.Generator,
) -> Rows:
    """Points on a box, or on a trunk with its crown, or a row of posts with rails."""
    w, d, h = (high[i] - low[i] for i in range(3))
    centre = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2])
    colour = np.array(paint)
    if word == "tree":
        n = 500
        way = rng.standard_normal((n, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        crown = np.array([*centre, 0.68 * h]) + way * np.array([w / 2, d / 2, 0.34 * h]) * rng.uniform(
            0.7, 1, (n, 1)
        )
        trunk = np.column_stack([np.tile(centre, (60, 1)), np.linspace(0, 0.5 * h, 60)])
        means = np.concatenate([crown, trunk])
        scales = np.concatenate([np.full((n, 3), 0.11), np.tile([0.09, 0.09, 0.05], (60, 1))])
        tint = np.concatenate([np.tile(colour, (n, 1)), np.tile([0.36, 0.25, 0.16], (60, 1))])
    elif word == "fence":
        posts = np.linspace(low[0], high[0], 8)
        z = np.linspace(0, h, 14)
        upright = np.column_stack([np.repeat(posts, 14), np.full(112, centre[1]), np.tile(z, 8)])
        x = np.linspace(low[0], high[0], 60)
        rails = [
            np.column_stack([x, np.full(60, centre[1]), np.full(60, share * h)]) for share in (0.45, 0.85)
        ]
        means = np.concatenate([upright, *rails])
        scales = np.full((len(means), 3), 0.045)
        tint = np.tile(colour, (len(means), 1))
    else:
        n = int(min(2500, 40 * (w * d + 2 * (w + d) * h) + 200))
        step = np.sqrt((w * d + 2 * (w + d) * h) / n)
        means = _box_points(np.array(low), np.array(high), n, rng)
        if word in ("barn", "house"):
            top = means[:, 2] >= high[2] - 1e-9
            means[top, 2] += 0.35 * d * (1 - np.abs(means[top, 1] - centre[1]) / (d / 2))
        scales = np.full((n, 3), 0.7 * step)
        shade = 0.75 + 0.25 * (means[:, 2:3] / max(h, 1e-6)).clip(0, 1)
        tint = np.tile(colour, (n, 1)) * shade
    tint = tint * (1 + 0.08 * rng.standard_normal((len(means), 1)))
    return means, scales, tint.clip(0, 1)


def _box_points(low: Floats, high: Floats, n: int, rng: np.random.Generator) -> Floats:
    """n points on the sides and the top of a box, by area."""
    w, d, h = high - low
    areas = np.array([w * h, w * h, d * h, d * h, w * d])
    side = rng.choice(5, n, p=areas / areas.sum())
    points = low + rng.random((n, 3)) * (high - low)
    points[side == 0, 1], points[side == 1, 1] = low[1], high[1]
    points[side == 2, 0], points[side == 3, 0] = low[0], high[0]
    points[side == 4, 2] = high[2]
    return points


def shadow(radius_x: float, radius_y: float) -> Gaussians:
    """A soft dark disc on the ground, drawn as a concept of its own: the contact shadow of an actor."""
    n = 5
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-0.5, 0.5, n), np.linspace(-0.5, 0.5, n)))
    inside = x * x + y * y <= 0.26
    means = np.column_stack([x[inside] * radius_x, y[inside] * radius_y, np.full(int(inside.sum()), 0.004)])
    scales = np.tile([0.28 * radius_x, 0.28 * radius_y, 0.002], (len(means), 1))
    found = _gaussians(means, scales, np.tile([0.05, 0.05, 0.05], (len(means), 1)))
    found.logits = torch.full((len(means),), -1.9)
    return found


def _gaussians(means: Floats, scales: Floats, colours: Floats) -> Gaussians:
    n = len(means)
    return Gaussians(
        means=torch.tensor(means, dtype=torch.float32),
        log_scales=torch.tensor(np.log(scales), dtype=torch.float32),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        logits=torch.full((n,), 5.0),
        colors=torch.tensor(colours, dtype=torch.float32),
    )
