"""Ways over the ground around what stands on it: a grid, A*, the pulled string, equal arc lengths."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import WorkError

Floats = npt.NDArray[np.float64]
Cell = tuple[int, int]

#: Points of a path, as the paper has them.
POINTS = 20
_DIAGONAL = float(np.sqrt(2.0))


@dataclass(frozen=True)
class Ground:
    """A height map on a grid whose cell (i, j) has its middle at origin + cell · (j, i)."""

    origin: tuple[float, float]
    cell: float
    heights: Floats
    """[H, W]; NaN where there is no ground."""
    blocked: npt.NDArray[np.bool_]
    """[H, W] what cannot be walked on."""

    @classmethod
    def plane(cls, low: Sequence[float], high: Sequence[float], cell: float, boxes: Any = ()) -> Ground:
        """The plane z = 0 between two corners, on which boxes (x0, y0, x1, y1) stand."""
        columns = max(2, int(np.ceil((high[0] - low[0]) / cell)) + 1)
        rows = max(2, int(np.ceil((high[1] - low[1]) / cell)) + 1)
        blocked = np.zeros((rows, columns), bool)
        x = low[0] + cell * np.arange(columns)
        y = low[1] + cell * np.arange(rows)
        for x0, y0, x1, y1 in boxes:
            blocked |= ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))[None]
        return cls((float(low[0]), float(low[1])), cell, np.zeros((rows, columns)), blocked)

    @classmethod
    def of_points(cls, points: Floats, cell: float, height: float, most_step: float = 0.25) -> Ground:
        """From points [N, 3] of a scene: the 10th percentile of the lowest layer of each cell.

        height is the actor's, world units. Blocked are cells without ground, those to which a neighbour steps
        by more than `most_step` heights, and those in which something stands between 0.2 and 1 height above.
        WorkError where there is no ground at all.
        """
        if not len(points):
            raise WorkError("the scene has no ground: no point of it is opaque")
        low = points[:, :2].min(axis=0)
        size = np.floor((points[:, :2].max(axis=0) - low) / cell).astype(int) + 1
        columns, rows = int(size[0]), int(size[1])
        place = np.floor((points[:, :2] - low) / cell).astype(int)
        number = place[:, 1] * columns + place[:, 0]
        heights = np.full(rows * columns, np.nan)
        stands = np.zeros(rows * columns, bool)
        order = np.lexsort((points[:, 2], number))
        starts = np.flatnonzero(np.diff(number[order], prepend=-1))
        for begin, stop in zip(starts, [*starts[1:], len(order)]):
            z = points[order[begin:stop], 2]
            lowest = z[z <= z[0] + 0.2 * height]
            heights[number[order[begin]]] = ground = np.percentile(lowest, 10)
            stands[number[order[begin]]] = bool(((z > ground + 0.2 * height) & (z < ground + height)).any())
        heights, stands = heights.reshape(rows, columns), stands.reshape(rows, columns)
        blocked = stands | np.isnan(heights)
        for axis in (0, 1):
            steep = np.abs(np.diff(heights, axis=axis)) > most_step * height
            pads = ((1, 0), (0, 1))
            for pad in pads:
                widths = [(0, 0), (0, 0)]
                widths[axis] = pad
                blocked |= np.pad(steep, widths)
        return cls((float(low[0] + cell / 2), float(low[1] + cell / 2)), cell, heights, blocked)

    def cell_of(self, x: float, y: float) -> Cell:
        """The cell at a place, the nearest one of the grid outside it."""
        h, w = self.blocked.shape
        i, j = round((y - self.origin[1]) / self.cell), round((x - self.origin[0]) / self.cell)
        return min(max(i, 0), h - 1), min(max(j, 0), w - 1)

    def place_of(self, cell: Cell) -> Floats:
        """[2] its middle."""
        return np.array([self.origin[0] + self.cell * cell[1], self.origin[1] + self.cell * cell[0]])

    def height_at(self, x: float, y: float) -> float:
        """Height of the ground, 0 where there is none."""
        value = float(self.heights[self.cell_of(x, y)])
        return value if np.isfinite(value) else 0.0

    def without(self, discs: Any) -> Ground:
        """The same ground with discs [M, 3] (x, y, radius) blocked."""
        blocked = self.blocked.copy()
        h, w = blocked.shape
        y, x = np.mgrid[:h, :w] * self.cell
        for px, py, radius in np.asarray(discs, np.float64).reshape(-1, 3):
            blocked |= (x + self.origin[0] - px) ** 2 + (y + self.origin[1] - py) ** 2 < radius**2
        return replace(self, blocked=blocked)

    def inflated(self, radius: float) -> npt.NDArray[np.bool_]:
        """[H, W] where a disc of this radius would touch what is blocked."""
        from scipy.ndimage import distance_transform_edt

        if radius <= 0 or not self.blocked.any():
            return self.blocked.copy()
        # A cell's side is half a cell nearer than its middle.
        return self.blocked | ((distance_transform_edt(~self.blocked) - 0.5) * self.cell < radius)


def nearest_free(blocked: npt.NDArray[np.bool_], cell: Cell, reach: Any = None) -> Cell | None:
    """The free cell nearest to one (itself where it is free), of those that `reach` [H, W] allows."""
    free = ~blocked if reach is None else ~blocked & reach
    if not free.any():
        return None
    places = np.argwhere(free)
    i, j = places[((places - np.array(cell)) ** 2).sum(axis=1).argmin()]
    return int(i), int(j)


def shortest(
    blocked: npt.NDArray[np.bool_], start: Cell, goal: Cell, heights: Floats | None = None, cell: float = 1.0
) -> tuple[list[Cell], float] | None:
    """Cells from start to goal over the 8 neighbours, and their cost; None where there is no way.

    A step costs its length times 1 + slope; corners of blocked cells are not cut. A* with the octile
    distance, which no way is shorter than.
    """
    if blocked[start] or blocked[goal]:
        return None
    h, w = blocked.shape
    cost = np.full((h, w), np.inf)
    before: dict[Cell, Cell] = {}
    cost[start] = 0.0
    heap = [(_octile(start, goal) * cell, 0.0, start)]
    while heap:
        _, so_far, here = heapq.heappop(heap)
        if here == goal:
            return _walked(before, here), float(cost[goal])
        if so_far > cost[here]:
            continue
        for there, length in _neighbours(blocked, here):
            step = length * cell
            if heights is not None:
                step *= 1.0 + abs(float(heights[there] - heights[here])) / step
            if so_far + step < cost[there]:
                cost[there] = so_far + step
                before[there] = here
                heapq.heappush(heap, (cost[there] + _octile(there, goal) * cell, float(cost[there]), there))
    return None


def reachable(blocked: npt.NDArray[np.bool_], start: Cell) -> npt.NDArray[np.bool_]:
    """[H, W] cells that a way leads to."""
    from scipy.ndimage import label

    # Without cut corners a diagonal step needs both of its sides free: 4 neighbours join the same cells.
    parts, _ = label(~blocked)
    return parts == parts[start] if not blocked[start] else np.zeros_like(blocked)


def _neighbours(blocked: npt.NDArray[np.bool_], here: Cell) -> list[tuple[Cell, float]]:
    h, w = blocked.shape
    i, j = here
    found = []
    for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        y, x = i + a, j + b
        if not (0 <= y < h and 0 <= x < w) or blocked[y, x]:
            continue
        if a and b:
            if blocked[i, x] or blocked[y, j]:
                continue
            found.append(((y, x), _DIAGONAL))
        else:
            found.append(((y, x), 1.0))
    return found


def _octile(a: Cell, b: Cell) -> float:
    dy, dx = abs(a[0] - b[0]), abs(a[1] - b[1])
    return max(dx, dy) + (_DIAGONAL - 1.0) * min(dx, dy)


def _walked(before: dict[Cell, Cell], here: Cell) -> list[Cell]:
    cells = [here]
    while here in before:
        here = before[here]
        cells.append(here)
    return cells[::-1]


def pulled(blocked: npt.NDArray[np.bool_], cells: Sequence[Cell]) -> list[Cell]:
    """The corners that are left when a string along the cells is pulled tight by line of sight."""
    kept = [cells[0]]
    at = 0
    while at < len(cells) - 1:
        far = next(
            k for k in range(len(cells) - 1, at, -1) if k == at + 1 or sees(blocked, cells[at], cells[k])
        )
        kept.append(cells[far])
        at = far
    return kept


def sees(blocked: npt.NDArray[np.bool_], a: Cell, b: Cell) -> bool:
    """Whether the straight line between two cells' middles enters no blocked cell."""
    count = 4 * max(abs(b[0] - a[0]), abs(b[1] - a[1])) + 1
    rows = np.rint(np.linspace(a[0], b[0], count)).astype(int)
    columns = np.rint(np.linspace(a[1], b[1], count)).astype(int)
    return not blocked[rows, columns].any()


