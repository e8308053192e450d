# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs inside Blender, which is GPL, so it is GPL too.
"""The surfaces of one action as constant triangles: what the pass `geometry` is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.faces import Faces
from orbit4d.render.blender.geometry.surfaces import Key, Surface, visible_surfaces
from orbit4d.render.blender.importers.as_rendered import rendered_objects
from orbit4d.render.blender.importers.load import Loaded
from orbit4d.render.blender.materials.alpha import Cut, Undecided, cut_of
from orbit4d.render.blender.materials.see_through import is_culled
from orbit4d.render.planning.topology import MAX_NUMBERS, MAX_TRIANGLES, RefusedPass


@dataclass
class _Body:
    """One object or instance while it is recorded."""

    triangles: npt.NDArray[np.int64]
    faces: Faces
    n_vertices: int
    mirrored: bool
    vertices: npt.NDArray[np.int64] | None = None
    """[V] which vertices of the evaluated mesh they are; None: all."""
    places: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)
    """Number of the time to [V, 3]."""
    turned: bool = False
    """Whether it is mirrored at some times and not at others."""


class GeometryRecorder:
    """Take every time of an action with `add`, then `arrays`. Raises RefusedPass for what has no constant
    triangles; nothing more is recorded then.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.seconds: list[float] = []
        self.bodies: dict[Key, _Body] = {}
        self.refused: RefusedPass | None = None
        try:
            _check_scene(loaded)
        except RefusedPass as refusal:
            self.refused = refusal

    def add(self, seconds: float) -> None:
        """Record the scene as it stands at `seconds`."""
        if self.refused is not None:
            return
        try:
            self._add(seconds)
        except RefusedPass as refusal:
            self.refused = refusal
            self.bodies.clear()

    def _add(self, seconds: float) -> None:
        surfaces = visible_surfaces(self.loaded, topology=not self.bodies, faces=True)
        if any(surface.key not in self.bodies for surface in surfaces) and self.bodies:
            surfaces = visible_surfaces(self.loaded, topology=True, faces=True)
        t = len(self.seconds)
        self.seconds.append(seconds)
        for surface in surfaces:
            body = self.bodies.get(surface.key)
            if body is None:
                if t and surface.key[1]:
                    raise RefusedPass("geometry:instances", f"instances of {surface.key[0]} come and go")
                body = self.bodies[surface.key] = _new_body(surface)
            _check_same(surface, body)
            mirrored = float(np.linalg.det(surface.matrix[:3, :3])) < 0.0
            body.turned |= mirrored != body.mirrored
            body.places[t] = (
                surface.local.astype(np.float64) @ surface.matrix[:3, :3].T + surface.matrix[:3, 3]
            )
            if not np.isfinite(body.places[t]).all():
                raise RefusedPass("geometry:motion_non_finite", f"{surface.key[0]} is at no number")
        if sum(len(body.triangles) for body in self.bodies.values()) > MAX_TRIANGLES:
            raise RefusedPass(
                "geometry:instances", f"more than {MAX_TRIANGLES:,} triangles with all instances"
            )
        if len(self.bodies) > MAX_NUMBERS:
            raise RefusedPass("geometry:instances", f"more than {MAX_NUMBERS:,} objects and instances")
        for key, body in self.bodies.items():
            if key[1] and t not in body.places:
                raise RefusedPass("geometry:instances", f"instances of {key[0]} come and go")

    def arrays(self) -> dict[str, Any]:
        """Arrays and names of the whole action, as `geometry_file` keeps them. Raises RefusedPass."""
        if self.refused is not None:
            raise self.refused
        if not self.bodies:
            raise RefusedPass("geometry:nothing", "no triangle is seen at any time")
        bodies = [self.bodies[key] for key in sorted(self.bodies)]
        n_times = len(self.seconds)
        shown = np.array([[t in body.places for body in bodies] for t in range(n_times)], bool)
        starts = np.cumsum([0, *(body.n_vertices for body in bodies)])
        names = sorted({body.faces.materials[k] for body in bodies for k in np.unique(body.faces.slot)})
        cuts = {name: _decided(name) for name in names}
        single_sided = {name: is_culled(bpy.data.materials.get(name)) for name in names}
        for key, body in zip(sorted(self.bodies), bodies):
            if body.turned and any(single_sided[body.faces.materials[k]] for k in np.unique(body.faces.slot)):
                raise RefusedPass("geometry:topology", f"{key[0]} turns inside out and is single-sided")
        numbers = {name: k for k, name in enumerate(names)}
        material = [
            np.array([numbers.get(name, 0) for name in body.faces.materials])[body.faces.slot]
            for body in bodies
        ]
        return {
            "seconds": np.array(self.seconds, np.float64),
            "vertices": np.concatenate([_held(body, n_times) for body in bodies], axis=1),
            "faces": np.concatenate([b.triangles + s for b, s in zip(bodies, starts)]).astype(np.int32),
            "material": np.concatenate(material).astype(np.uint16),
            "object": np.repeat(np.arange(len(bodies)), [len(b.triangles) for b in bodies]).astype(np.uint16),
            "shown": shown,
            "objects": [_name(key) for key in sorted(self.bodies)],
            "uv": _uv_of(bodies),
            **_materials(names, cuts, single_sided, bodies, np.concatenate(material)),
        }


