# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Where every vertex of a loaded asset is at given times, and when an action moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render import window
from orbit4d.render.blender.load import ActionInfo, Loaded

Points = npt.NDArray[np.float32]

#: Directions whose extreme vertices stand for an object whose vertex count changes over time.
SUPPORT_DIRECTIONS: Points = np.array(
    [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)],
    dtype=np.float32,
)


def vertices_now(loaded: Loaded, stride: int = 1) -> list[Points]:
    """World positions [V_k, 3] of every (`stride`-th) vertex of every mesh after modifiers, at the current
    time.
    """
    depsgraph = bpy.context.evaluated_depsgraph_get()
    return [_vertices_of(obj.evaluated_get(depsgraph), stride) for obj in loaded.meshes]


def _vertices_of(evaluated: bpy.types.Object, stride: int) -> Points:
    # An evaluated mesh is read in place; other surfaces are turned into one first.
    own = evaluated.type == "MESH"
    mesh = evaluated.data if own else evaluated.to_mesh()
    if mesh is None or len(mesh.vertices) == 0:
        return np.zeros((0, 3), np.float32)
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    if not own:
        evaluated.to_mesh_clear()
    matrix = np.array(evaluated.matrix_world, dtype=np.float64)
    points = flat.reshape(-1, 3)[::stride]
    return (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def bounding_corners(loaded: Loaded) -> Points:
    """World positions [8 * meshes, 3] of the corners of every object's own box, as the published script reads
    them. Looser than the vertices where an object is turned."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    corners = []
    for obj in loaded.meshes:
        evaluated = obj.evaluated_get(depsgraph)
        matrix = np.array(evaluated.matrix_world, dtype=np.float64)
        corners.append(np.array(evaluated.bound_box, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3])
    return np.concatenate(corners).astype(np.float32)


def iter_vertices(loaded: Loaded, seconds: Sequence[float]) -> Iterator[list[Points]]:
    """`vertices_now` at each of `seconds`, one after another."""
    for t in seconds:
        loaded.set_seconds(t)
        yield vertices_now(loaded)


def sample_vertices(loaded: Loaded, seconds: Sequence[float], max_vertices: int | None = None) -> Points:
    """World positions [T, V, 3] float32 of all vertices at `seconds` of the active action, helpers excluded.

    With `max_vertices` only every k-th vertex of each mesh is taken. A mesh whose vertex count changes (an
    Alembic fluid, say) is stood for by its extreme vertices along 26 directions.
    """
    if not len(seconds):
        return np.zeros((0, 0, 3), np.float32)
    loaded.set_seconds(seconds[0])
    total = sum(len(part) for part in vertices_now(loaded))
    stride = 1 if max_vertices is None else max(1, -(-total // max_vertices))
    moments: list[list[Points]] = []
    for t in seconds:
        loaded.set_seconds(t)
        moments.append(vertices_now(loaded, stride))
    columns = []
    for parts in zip(*moments, strict=True):
        changing = len({len(part) for part in parts}) > 1
        columns.append(np.stack([support(part) for part in parts] if changing else parts))
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(moments), 0, 3), np.float32)


def support(points: Points) -> Points:
    """[26, 3]: the points furthest along each direction; NaN-free zeros for an empty mesh."""
    if len(points) == 0:
        return np.zeros((len(SUPPORT_DIRECTIONS), 3), np.float32)
    return points[np.argmax(points @ SUPPORT_DIRECTIONS.T, axis=0)]


def moving_window(loaded: Loaded, action: ActionInfo) -> tuple[float, float] | None:
    """(start, end) in seconds between which `action` moves, None when it never does. Leaves `action` active.

    Decided as if sampled at every frame of the file, up to `window.MAX_SAMPLES`: a few even samples can
    all land on moments at which nothing is displaced.
    """
    loaded.activate(action.index)
    seconds = window.dense_seconds(action.seconds_start, action.seconds_end, loaded.fps)
    loaded.set_seconds(seconds[0])
    stride = max(1, -(-sum(len(part) for part in vertices_now(loaded)) // window.MAX_VERTICES))

    def places(t: float) -> Points:
        loaded.set_seconds(t)
        return np.concatenate(vertices_now(loaded, stride))

    return window.search_window(seconds, places)
