"""Ways over the ground against a slow twin, their laws, and refinement within its bounds."""

from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np
import pytest

from orbit4d.compose.placement.ground import (
    Ground,
    nearest_free,
    pulled,
    resampled,
    sees,
    shaped,
    shortest,
    walk,
)
from orbit4d.compose.placement.refinement import TAU, Body, Geometry, minimised, refine_points, refine_scale
from orbit4d.datasets import WorkError, orbit


def dijkstra(blocked: np.ndarray, start: tuple[int, int], heights: np.ndarray, cell: float) -> np.ndarray:
    """Cost of every cell from `start`, without any guide."""
    cost = np.full(blocked.shape, np.inf)
    if blocked[start]:
        return cost
    cost[start] = 0
    heap = [(0.0, start)]
    while heap:
        so_far, (i, j) = heapq.heappop(heap)
        if so_far > cost[i, j]:
            continue
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                y, x = i + a, j + b
                if (a or b) and 0 <= y < blocked.shape[0] and 0 <= x < blocked.shape[1] and not blocked[y, x]:
                    if a and b and (blocked[i, x] or blocked[y, j]):
                        continue
                    step = cell * np.hypot(a, b)
                    step *= 1 + abs(heights[y, x] - heights[i, j]) / step
                    if so_far + step < cost[y, x]:
                        cost[y, x] = so_far + step
                        heapq.heappush(heap, (cost[y, x], (y, x)))
    return cost


def test_costs_equal_dijkstra_on_200_grids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found_ways = 0
    for _ in range(200):
        shape = tuple(rng.integers(4, 14, 2))
        blocked = rng.random(shape) < 0.28
        heights = rng.normal(size=shape) * rng.choice([0.0, 0.3])
        start, goal = (tuple(int(rng.integers(0, s)) for s in shape) for _ in range(2))
        found = shortest(blocked, start, goal, heights, 0.5)
        wanted = dijkstra(blocked, start, heights, 0.5)[goal] if not blocked[goal] else np.inf
        if found is None:
            assert np.isinf(wanted)
            continue
        found_ways += 1
        cells, cost = found
        assert abs(cost - wanted) <= 1e-9
        assert cells[0] == start and cells[-1] == goal and not any(blocked[c] for c in cells)
        for (i, j), (y, x) in pairwise(cells):
            assert max(abs(y - i), abs(x - j)) == 1 and not (blocked[i, x] or blocked[y, j])
        string = pulled(blocked, cells)
        assert all(
            sees(blocked, a, b) or max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1 for a, b in pairwise(string)
        )
    assert found_ways > 50


def test_paths_have_twenty_points_of_equal_arcs() -> None:
    ground = Ground.plane((-3, -2), (3, 2), 0.1, [(-0.5, -1.0, 0.5, 1.0)])
    notes: list[str] = []
    path = walk(ground, (-2, 0), (2, 0), 0.2, notes, "actor 0")
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert path.shape == (20, 3) and np.ptp(steps) <= 1e-6 * steps.mean() and notes == []
    assert np.allclose(path[0], [-2, 0, 0]) and np.allclose(path[-1], [2, 0, 0])
    fine = np.stack([np.interp(np.linspace(0, 19, 400), np.arange(20), path[:, d]) for d in (0, 1)], axis=1)
    inside = (np.abs(fine[:, 0]) < 0.5) & (np.abs(fine[:, 1]) < 1.0)
    assert not inside.any()
    assert np.array_equal(resampled(np.ones((1, 3)), 20), np.ones((20, 3)))


def test_what_gives_way_is_said() -> None:
    wall = Ground.plane((-3, -2), (3, 2), 0.1, [(0.5, -9, 0.8, 9)])
    notes: list[str] = []
    path = walk(wall, (-2, 0), (2, 0), 0.1, notes, "actor 3")
    assert path[:, 0].max() < 0.5 and "actor 3: no way to its end" in notes[0]
    notes.clear()
    inside = Ground.plane((-3, -2), (3, 2), 0.1, [(-0.5, -0.5, 0.5, 0.5)])
    path = walk(inside, (0, 0), (2, 0), 0.0, notes, "actor 1")
    assert "its start lies in an obstacle" in notes[0] and max(abs(path[0, :2])) > 0.5
    full = Ground.plane((-1, -1), (1, 1), 0.1, [(-9, -9, 9, 9)])
    with pytest.raises(WorkError, match="actor 0: no free place"):
        walk(full, (0, 0), (1, 0), 0.1, notes, "actor 0")
    assert nearest_free(full.blocked, (0, 0)) is None