def resampled(points: Any, count: int = POINTS) -> Floats:
    """[count, D] points of equal arc length along a polyline [N, D]; one point repeats itself."""
    points = np.asarray(points, np.float64)
    marks = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    if marks[-1] == 0:
        return np.repeat(points[:1], count, axis=0)
    # A polyline's own corners are cut: the lengths of the chords are made equal by a few rounds.
    ways = np.linspace(0.0, marks[-1], count)
    for _ in range(60):
        found = np.stack([np.interp(ways, marks, points[:, d]) for d in range(points.shape[1])], axis=1)
        chords = np.linalg.norm(np.diff(found, axis=0), axis=1)
        if np.ptp(chords) <= 1e-9 * chords.mean():
            break
        along = np.concatenate([[0.0], np.cumsum(chords)])
        ways = np.interp(np.linspace(0.0, along[-1], count), along, ways)
    return found


def walk(
    ground: Ground, start: Any, end: Any, radius: float, notes: list[str], who: str, count: int = POINTS
) -> Floats:
    """[count, 3] a way between two places [2] for a disc of some radius; what had to give is noted.

    Raises WorkError where there is no free place at all.
    """
    blocked = ground.inflated(radius)
    a, b = ground.cell_of(*start), ground.cell_of(*end)
    first = nearest_free(blocked, a)
    if first is None:
        raise WorkError(f"{who}: no free place on the ground; give a smaller --size word or another --scene")
    if first != a:
        x, y = ground.place_of(first)
        notes.append(f"{who}: its start lies in an obstacle; ({x:.2f}, {y:.2f}) stands in")
    goal = b if not blocked[b] else None
    inside, lost = reachable(blocked, first), ""
    if goal is None or not inside[goal]:
        goal = nearest_free(blocked, b, inside) or first
        x, y = ground.place_of(goal)
        lost = f"{who}: no way to its end; the nearest it reaches is ({x:.2f}, {y:.2f})"
    found = shortest(blocked, first, goal, ground.heights, ground.cell)
    cells = [first] if found is None else pulled(blocked, found[0])
    places = [ground.place_of(cell) for cell in cells]
    if first == a:
        places[0] = np.asarray(start, np.float64)
    if goal == b and len(places) > 1:
        places[-1] = np.asarray(end, np.float64)
    way = np.asarray(end, np.float64) - np.asarray(start, np.float64)
    if len(places) == 1 and 0 < float(np.linalg.norm(way)) < 2 * ground.cell:
        # Shorter than the ground's cells, as of a bee: it is gone from the place that was found.
        there = places[0] + way
        if not blocked[ground.cell_of(*there)]:
            places.append(there)
            lost = ""
    if lost:
        notes.append(lost)
    flat = resampled(np.array(places), count)
    return np.column_stack([flat, [ground.height_at(x, y) for x, y in flat]])


