# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The surfaces that a camera can see at the current time: what framing, measures and crop all stand on.

Read from the dependency graph with its instances, evaluated as renders are (see `as_rendered`). Left out is
what no image shows: hidden objects, those that cameras do not see, faces whose material lets everything
through, loose edges and vertices, and what is scaled to nothing. The set may change over time;
a surface keeps its key, and its vertices their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.faces import Faces
from orbit4d.render.blender.geometry.local_geometry import (
    GeometryReader,
    Indices,
    Points,
    array_of,
    particle_strands,
    support,
)
from orbit4d.render.blender.importers.load import Loaded

#: (object's name, persistent numbers of the instance); () for an object itself.
Key = tuple[str, tuple[int, ...]]

#: Points of one time above which each instance is stood for by its extreme points.
MAX_POINTS = 2_000_000
#: A surface this much smaller than the largest one is scaled to nothing: a fiftieth of a pixel at 256.
NOTHING = 1e-4
_NO_ID = 0x7FFFFFFF


@dataclass
class Surface:
    """One object, or one instance, as it stands at one time."""

    key: Key
    local: Points
    """[V, 3] in the object's own space: the vertices of its visible faces. Hair and point clouds give their
    centres and then the furthest places that they cover along SUPPORT_DIRECTIONS."""
    matrix: npt.NDArray[np.float64]
    """[4, 4] from there to the world."""
    edges: Indices | None = None
    """[E, 2] into `local`; None unless asked for."""
    triangles: Indices | None = None
    """[K, 3] into `local`; None unless asked for."""
    faces: Faces | None = None
    """What of its polygons does not move; None unless asked for, and for what has none."""

    def points(self, stride: int = 1) -> Points:
        """[ceil(V / stride), 3] world positions of every `stride`-th vertex."""
        local = self.local[::stride]
        return (local @ self.matrix[:3, :3].T + self.matrix[:3, 3]).astype(np.float32)

    def corners(self) -> npt.NDArray[np.float64]:
        """[8, 3] world positions of the corners of the object's own box."""
        low, high = self.local.min(axis=0), self.local.max(axis=0)
        picks = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], bool)
        box = np.where(picks, high, low).astype(np.float64)
        return box @ self.matrix[:3, :3].T + self.matrix[:3, 3]


def visible_surfaces(loaded: Loaded, topology: bool = False, faces: bool = False) -> list[Surface]:
    """Everything that can be seen at the current time, ordered by key; with `topology`, edges and triangles
    as well, with `faces` what tells one topology from another, and with both materials and texture places.
    Empty when nothing can.
    """
    depsgraph = bpy.context.evaluated_depsgraph_get()
    reader = GeometryReader(loaded.cache, loaded.is_plain, topology)
    found: list[Surface] = []
    for obj, key, matrix, itself in (_plain if loaded.is_plain else _instances)(loaded, depsgraph):
        geometry = reader.read(obj) if itself else None
        if geometry is not None:
            local, edges, triangles = geometry
            of_faces = reader.faces(obj) if faces else None
            found.append(Surface(key, local, array_of(matrix), edges, triangles, of_faces))
        if not loaded.is_plain:
            for k, strands in enumerate(particle_strands(obj)):
                found.append(Surface((key[0], (*key[1], -1 - k)), strands, array_of(matrix)))
    if not loaded.is_plain:
        found.sort(key=lambda surface: surface.key)
        _thin_instances(found)
    return _without_specks(loaded, found)


def points_now(loaded: Loaded, stride: int = 1) -> Points:
    """[V, 3] world positions of every (`stride`-th) vertex of all visible surfaces."""
    parts = [surface.points(stride) for surface in visible_surfaces(loaded)]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


# ---------------------------------------------------------------- which objects


def _plain(loaded: Loaded, depsgraph: Any) -> Iterator[tuple[Any, Key, Any, bool]]:
    """(evaluated object, key, matrix, whether its surface is drawn and not only its hair) where every object
    stands for itself: no walk through instances.
    """
    for obj in loaded.meshes:
        evaluated = obj.evaluated_get(depsgraph)
        if not evaluated.hide_render and evaluated.visible_camera and not evaluated.is_holdout:
            yield evaluated, (obj.name, ()), evaluated.matrix_world, True


def _instances(loaded: Loaded, depsgraph: Any) -> Iterator[tuple[Any, Key, Any, bool]]:
    """As `_plain`, of every object and instance. What an item gives is valid until the next one is taken."""
    keyed = {obj.name for obj in loaded.keyed}
    for instance in depsgraph.object_instances:
        obj = instance.object
        # Curves, texts and metaballs come a second time, as the mesh that they are drawn as.
        if obj.type not in ("MESH", "CURVES", "POINTCLOUD") or not obj.visible_camera or obj.is_holdout:
            continue
        if obj.name in keyed and obj.hide_render:
            continue
        if instance.is_instance:
            if instance.parent is not None and not instance.parent.visible_camera:
                continue
            numbers = tuple(n for n in instance.persistent_id if n != _NO_ID)
        else:
            # Renders do not draw what stands below an instancer by vertices or faces itself.
            if obj.parent is not None and obj.parent.instance_type in ("VERTS", "FACES"):
                continue
            numbers = ()
        yield obj, (obj.name, numbers), instance.matrix_world, instance.show_self


def _without_specks(loaded: Loaded, found: list[Surface]) -> list[Surface]:
    """`found` without what is scaled to nothing: to a point, to a line, or far below what is seen beside."""
    if not found:
        return found
    turns = np.stack([surface.matrix[:3, :3] for surface in found])
    norms = np.sqrt((turns**2).sum(axis=1).max(axis=1))
    # The size of an object's own box hardly changes, so it is taken once.
    known: dict[str, float] = loaded.cache.setdefault("sizes", {})
    for surface in found:
        if surface.key[0] not in known:
            known[surface.key[0]] = float(np.ptp(surface.local, axis=0).max())
    sizes = norms * np.array([known[surface.key[0]] for surface in found])
    small = ~(sizes > NOTHING * sizes.max())
    flat = np.abs(np.linalg.det(turns)) <= 1e-9 * norms**3
    small[flat] |= ~np.array([_has_area(turn) for turn in turns[flat]], bool)
    return [surface for surface, left_out in zip(found, small) if not left_out] if small.any() else found


def _has_area(turn: npt.NDArray[np.float64]) -> bool:
    values = np.linalg.svd(turn, compute_uv=False)
    return bool(values[1] > 1e-6 * values[0])


def _thin_instances(found: list[Surface]) -> None:
    if sum(len(s.local) for s in found) > MAX_POINTS:
        hulls: dict[int, Points] = {}
        for s in found:
            if s.key[1]:
                hull = hulls.setdefault(id(s.local), support(s.local))
                s.local, s.edges, s.triangles = hull, None, None
