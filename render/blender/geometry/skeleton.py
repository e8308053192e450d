# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Joints, weights and morph targets behind an action's surfaces, kept where they give the evaluated vertices.

Every vertex is a sum over joints of weight · pose(t) · rest⁻¹ · place, in the clip's world. What is not
skinned follows a joint of its own, its object. Whether that is so is not guessed from modifiers but computed,
and compared with what Blender evaluated.
"""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.local_geometry import array_of
from orbit4d.render.blender.geometry.recorder import GeometryRecorder
from orbit4d.render.planning.topology import MAX_NUMBERS, RefusedPass

Matrices = npt.NDArray[np.float64]

#: Largest difference to the evaluated vertices, units of the clip's world.
MOST_ERROR = 1e-5
#: Vertices beyond which weights are not read only to make what is stored smaller.
_MOST_VERTICES = 200_000
#: Times at which the formula is compared.
_LOOKS = 8


class SkeletonRecorder:
    """Take the same times as a `GeometryRecorder`, with `add` after its own; then `arrays`."""

    def __init__(self, recorder: GeometryRecorder) -> None:
        self.recorder = recorder
        meshes = recorder.loaded.meshes
        self.armatures = sorted({m.object for o in meshes for m in _armature_modifiers(o) if m.object},
                                key=lambda o: o.name)  # fmt: skip
        self.bones = [(rig, bone.name) for rig in self.armatures for bone in _parents_first(rig)]
        self.poses: list[dict[tuple[str, str], Matrices]] = []
        """Per time, of (object, bone) and (object, ''), its matrix in the world."""
        self.keys: list[dict[tuple[str, str], float]] = []
        """Per time, of (object, shape key), its value."""

    def add(self) -> None:
        """Note where all joints stand now."""
        graph = bpy.context.evaluated_depsgraph_get()
        found: dict[tuple[str, str], Matrices] = {}
        for rig in self.armatures:
            evaluated = rig.evaluated_get(graph)
            world = array_of(evaluated.matrix_world)
            found[rig.name, ""] = world
            for bone in evaluated.pose.bones:
                found[rig.name, bone.name] = world @ array_of(bone.matrix)
        values: dict[tuple[str, str], float] = {}
        for obj in self.recorder.loaded.meshes:
            found[obj.name, ""] = array_of(obj.evaluated_get(graph).matrix_world)
            keys = obj.data.shape_keys if obj.type == "MESH" else None
            if keys is not None:
                # Animated values stand in the evaluated copy.
                for key in keys.evaluated_get(graph).key_blocks:
                    values[obj.name, key.name] = 0.0 if key.mute else float(key.value)
        self.poses.append(found)
        self.keys.append(values)

    def rig(self) -> dict[str, Any] | None:
        """`basis` and `coo` alone, whether or not they give the vertices; None where they cannot be read."""
        if sum(body.n_vertices for body in self.recorder.bodies.values()) > _MOST_VERTICES:
            return None
        try:
            found = self._gathered()
        except RefusedPass:
            return None
        return {"basis": found["basis"], "coo": found["coo"]}

    def arrays(self) -> dict[str, Any]:
        """Arrays and names, as `geometry_file.write_skeleton` keeps them. Raises RefusedPass."""
        if self.recorder.refused is not None:
            raise RefusedPass(
                "skeleton:no_geometry", f"its geometry is refused: {self.recorder.refused.code}"
            )
        if not self.armatures:
            raise RefusedPass("skeleton:none", "nothing is skinned to an armature")
        found = self._gathered()
        self._compare(found)
        return found

    def _gathered(self) -> dict[str, Any]:
        """All of it, not compared yet."""
        bodies = self.recorder.bodies
        names = [(rig.name, bone) for rig, bone in self.bones]
        weights: list[npt.NDArray[np.float64]] = []
        places, targets = [], []
        start = 0
        for key in sorted(bodies):
            obj = bpy.data.objects.get(key[0])
            if key[1] or obj is None or (obj.name, "") not in self.poses[0]:
                raise RefusedPass("skeleton:modifier", f"{key[0]} is instanced")
            chosen = bodies[key].vertices
            local, deltas = _rest_of(obj, chosen, bodies[key].n_vertices)
            names.append((obj.name, ""))
            rows = _weights_of(obj, chosen, names, bodies[key].n_vertices)
            weights.append(rows + np.array([start, 0, 0]))
            world = self.poses[0][obj.name, ""]
            places.append(local @ world[:3, :3].T + world[:3, 3])
            targets += [(obj.name, k, start, d @ world[:3, :3].T) for k, d in deltas]
            start += bodies[key].n_vertices
        if len(names) > MAX_NUMBERS:
            raise RefusedPass("skeleton:modifier", f"more than {MAX_NUMBERS:,} joints and objects")
        basis, morphs, morph_weights = self._morphs(np.concatenate(places), targets)
        return {
            "names": [_joint_name(name, len(self.armatures)) for name in names],
            "parents": self._parents(names),
            "rest": np.stack([self._rest(name) for name in names]),
            "pose": np.stack([[pose[name] for name in names] for pose in self.poses]),
            "basis": basis,
            "coo": np.concatenate(weights),
            "morphs": [f"{obj}/{k}" for obj, k, _, _ in targets],
            "deltas": morphs,
            "morph_weights": morph_weights,
        }

    def _rest(self, name: tuple[str, str]) -> Matrices:
        """Where a joint stands while its surface lies as modelled, with its object at the first time."""
        world = self.poses[0][name[0], ""]
        if not name[1]:
            return world
        return world @ array_of(bpy.data.objects[name[0]].data.bones[name[1]].matrix_local)

    def _parents(self, names: list[tuple[str, str]]) -> npt.NDArray[np.int32]:
        number = {name: i for i, name in enumerate(names)}
        found = []
        for owner, bone in names:
            obj = bpy.data.objects[owner]
            if bone:
                above = obj.data.bones[bone].parent
                found.append(-1 if above is None else number[owner, above.name])
            elif obj.parent is not None and obj.parent_type == "BONE":
                found.append(number.get((obj.parent.name, obj.parent_bone), -1))
            else:
                found.append(-1)
        return np.array(found, np.int32)

    def _morphs(
        self, basis: Matrices, targets: list[tuple[str, str, int, Matrices]]
    ) -> tuple[Matrices, Matrices, Matrices]:
        deltas = np.zeros((len(targets), *basis.shape))
        weights = np.zeros((len(self.poses), len(targets)))
        for k, (obj, name, start, delta) in enumerate(targets):
            deltas[k, start : start + len(delta)] = delta
            weights[:, k] = [values[obj, name] for values in self.keys]
        return basis, deltas, weights

    def _compare(self, found: dict[str, Any]) -> None:
        """Raise RefusedPass unless the formula gives what was evaluated, naming a cause where one is seen."""
        times = np.unique(np.linspace(0, len(self.poses) - 1, _LOOKS).astype(int))
        evaluated = self.recorder.arrays()["vertices"]
        inverse = np.linalg.inv(found["rest"])
        rows = found["coo"]
        vertex, joint = rows[:, 0].astype(int), rows[:, 1].astype(int)
        worst = 0.0
        for t in times:
            place = found["basis"] + np.tensordot(found["morph_weights"][t], found["deltas"], 1)
            turn = found["pose"][t] @ inverse
            moved = np.einsum("nij,nj->ni", turn[joint][:, :3, :3], place[vertex]) + turn[joint][:, :3, 3]
            total = np.zeros_like(place)
            np.add.at(total, vertex, moved * rows[:, 2:])
            worst = max(worst, float(np.abs(total - evaluated[t]).max()))
        if not worst <= MOST_ERROR:
            code, detail = _cause(self.recorder.loaded.meshes)
            raise RefusedPass(code, f"{detail}: joints and weights miss the surface by {worst:.2g}")


def _armature_modifiers(obj: Any) -> list[Any]:
    return [m for m in obj.modifiers if m.type == "ARMATURE" and m.show_render]


def _parents_first(rig: Any) -> list[Any]:
    return sorted(rig.data.bones, key=lambda bone: len(bone.parent_recursive))


def _joint_name(name: tuple[str, str], n_armatures: int) -> str:
    owner, bone = name
    return f"object:{owner}" if not bone else bone if n_armatures == 1 else f"{owner}/{bone}"


def _rest_of(
    obj: Any, chosen: npt.NDArray[np.int64] | None, n: int
) -> tuple[Matrices, list[tuple[str, Matrices]]]:
    """(vertices [V, 3] as modelled, morph targets as (name, differences)) of the drawn part, in its space."""
    mesh = obj.data
    if (
        obj.type != "MESH"
        or (len(mesh.vertices) if chosen is None else len(chosen)) != n
        or (chosen is not None and len(chosen) and chosen.max() >= len(mesh.vertices))
    ):
        raise RefusedPass("skeleton:modifier", f"a modifier changes the vertices of {obj.name}")

    def read(points: Any, count: int) -> Matrices:
        flat = np.empty(count * 3, np.float32)
        points.foreach_get("co", flat)
        places = flat.reshape(-1, 3).astype(np.float64)
        return places if chosen is None else places[chosen]

    count = len(mesh.vertices)
    if mesh.shape_keys is None:
        return read(mesh.vertices, count), []
    blocks = mesh.shape_keys.key_blocks
    if not mesh.shape_keys.use_relative or any(block.vertex_group for block in blocks):
        raise RefusedPass("skeleton:masked", f"shape keys of {obj.name} are masked or absolute")
    base = mesh.shape_keys.reference_key
    deltas = [
        (block.name, read(block.data, count) - read(block.relative_key.data, count))
        for block in blocks
        if block != base
    ]
    return read(base.data, count), deltas


def _weights_of(
    obj: Any, chosen: npt.NDArray[np.int64] | None, names: list[tuple[str, str]], n: int
) -> npt.NDArray[np.float64]:
    """[E, 3] vertex, joint, weight; those that no bone holds follow their object, the last of `names`."""
    modifiers = _armature_modifiers(obj)
    if len(modifiers) > 1:
        raise RefusedPass("skeleton:several", f"{obj.name} is skinned by several armatures at once")
    own = len(names) - 1
    joint_of: dict[int, int] = {}
    if modifiers and modifiers[0].object is not None and modifiers[0].use_vertex_groups:
        rig = modifiers[0].object
        number = {bone: i for i, (owner, bone) in enumerate(names) if owner == rig.name and bone}
        for group in obj.vertex_groups:
            if group.name in number and rig.data.bones[group.name].use_deform:
                joint_of[group.index] = number[group.name]
    vertices = range(n) if chosen is None else chosen.tolist()
    rows = []
    for i, v in enumerate(vertices):
        held = [(joint_of[g.group], g.weight) for g in obj.data.vertices[v].groups if g.group in joint_of]
        total = sum(weight for _, weight in held)
        if total > 0.0:
            rows += [(i, joint, weight / total) for joint, weight in held if weight > 0.0]
        else:
            rows.append((i, own, 1.0))
    return np.array(rows, np.float64).reshape(-1, 3)


def _cause(meshes: Any) -> tuple[str, str]:
    for obj in meshes:
        for modifier in _armature_modifiers(obj):
            if modifier.use_deform_preserve_volume:
                return "skeleton:dual_quaternion", f"{obj.name} preserves volume"
            if modifier.vertex_group:
                return "skeleton:masked", f"a vertex group masks the skin of {obj.name}"
            if modifier.object and any(bone.bbone_segments > 1 for bone in modifier.object.data.bones):
                return "skeleton:bendy", f"{modifier.object.name} has bendy bones"
        if any(m.type != "ARMATURE" and m.show_render for m in obj.modifiers):
            return "skeleton:modifier", f"{obj.name} has other modifiers than its armature"
    return "skeleton:not_linear", "its surface does not follow joints by weights"
