# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside Blender: imports bpy, which is GPL.
"""From arrays to Blender objects: meshes with a packed texture, bones, keyed poses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bmesh
import bpy
import numpy as np
from mathutils import Euler, Matrix, Quaternion, Vector

from orbit4d.render.blender.demo.forms import Array, Mesh, bake, rgb, skin_weights

FPS = 24
Bones = Mapping[str, tuple[Sequence[float], Sequence[float], float, str | None]]
"""name -> (head, tail, radius of influence, parent's name or None)"""
Pose = Mapping[str, Mapping[str, Any]]
"""bone -> {"turn": degrees about the world's x, y, z; or "about": world axis and "angle": degrees;
"shift": world units; "scale": along the bone's own axes}"""


def empty_scene(last_frame: int) -> None:
    """Forget everything; frames 0..last_frame at 24 a second."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start, scene.frame_end = FPS, 0, last_frame


def _material(name: str, image: bpy.types.Image) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes = material.node_tree.nodes
    shader = nodes["Principled BSDF"]
    # Matt: sharp highlights of a sun lamp need hundreds of samples, and move with the camera.
    shader.inputs["Roughness"].default_value = 0.85
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = image
    material.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    return material


def _image(name: str, pixels: Array) -> bpy.types.Image:
    """A packed 8-bit sRGB image from values in [0, 1], [H, W, 3], row 0 at the bottom."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new(name, width, height, alpha=False)
    rgba = np.ones((height, width, 4), np.float32)
    rgba[..., :3] = pixels
    image.pixels.foreach_set(rgba.ravel())
    image.pack()
    return image


def _object(name: str, mesh: Mesh, smooth: bool) -> bpy.types.Object:
    data = bpy.data.meshes.new(name)
    data.from_pydata([tuple(v) for v in mesh[0]], [], mesh[1])
    data.update()
    data.polygons.foreach_set("use_smooth", [smooth] * len(data.polygons))
    thing = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def painted(name: str, mesh: Mesh, colour: Callable[[Array], Array], size: int = 256) -> bpy.types.Object:
    """A smooth mesh, unwrapped, with the solid texture `colour` baked into a packed image."""
    thing = _object(name, mesh, smooth=True)
    bpy.context.view_layer.objects.active = thing
    thing.select_set(True)
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.uv.smart_project(angle_limit=np.radians(72.0), island_margin=0.012)
    bpy.ops.object.mode_set(mode="OBJECT")
    data = thing.data
    data.calc_loop_triangles()
    loops = np.empty(len(data.loop_triangles) * 3, np.int32)
    data.loop_triangles.foreach_get("loops", loops)
    corner = np.empty(len(data.loops), np.int32)
    data.loops.foreach_get("vertex_index", corner)
    flat = np.empty(len(data.loops) * 2, np.float32)
    data.uv_layers.active.data.foreach_get("uv", flat)
    uv = flat.reshape(-1, 2)[loops].reshape(-1, 3, 2).astype(float)
    texture = bake(uv, np.asarray(mesh[0])[corner[loops]].reshape(-1, 3, 3), colour, size)
    data.materials.append(_material(f"{name}_skin", _image(f"{name}_skin", texture / 255.0)))
    return thing


class Parts:
    """Collects simple meshes of one plain colour each into one object with a palette texture.

    One texture of colour cells and one material keep a model of many parts at one draw call and a few bytes.
    """

    def __init__(self, palette: Mapping[str, str]) -> None:
        self._palette = dict(palette)
        self._vertices: list[Array] = []
        self._faces: list[tuple[int, ...]] = []
        self._cell: list[int] = []
        self._smooth: list[bool] = []
        self._group: list[str] = []
        self._count = 0

    def add(self, mesh: Mesh, colour: str, group: str = "", smooth: bool = True) -> Parts:
        """Add a mesh in the palette colour `colour`; `group` names the bone that carries it."""
        self._vertices.append(np.asarray(mesh[0], float))
        self._faces += [tuple(i + self._count for i in face) for face in mesh[1]]
        self._cell += [list(self._palette).index(colour)] * len(mesh[1])
        self._smooth += [smooth] * len(mesh[1])
        self._group += [group] * len(mesh[0])
        self._count += len(mesh[0])
        return self

    def build(self, name: str, origin: Sequence[float] = (0, 0, 0)) -> bpy.types.Object:
        """Make the object; `origin` becomes its pivot, in the coordinates the parts were given in."""
        vertices = np.vstack(self._vertices) - np.asarray(origin, float)
        thing = _object(name, (vertices, self._faces), smooth=True)
        thing.location = origin
        data = thing.data
        data.polygons.foreach_set("use_smooth", self._smooth)
        columns = len(self._palette)
        uv = data.uv_layers.new(name="UVMap")
        for polygon, cell in zip(data.polygons, self._cell):
            for loop in polygon.loop_indices:
                uv.data[loop].uv = ((cell + 0.5) / columns, 0.5)
        strip = np.repeat([rgb(c) for c in self._palette.values()], 8, axis=0)
        image = bpy.data.images.get("palette") or _image("palette", np.repeat(strip[None], 8, axis=0))
        data.materials.append(bpy.data.materials.get("palette") or _material("palette", image))
        for group in dict.fromkeys(g for g in self._group if g):
            members = [i for i, g in enumerate(self._group) if g == group]
            thing.vertex_groups.new(name=group).add(members, 1.0, "REPLACE")
        return thing


def box(
    size: Sequence[float], centre: Sequence[float] = (0, 0, 0), bevel: float = 0.02, steps: int = 2
) -> Mesh:
    """A box with rounded edges."""
    shape = bmesh.new()
    bmesh.ops.create_cube(shape, size=1.0, matrix=Matrix.LocRotScale(Vector(centre), None, Vector(size)))
    if bevel:
        bmesh.ops.bevel(shape, geom=shape.edges[:], offset=bevel, segments=steps, profile=0.5, affect="EDGES")
    shape.verts.index_update()
    vertices = np.array([v.co[:] for v in shape.verts])
    faces = [tuple(v.index for v in face.verts) for face in shape.faces]
    shape.free()
    return vertices, faces


def armature(name: str, bones: Bones) -> bpy.types.Object:
    """An armature at the origin."""
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(rig)
    for other in bpy.context.selected_objects:
        other.select_set(False)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for bone, (head, tail, _, parent) in bones.items():
        edit = data.edit_bones.new(bone)
        edit.head, edit.tail = Vector(head), Vector(tail)
        if parent:
            edit.parent = data.edit_bones[parent]
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


def bind(thing: bpy.types.Object, rig: bpy.types.Object) -> None:
    """Let `rig` deform `thing` by its vertex groups."""
    thing.parent = rig
    thing.modifiers.new("rig", "ARMATURE").object = rig


def skin(thing: bpy.types.Object, rig: bpy.types.Object, bones: Bones, softness: float) -> None:
    """Bind with weights that fall off smoothly with the distance from each bone."""
    points = np.array([v.co[:] for v in thing.data.vertices])
    reach = {name: (head, tail, radius) for name, (head, tail, radius, _) in bones.items()}
    for name, weight in skin_weights(points, reach, softness).items():
        group = thing.vertex_groups.new(name=name)
        for i in np.flatnonzero(weight):
            group.add([int(i)], float(weight[i]), "REPLACE")
    bind(thing, rig)


def animate(rig: bpy.types.Object, name: str, frames: Sequence[int], pose: Callable[[float], Pose]) -> None:
    """Key an action of a rig: `pose(phase)` with phase in [0, 1] from the first to the last frame."""
    data = rig.animation_data_create()
    data.action = bpy.data.actions.new(name)
    for frame in frames:
        wanted = pose((frame - frames[0]) / max(frames[-1] - frames[0], 1))
        for bone in rig.pose.bones:
            bone.rotation_mode = "QUATERNION"
            want = wanted.get(bone.name, {})
            rest = bone.bone.matrix_local.to_quaternion()
            if "about" in want:
                turn = Quaternion(Vector(want["about"]), np.radians(want["angle"]))
            else:
                turn = Euler([np.radians(a) for a in want.get("turn", (0, 0, 0))]).to_quaternion()
            bone.rotation_quaternion = rest.inverted() @ turn @ rest
            bone.location = rest.inverted() @ Vector(want.get("shift", (0, 0, 0)))
            bone.scale = want.get("scale", (1, 1, 1))
            for path in ("rotation_quaternion", "location", "scale"):
                bone.keyframe_insert(path, frame=frame)


def key_object(
    thing: bpy.types.Object,
    frames: Sequence[int],
    turn_deg: Callable[[float], Sequence[float]] | None = None,
    place: Callable[[float], Sequence[float]] | None = None,
    scale: Callable[[float], Sequence[float]] | None = None,
) -> None:
    """Key turn (degrees about x, y, z), place and scale of an object."""
    thing.rotation_mode = "QUATERNION"
    for frame in frames:
        phase = (frame - frames[0]) / (frames[-1] - frames[0])
        if turn_deg:
            angles = Euler([np.radians(a) for a in turn_deg(phase)])
            turned: Quaternion = angles.to_quaternion()
            turned.make_compatible(thing.rotation_quaternion)
            thing.rotation_quaternion = turned
            thing.keyframe_insert("rotation_quaternion", frame=frame)
        if place:
            thing.location = place(phase)
            thing.keyframe_insert("location", frame=frame)
        if scale:
            thing.scale = scale(phase)
            thing.keyframe_insert("scale", frame=frame)


def key_shapes(
    thing: bpy.types.Object,
    shapes: Mapping[str, Array],
    frames: Sequence[int],
    weights: Callable[[float], Mapping[str, float]],
) -> None:
    """Give a mesh morph targets (name -> vertices [V, 3]) and key their weights over `frames`."""
    thing.shape_key_add(name="Basis")
    for name, vertices in shapes.items():
        block = thing.shape_key_add(name=name)
        block.data.foreach_set("co", np.asarray(vertices, np.float32).ravel())
        block.slider_min, block.slider_max = -2.0, 2.0
    blocks = thing.data.shape_keys.key_blocks
    for frame in frames:
        now = weights((frame - frames[0]) / (frames[-1] - frames[0]))
        for name in shapes:
            blocks[name].value = float(now.get(name, 0.0))
            blocks[name].keyframe_insert("value", frame=frame)
