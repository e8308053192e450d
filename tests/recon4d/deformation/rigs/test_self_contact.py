"""Surfaces that touch themselves."""

from __future__ import annotations

import numpy as np

from orbit4d.recon4d.deformation.rigs.self_contact import TOUCH, self_contact
from orbit4d.recon4d.deformation.surface import SkinnedSurface


def grid(n: int, width: float, joint: int, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, faces, joint of each) of a sheet n by n, in the x z plane."""
    x, z = (a.ravel() for a in np.meshgrid(np.linspace(0, width, n), np.linspace(0, 1, n)))
    cell = np.arange(n * n).reshape(n, n)
    a, b, c, d = (cell[i : n - 1 + i, j : n - 1 + j].ravel() for i in (0, 1) for j in (0, 1))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]) + start
    return np.column_stack([x, np.zeros(n * n), z]), faces, np.full(n * n, joint)


def pair(joints: tuple[int, int]) -> SkinnedSurface:
    """Two sheets of one size that lie on each other as modelled."""
    parts = [grid(12, 0.5, j, 144 * k) for k, j in enumerate(joints)]
    vertices, faces, joint = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    vertices[144:, 1] += 1.0  # so that the two are not one as modelled
    return SkinnedSurface(vertices, faces, joint[:, None], np.ones((288, 1)))


def posed(surface: SkinnedSurface, gap: float, up: float = 0.0) -> np.ndarray:
    found = surface.vertices.copy()
    found[144:] += [0, gap - 1.0, up]
    return found


def test_two_limbs_touch_where_they_are_near() -> None:
    surface = pair((0, 1))
    assert self_contact(surface, posed(surface, 0.5 * TOUCH)) > 0.99
    assert self_contact(surface, posed(surface, 1.5 * TOUCH)) == 0.0
    half = self_contact(surface, posed(surface, 0.5 * TOUCH, up=0.5))
    assert 0.4 < half < 0.6
    # Its size does not matter.
    assert abs(self_contact(surface, 7 * posed(surface, 0.5 * TOUCH, up=0.5)) - half) < 1e-9


def test_what_one_joint_moves_touches_nothing() -> None:
    surface = pair((0, 0))
    assert self_contact(surface, posed(surface, 0.5 * TOUCH)) == 0.0


def test_neighbours_along_the_surface_do_not_touch() -> None:
    """Across a knee two joints meet in one sheet; folded on itself its halves touch."""
    vertices, faces, joint = grid(24, 0.5, 0, 0)
    joint[vertices[:, 2] > 0.5] = 1
    surface = SkinnedSurface(vertices, faces, joint[:, None], np.ones((len(vertices), 1)))
    assert self_contact(surface, vertices) == 0.0
    folded = vertices.copy()
    above = vertices[:, 2] > 0.5
    folded[above, 2] = 1.0 - vertices[above, 2]
    folded[above, 1] += 0.5 * TOUCH * np.ptp(vertices[:, 2]) / 2
    assert self_contact(surface, folded) > 0.5
    assert self_contact(surface, np.zeros_like(vertices)) == 1.0
