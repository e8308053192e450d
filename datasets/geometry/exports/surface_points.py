"""Points on a surface at its times, with normals: what points-in-time formats are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry import kernels
from orbit4d.datasets.geometry.action import ActionMesh

Doubles = npt.NDArray[np.float64]


def carried(
    mesh: ActionMesh, triangles: npt.NDArray[np.int32], weights: Doubles, times: Sequence[int]
) -> Doubles:
    """[T, N, 3] where points given by triangle and barycentrics are at `times`."""
    places = [kernels.carry(triangles, weights, mesh.welded[t], mesh.welded_faces) for t in times]
    return np.stack(places)


def vertex_normals(places: npt.NDArray[np.floating], faces: npt.NDArray[np.integer]) -> Doubles:
    """[V, 3] unit normals of vertices [V, 3], means of its triangles by area; 0 where none is."""
    corners = np.asarray(places, np.float64)[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    found = np.zeros((len(places), 3))
    for k in range(3):
        for axis in range(3):
            found[:, axis] += np.bincount(faces[:, k], flat[:, axis], len(places))
    return _unit(found)


def carried_normals(
    mesh: ActionMesh, triangles: npt.NDArray[np.int32], weights: Doubles, times: Sequence[int]
) -> Doubles:
    """[T, N, 3] unit normals there: mixed from the vertices, else the triangle's own."""
    found = np.empty((len(times), len(triangles), 3))
    faces = mesh.welded_faces
    for i, t in enumerate(times):
        smooth = vertex_normals(mesh.welded[t], faces)[faces[triangles]]
        mixed = (smooth * weights[:, :, None]).sum(axis=1)
        a, b, c = np.moveaxis(mesh.welded[t].astype(np.float64)[faces[triangles]], 1, 0)
        flat = _unit(np.cross(b - a, c - a))
        weak = np.linalg.norm(mixed, axis=1) < 1e-6
        mixed[weak] = flat[weak]
        # A triangle without area has no normal of its own either: up, so that every normal is a unit vector.
        mixed[np.linalg.norm(mixed, axis=1) < 1e-6] = (0.0, 0.0, 1.0)
        found[i] = _unit(mixed)
    return found


def _unit(vectors: Doubles) -> Doubles:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)