def test_a_ground_is_read_from_points() -> None:
    rng = np.random.default_rng(0)
    flat = np.column_stack([rng.uniform(0, 4, (20_000, 2)), 0.01 * rng.standard_normal(20_000)])
    post = np.column_stack([rng.uniform(1.9, 2.1, (400, 2)), rng.uniform(0, 2, 400)])
    table = np.column_stack([rng.uniform(3, 4, 4000), rng.uniform(0, 1, 4000), np.full(4000, 0.5)])
    keep = ~((flat[:, 0] > 3) & (flat[:, 1] < 1))
    found = Ground.of_points(np.concatenate([flat[keep], post, table]), 0.2, 1.0)
    assert found.blocked[found.cell_of(2, 2)] and not found.blocked[found.cell_of(1, 3)]
    assert abs(found.height_at(1, 3)) < 0.02 and abs(found.height_at(3.5, 0.5) - 0.5) < 0.02
    assert found.blocked[found.cell_of(3.0, 0.5)] or found.blocked[found.cell_of(2.9, 0.5)]
    with pytest.raises(WorkError, match="no ground"):
        Ground.of_points(np.zeros((0, 3)), 0.2, 1.0)


@pytest.mark.parametrize("shape", ["straight", "circle", "zigzag", "curve", "wander"])
def test_shapes(shape: str) -> None:
    path = shaped(shape, (-1, 0), (1, 0), seed=3, radius=1.0)
    assert np.array_equal(path, shaped(shape, (-1, 0), (1, 0), seed=3, radius=1.0))
    if shape == "circle":
        assert np.allclose(np.linalg.norm(path, axis=1), 1) and np.allclose(path[0], path[-1])
    else:
        assert np.allclose(path[0], [-1, 0]) and np.allclose(path[-1], [1, 0])
    if shape == "zigzag":
        legs = np.diff(path, axis=0)
        angles = np.degrees(np.arctan2(legs[:, 1], legs[:, 0]))
        assert np.allclose(np.abs(np.diff(angles)), 60)


def geometry(camera: bool = True) -> Geometry:
    ground = Ground.plane((-3, -3), (3, 3), 0.1, [(0.5, -1.0, 1.5, 1.0)])
    ground.heights[:] = 0.05 * np.arange(ground.heights.shape[1])[None] * ground.cell
    return Geometry(ground, Body(1.2, 0.3), 0.8, orbit(1, 4.0, 15.0)[0] if camera else None)


def test_gradient_of_the_energy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = geometry()
    for _ in range(20):
        # Off the grid's lines, where the bilinear tables have a crease.
        point = np.array(
            [*(np.floor(rng.uniform(-2, 2, 2) * 10) / 10 + rng.uniform(0.02, 0.08, 2)), rng.normal()]
        )
        before, after, scale = rng.normal(size=3), rng.normal(size=3), rng.uniform(0.6, 1.0)
        _, by_scale, by_point = one.energy(scale, point, before, after)
        e = 1e-6
        numeric = (
            one.energy(scale + e, point, before, after)[0] - one.energy(scale - e, point, before, after)[0]
        ) / (2 * e)
        assert abs(numeric - by_scale) <= 1e-6 * max(1, abs(numeric))
        for k in range(3):
            d = e * np.eye(3)[k]
            numeric = (
                one.energy(scale, point + d, before, after)[0]
                - one.energy(scale, point - d, before, after)[0]
            ) / (2 * e)
            assert abs(numeric - by_point[k]) <= 1e-6 * max(1, abs(numeric))


def test_minimum_inside_and_at_the_bound() -> None:
    def square(at: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda values: (float(((values - at) ** 2).sum()), 2 * (values - at))

    base = np.array([0.3, -1.0, 2.0])
    inside = base + np.array([0.03, -0.02, 0.01])
    found, bound = minimised(square(inside), base)
    assert np.abs(found - inside).max() <= 1e-3 * TAU and not bound.any()
    found, bound = minimised(square(base + np.array([0.2, 0.01, -0.2])), base)
    assert np.abs(np.abs(found - base)[[0, 2]] - TAU / 2).max() <= 0.01 * TAU and bound.tolist() == [
        True,
        False,
        True,
    ]
    assert abs(found[1] - base[1] - 0.01) <= 1e-3 * TAU
    same, bound = minimised(square(base), base)
    assert np.array_equal(same, base) and not bound.any()


def test_feet_come_down_and_bodies_out() -> None:
    ground = Ground.plane((-3, -3), (3, 3), 0.1, [(0.5, -1.0, 1.5, 1.0)])
    one = Geometry(ground, Body(1.0, 0.2), 1.0)
    points = np.column_stack([np.linspace(-2, -1, 20), np.zeros(20), np.full(20, 0.03)])
    moved, bound = refine_points(one, 1.0, points)
    assert np.abs(moved[:, 2]).max() <= 2e-3 and not bound.any()
    assert np.abs(moved[:, :2] - points[:, :2]).max() <= 1e-3
    fit = points * [1, 1, 0]
    assert (
        np.array_equal(refine_points(one, 1.0, fit)[0], fit)
        or np.abs(refine_points(one, 1.0, fit)[0] - fit).max() < 1e-12
    )
    into = np.tile([0.42, 0.0, 0.0], (3, 1))
    out, bound = refine_points(one, 1.0, into)
    assert (out[:, 0] < 0.42 - 0.02).all()
    assert refine_scale(one, 1.0, fit[0]) == (1.0, False)
    smaller, _ = refine_scale(one, 1.0, np.array([0.35, 0.0, 0.0]))
    assert 1 - TAU / 2 <= smaller < 1