def shaped(shape: str, start: Any, end: Any, seed: int, radius: float = 1.5, centre: Any = None) -> Floats:
    """[N, 2] corners of a path of a shape: straight, circle, zigzag, curve or wander.

    `radius` is that of a circle, around `centre` (default: the middle between start and end); curve and
    wander are drawn by `seed`.
    """
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    way, middle = end - start, (start + end) / 2
    across = np.array([-way[1], way[0]])
    rng = np.random.default_rng(seed)
    if shape == "circle":
        about = middle if centre is None else np.asarray(centre, np.float64)
        first = np.arctan2(*(start - about)[::-1]) if np.linalg.norm(start - about) > 1e-6 else -np.pi / 2
        angles = first + np.linspace(0, 2 * np.pi, 65)
        return about + radius * np.column_stack([np.cos(angles), np.sin(angles)])
    if shape == "zigzag":
        shares = np.linspace(0, 1, 5)
        # Four legs, each 30 degrees off the way: 60 between neighbours' lines of travel.
        aside = np.array([0, 1, 0, 1, 0]) * 0.25 * np.tan(np.radians(30.0))
        return start + shares[:, None] * way + aside[:, None] * across
    if shape == "curve":
        control = middle + across * rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)
        t = np.linspace(0, 1, 33)[:, None]
        return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    if shape == "wander":
        t = np.linspace(0, 1, 7)
        aside = np.concatenate([[0], rng.uniform(-0.25, 0.25, 5), [0]])
        return start + t[:, None] * way + aside[:, None] * across
    return np.stack([start, end])
