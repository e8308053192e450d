"""Surfaces made of numbers, and slow twins that cast every ray at every triangle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.geometry.action import ActionMesh, Material, stored_mesh
from orbit4d.datasets.geometry.kernels import HIDDEN, NEAR


def ball(rows: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """(vertices [V, 3], faces [M, 3] counter-clockwise from outside) of a sphere of radius 1."""
    columns = 2 * rows
    theta, phi = np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns, endpoint=False)
    grid = np.stack(np.meshgrid(theta, phi, indexing="ij"), -1).reshape(-1, 2)
    t, p = grid[:, 0], grid[:, 1]
    vertices = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=1)
    faces = []
    for i in range(rows):
        for j in range(columns):
            a, b = i * columns + j, i * columns + (j + 1) % columns
            if i:
                faces.append((a, a + columns, b))
            if i < rows - 1:
                faces.append((b, a + columns, b + columns))
    return vertices, np.array(faces, np.int32)


def mesh_of(vertices: Any, faces: Any, cameras: Any = (), **how: Any) -> ActionMesh:
    """A mesh of one material and one object unless `how` says otherwise."""
    vertices, faces = np.asarray(vertices, float), np.asarray(faces, np.int32)
    rest = {
        "seconds": np.linspace(0.0, 1.0, len(vertices)),
        "faces": faces,
        "material": np.zeros(len(faces), np.uint16),
        "object": np.zeros(len(faces), np.uint16),
        "materials": (Material("m"),),
        "objects": ("o",),
        **how,
    }
    rest.setdefault("shown", np.ones((len(vertices), len(rest["objects"])), bool))
    return stored_mesh(vertices, cameras, **rest)


def first_hits(mesh: ActionMesh, t: int, origin: Any, ways: Any) -> tuple[np.ndarray, np.ndarray]:
    """(first triangle [R], -1 for none, how far along `ways` [R, 3]) by Moeller and Trumbore's test of every
    ray against every triangle, double-sided or from the front as the material says.
    """
    corners = mesh.welded[t].astype(np.float64)[mesh.welded_faces]
    kinds = [mesh.materials[k] for k in mesh.material]
    best, where = np.full(len(ways), -1), np.full(len(ways), np.inf)
    for m, (a, b, c) in enumerate(corners):
        if not mesh.shown[t, mesh.object[m]] or kinds[m].see_through:
            continue
        e1, e2 = b - a, c - a
        p = np.cross(ways, e2)
        det = p @ e1
        s = origin - a
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (p @ s) / det
            q = np.cross(s, e1)
            v = (ways @ q) / det
            far = (e2 @ q) / det
        hit = (np.abs(det) > 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (far > 0)
        if kinds[m].single_sided:
            hit &= det > 0
        nearer = hit & (far < where * (1 - 1e-6))
        best[nearer], where[nearer] = m, far[nearer]
    return best, where


def is_visible(mesh: ActionMesh, t: int, camera: Any, points: Any, own: Any) -> np.ndarray:
    """[N] whether each of `points` on triangles `own` is met first by the ray to it, and inside the image."""
    points = np.asarray(points, np.float64)
    pixels, depth = camera.project(points)
    inside = (depth > NEAR) & (pixels >= 0).all(1) & (pixels < [camera.w, camera.h]).all(1)
    ways = points - camera.position
    found = inside.copy()
    corners = mesh.welded[t].astype(np.float64)[mesh.welded_faces]
    kinds = [mesh.materials[k] for k in mesh.material]
    for m, (a, b, c) in enumerate(corners):
        mine = np.asarray(own) == m
        gone = not mesh.shown[t, mesh.object[m]] or kinds[m].see_through
        behind = np.cross(b - a, c - a) @ (camera.position - a) < 0
        if gone or (kinds[m].single_sided and behind):
            found[mine] = False
            continue
        p = np.cross(ways, c - a)
        det = p @ (b - a)
        s = camera.position - a
        q = np.cross(s, b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v, far = (p @ s) / det, (ways @ q) / det, ((c - a) @ q) / det
        hit = (np.abs(det) > 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (far > 0) & (far < 1 - HIDDEN)
        found[hit & ~mine] = False
    return found


@pytest.fixture(scope="session")
def make_ball() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return ball


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., ActionMesh]:
    """`make_mesh(vertices [T, V, 3], faces [M, 3], cameras, **fields)`: see mesh_of."""
    return mesh_of


@pytest.fixture(scope="session")
def cast() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`cast(mesh, t, origin, ways)`: see first_hits."""
    return first_hits


@pytest.fixture(scope="session")
def sees() -> Callable[..., np.ndarray]:
    """`sees(mesh, t, camera, points, own)`: see is_visible."""
    return is_visible