def _new_body(surface: Surface) -> _Body:
    _check_triangles(surface)
    assert surface.faces is not None and surface.triangles is not None
    mirrored = float(np.linalg.det(surface.matrix[:3, :3])) < 0.0
    # Cycles keeps the front of what is mirrored; as numbers the corners run the other way round then.
    order = [0, 2, 1] if mirrored else [0, 1, 2]
    faces = surface.faces
    faces.uv = {name: places[:, order] for name, places in faces.uv.items()}
    return _Body(surface.triangles[:, order], faces, len(surface.local), mirrored, faces.vertices)


def _check_triangles(surface: Surface) -> None:
    if surface.faces is None:
        raise RefusedPass("geometry:hair", f"{surface.key[0]} draws hair or points beside triangles")
    if surface.triangles is None:
        # What stands for instances when there are too many has no triangles.
        raise RefusedPass("geometry:instances", f"too many instances of {surface.key[0]}")


def _check_same(surface: Surface, body: _Body) -> None:
    if surface.faces is None:
        _check_triangles(surface)
    assert surface.faces is not None
    if len(surface.local) != body.n_vertices or surface.faces.sign != body.faces.sign:
        raise RefusedPass("geometry:topology", f"{surface.key[0]} has other vertices or polygons over time")


def _check_scene(loaded: Loaded) -> None:
    """Raise RefusedPass for what is drawn and is no triangle of a mesh, or is drawn off its mesh."""
    for obj in rendered_objects(bpy.context.view_layer):
        if obj.type == "VOLUME" and not obj.hide_render:
            raise RefusedPass("geometry:volume", f"{obj.name} is a volume")
    for obj in loaded.meshes:
        if obj.type == "CURVES":
            raise RefusedPass("geometry:hair", f"{obj.name} is hair")
        if obj.type == "POINTCLOUD":
            raise RefusedPass("geometry:points", f"{obj.name} is a cloud of points")
        if getattr(getattr(obj, "cycles", None), "use_adaptive_subdivision", False):
            raise RefusedPass("geometry:displacement", f"{obj.name} is subdivided while it is rendered")
        for slot in obj.material_slots:
            if slot.material is not None and _displaces(slot.material):
                raise RefusedPass("geometry:displacement", f"{slot.material.name} moves the surface")


def _displaces(material: Any) -> bool:
    if material.displacement_method == "BUMP" or not material.use_nodes or material.node_tree is None:
        return False
    output = material.node_tree.get_output_node("CYCLES")
    return output is not None and output.inputs["Displacement"].is_linked


def _decided(name: str) -> Cut | bool:
    try:
        return cut_of(bpy.data.materials.get(name))
    except Undecided as doubt:
        raise RefusedPass("geometry:alpha", f"material {name}: {doubt}") from None


def _held(body: _Body, n_times: int) -> npt.NDArray[np.float64]:
    """[T, V, 3]; while it is not shown a body stands where it was last, or at first will be."""
    last = body.places[min(body.places)]
    stacked = np.empty((n_times, body.n_vertices, 3))
    for t in range(n_times):
        last = body.places.get(t, last)
        stacked[t] = last
    return stacked


def _name(key: Key) -> str:
    return key[0] + "".join(f"#{number}" for number in key[1])


def _uv_of(bodies: list[_Body]) -> npt.NDArray[np.float32] | None:
    if not any("" in body.faces.uv for body in bodies):
        return None
    parts = [body.faces.uv.get("", np.zeros((len(body.triangles), 3, 2), np.float32)) for body in bodies]
    return np.concatenate(parts)


def _materials(
    names: list[str],
    cuts: dict[str, Cut | bool],
    single_sided: dict[str, bool],
    bodies: list[_Body],
    material: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Materials as plain data, alpha maps, and the texture places of the triangles that have one."""
    rows: list[dict[str, Any]] = []
    maps: list[Cut] = []
    for name in names:
        cut = cuts[name]
        if isinstance(cut, Cut):
            maps.append(cut)
        rows.append(
            {
                "name": name,
                "single_sided": single_sided[name],
                "see_through": cut is False,
                "alpha": len(maps) - 1 if isinstance(cut, Cut) else -1,
            }
        )
    places = []
    start = 0
    for body in bodies:
        end = start + len(body.triangles)
        of_body = np.zeros((len(body.triangles), 3, 2), np.float32)
        wanted = np.zeros(len(body.triangles), bool)
        for k, name in enumerate(names):
            cut = cuts[name]
            mine = material[start:end] == k
            if not isinstance(cut, Cut) or not mine.any():
                continue
            if cut.uv not in body.faces.uv:
                raise RefusedPass("geometry:alpha", f"material {name}: its UV map {cut.uv!r} is missing")
            of_body[mine], wanted = body.faces.uv[cut.uv][mine], wanted | mine
        places.append(of_body[wanted])
        start = end
    return {
        "materials": rows,
        "alpha": [{"threshold": cut.threshold, "wrap": cut.wrap, "linear": cut.linear} for cut in maps],
        "alpha_texels": [cut.texels() for cut in maps],
        "alpha_uv": np.concatenate(places),
    }
