# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The visible part of one evaluated object in its own space: vertices of faces that show, hair, points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.faces import Faces, details_of, sign_of
from orbit4d.render.blender.materials.opacity import can_change, shows_nothing

Points = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
#: (points [V, 3], edges [E, 2] and triangles [K, 3] into them, or None).
Geometry = tuple[Points, Indices | None, Indices | None]

#: Directions whose extreme points stand for a set of points.
SUPPORT_DIRECTIONS: Points = np.array(
    [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)],
    dtype=np.float32,
)
#: Strands of particle hair that stand for all of them.
MAX_STRANDS = 2_000


def support(points: Points) -> Points:
    """[26, 3]: the points furthest along each direction; NaN-free zeros for an empty mesh."""
    if len(points) == 0:
        return np.zeros((len(SUPPORT_DIRECTIONS), 3), np.float32)
    return points[np.argmax(points @ SUPPORT_DIRECTIONS.T, axis=0)]


def array_of(matrix: Any) -> npt.NDArray[np.float64]:
    """[4, 4]; several times faster than handing the matrix itself to numpy."""
    return np.array([value for row in matrix for value in row], np.float64).reshape(4, 4)


@dataclass
class _Part:
    """The visible part of one mesh; `None` where it is the whole."""

    vertices: Indices | None
    faces: npt.NDArray[np.bool_] | None
    """[P] which polygons are seen."""

    @cached_property
    def renumbered(self) -> Indices | None:
        if self.vertices is None:
            return None
        numbers = np.full(int(self.vertices.max(initial=-1)) + 1, -1, np.int64)
        numbers[self.vertices] = np.arange(len(self.vertices))
        return numbers


class GeometryReader:
    """Reads the geometry of one time; equal data are read once."""

    def __init__(self, cache: dict[Any, Any], plain: bool, topology: bool) -> None:
        """`cache` lives as long as the asset; `plain`: every object has materials and data of its own."""
        self.parts: dict[Any, _Part] = cache.setdefault("parts", {})
        self.opaque: dict[str, bool] = cache.setdefault("opaque", {})
        self.fixed: dict[str | None, tuple[bool, ...]] = cache.setdefault("fixed", {})
        self.plain, self.topology = plain, topology
        self.now: dict[Any, Geometry] = {}

    def read(self, obj: Any) -> Geometry | None:
        """Geometry of an evaluated mesh, hair or point cloud object; None without anything to see."""
        data = obj.data
        if data is None:
            return None
        hidden = self._hidden(obj, data)
        name = data.as_pointer(), hidden
        geometry = self.now.get(name)
        if geometry is None:
            if obj.type == "MESH":
                geometry = self._mesh(obj, data, hidden)
            else:
                geometry = _strands(data), None, None
            self.now[name] = geometry
        return geometry if len(geometry[0]) else None

    def faces(self, obj: Any) -> Faces | None:
        """What of the triangles of `read(obj)` does not move; their details where topology is read. None
        where there are none. Objects that share a mesh may differ in materials, so nothing is kept.
        """
        if obj.type != "MESH" or obj.data is None:
            return None
        mesh = obj.data
        if not self.topology:
            return Faces(sign_of(mesh))
        hidden = self._hidden(obj, mesh)
        part = _visible_part(mesh, hidden)
        found = details_of(obj, mesh, part.faces)
        found.vertices = part.vertices
        return found

    def _hidden(self, obj: Any, data: Any) -> tuple[bool, ...]:
        """For each material slot, whether it shows nothing; () when all are seen."""
        name = obj.name if self.plain else None
        if name in self.fixed:
            return self.fixed[name]
        slots = [slot.material for slot in obj.material_slots] or list(data.materials)
        hidden = tuple(self._shows_nothing(material) for material in slots)
        hidden = hidden if any(hidden) else ()
        if name is not None and not any(can_change(material) for material in slots):
            self.fixed[name] = hidden
        return hidden

    def _shows_nothing(self, material: Any) -> bool:
        if material is None:
            return False
        if material.name not in self.opaque:
            answer = shows_nothing(material)
            if can_change(material):
                return answer
            self.opaque[material.name] = answer
        return self.opaque[material.name]

    def _mesh(self, obj: Any, mesh: Any, hidden: tuple[bool, ...]) -> Geometry:
        sizes = (obj.name, len(mesh.vertices), len(mesh.loops), len(mesh.polygons), hidden)
        part = self.parts.get(sizes)
        if part is None:
            part = self.parts[sizes] = _visible_part(mesh, hidden)
        flat = np.empty(len(mesh.vertices) * 3, np.float32)
        mesh.vertices.foreach_get("co", flat)
        local = flat.reshape(-1, 3)
        if part.vertices is not None:
            local = local[part.vertices]
        return (local, *(_connections(mesh, part) if self.topology else (None, None)))


