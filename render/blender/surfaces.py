# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The surfaces that a camera can see at the current moment: what framing, measures and crop all stand on.

Read from the dependency graph with its instances, evaluated as renders are (see `as_rendered`). Left out is
what no picture shows: hidden objects, those that cameras do not see, faces whose material lets everything
through, loose edges and vertices, and what is scaled to nothing. The set may change from moment to moment;
a surface keeps its key, and its vertices their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.load import Loaded
from orbit4d.render.blender.opacity import can_change, shows_nothing

Points = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
#: (object's name, persistent numbers of the instance); () for an object itself.
Key = tuple[str, tuple[int, ...]]

#: Directions whose extreme points stand for a set of points.
SUPPORT_DIRECTIONS: Points = np.array(
    [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) != (0, 0, 0)],
    dtype=np.float32,
)
#: Points of one moment above which each instance is stood for by its extreme points.
MAX_POINTS = 2_000_000
#: Strands of particle hair that stand for all of them.
MAX_STRANDS = 2_000
#: A surface this much smaller than the largest one is scaled to nothing: a fiftieth of a pixel at 256.
NOTHING = 1e-4
_NO_ID = 0x7FFFFFFF


@dataclass
class Surface:
    """One object, or one instance, as it stands at one moment."""

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


def visible_surfaces(loaded: Loaded, topology: bool = False) -> list[Surface]:
    """Everything that can be seen at the current moment, ordered by key; with `topology`, edges and triangles
    as well. Empty when nothing can.
    """
    depsgraph = bpy.context.evaluated_depsgraph_get()
    reader = _Reader(loaded, topology)
    found: list[Surface] = []
    for obj, key, matrix, itself in (_plain if loaded.is_plain else _instances)(loaded, depsgraph):
        surface = reader.read(obj, key, matrix) if itself else None
        found += [surface] if surface is not None else []
        if not loaded.is_plain:
            found += _particle_hair(obj, key, matrix)
    if not loaded.is_plain:
        found.sort(key=lambda surface: surface.key)
        _thin_instances(found)
    return _without_specks(loaded, found)


def points_now(loaded: Loaded, stride: int = 1) -> Points:
    """[V, 3] world positions of every (`stride`-th) vertex of all visible surfaces."""
    parts = [surface.points(stride) for surface in visible_surfaces(loaded)]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


def _array(matrix: Any) -> npt.NDArray[np.float64]:
    """[4, 4]; several times faster than handing the matrix itself to numpy."""
    return np.array([value for row in matrix for value in row], np.float64).reshape(4, 4)


def support(points: Points) -> Points:
    """[26, 3]: the points furthest along each direction; NaN-free zeros for an empty mesh."""
    if len(points) == 0:
        return np.zeros((len(SUPPORT_DIRECTIONS), 3), np.float32)
    return points[np.argmax(points @ SUPPORT_DIRECTIONS.T, axis=0)]


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


# ---------------------------------------------------------------- what of an object


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


class _Reader:
    """Reads the geometry of one moment; equal data are read once."""

    def __init__(self, loaded: Loaded, topology: bool) -> None:
        self.parts: dict[Any, _Part] = loaded.cache
        self.plain = loaded.is_plain
        self.opaque: dict[str, bool] = loaded.cache.setdefault("opaque", {})
        self.fixed: dict[str | None, tuple[bool, ...]] = loaded.cache.setdefault("fixed", {})
        self.topology = topology
        self.now: dict[Any, tuple[Points, Indices | None, Indices | None]] = {}

    def read(self, obj: Any, key: Key, matrix: Any) -> Surface | None:
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
        local, edges, triangles = geometry
        if len(local) == 0:
            return None
        return Surface(key, local, _array(matrix), edges, triangles)

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

    def _mesh(
        self, obj: Any, mesh: Any, hidden: tuple[bool, ...]
    ) -> tuple[Points, Indices | None, Indices | None]:
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


def _particle_hair(obj: Any, key: Key, matrix: Any) -> list[Surface]:
    """The strands that particle systems draw on an evaluated object: at their roots, middles and tips."""
    found = []
    for k, system in enumerate(obj.particle_systems):
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
        to_local = np.linalg.inv(_array(obj.matrix_world))
        local = np.array(places, np.float64) @ to_local[:3, :3].T + to_local[:3, 3]
        numbers = (*key[1], -1 - k)
        found.append(Surface((key[0], numbers), local.astype(np.float32), _array(matrix)))
    return found