def _visible_part(mesh: Any, hidden: tuple[bool, ...]) -> _Part:
    n = len(mesh.vertices)
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    faces = None
    if hidden:
        which = np.empty(len(mesh.polygons), np.int32)
        mesh.polygons.foreach_get("material_index", which)
        faces = ~np.array(hidden)[which.clip(0, len(hidden) - 1)]
        lengths = np.empty(len(mesh.polygons), np.int32)
        mesh.polygons.foreach_get("loop_total", lengths)
        corners = corners[np.repeat(faces, lengths)]
    used = np.zeros(n, bool)
    used[corners] = True
    return _Part(None if used.all() else np.flatnonzero(used), faces)


def _connections(mesh: Any, part: _Part) -> tuple[Indices, Indices]:
    """(edges [E, 2], triangles [K, 3]) of the visible part of `mesh`, into its vertices."""
    pairs = np.empty(len(mesh.edges) * 2, np.int32)
    mesh.edges.foreach_get("vertices", pairs)
    mesh.calc_loop_triangles()
    corners = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", corners)
    edges = pairs.reshape(-1, 2).astype(np.int64)
    triangles = corners.reshape(-1, 3).astype(np.int64)
    if part.faces is not None:
        polygons = np.empty(len(triangles), np.int32)
        mesh.loop_triangles.foreach_get("polygon_index", polygons)
        triangles = triangles[part.faces[polygons]]
    if part.renumbered is None:
        return edges, triangles
    seen = np.zeros(len(mesh.vertices), bool)
    seen[part.vertices] = True
    return part.renumbered[edges[seen[edges].all(axis=1)]], part.renumbered[triangles]


def _strands(data: Any) -> Points:
    """Centres of a point cloud's or of hair's points, then the furthest places that they cover."""
    n = len(data.points)
    if n == 0:
        return np.zeros((0, 3), np.float32)
    flat, radii = np.empty(n * 3, np.float32), np.zeros(n, np.float32)
    data.attributes["position"].data.foreach_get("vector", flat)
    centres = flat.reshape(-1, 3)
    if (radius := data.attributes.get("radius")) is not None and radius.domain == "POINT":
        radius.data.foreach_get("value", radii)
    else:
        radii[:] = 0.01
    unit = SUPPORT_DIRECTIONS / np.linalg.norm(SUPPORT_DIRECTIONS, axis=1, keepdims=True)
    furthest = np.argmax(centres @ unit.T + radii[:, None], axis=0)
    return np.concatenate([centres, centres[furthest] + unit * radii[furthest, None]]).astype(np.float32)


def particle_strands(obj: Any) -> list[Points]:
    """For each particle system of an evaluated object that draws strands, their roots, middles and tips."""
    found = []
    for system in obj.particle_systems:
        settings = system.settings
        n = len(system.particles) + len(system.child_particles)
        if settings.type != "HAIR" or settings.render_type != "PATH" or n == 0:
            continue
        # Parents are not drawn where they have children.
        parents_too = settings.use_parent_particles or not len(system.child_particles)
        first = 0 if parents_too else len(system.particles)
        last = 2**settings.render_step
        places = [
            system.co_hair(obj, particle_no=i, step=step)
            for i in np.linspace(first, n - 1, min(n - first, MAX_STRANDS)).astype(int)
            for step in (0, last // 2, last)
        ]
        # They come in the world of the object itself, which an instance of it moves along.
        to_local = np.linalg.inv(array_of(obj.matrix_world))
        local = np.array(places, np.float64) @ to_local[:3, :3].T + to_local[:3, 3]
        found.append(local.astype(np.float32))
    return found
