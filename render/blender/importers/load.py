# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Load one untrusted asset file into an empty Blender scene and play its actions one at a time.

Whatever the format, the caller sees the same three things: the meshes to draw, a list of actions with their
time range in seconds on the file's own clock, and flags that say what had to be repaired. Scripts in the file
never run, helper meshes that importers add are never listed, and anything the file points to outside its own
folder is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix

from orbit4d.datasets.assets.gltf import gltf_material_names
from orbit4d.render.blender.importers import importing as importers
from orbit4d.render.blender.importers.as_rendered import (
    SURFACE_TYPES,
    evaluate_as_rendered,
    heed_fbx_visibility,
    keyed_visibility,
    plays_by_itself,
    reads_world,
    rendered_objects,
    slot_curves,
)
from orbit4d.render.blender.importers.cause import cause_of
from orbit4d.render.blender.materials.repair import repair_materials
from orbit4d.render.blender.materials.see_through import single_sided_when_bare
from orbit4d.render.blender.materials.vertex_colours import paint_vertex_colours

ROOT_NAME = "orbit4d_root"


class LoadError(Exception):
    """The file cannot be used. `code` is a reason code such as `bad_file:import`; the text is the detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class ActionInfo:
    """One thing the asset does: a glTF animation, an FBX take, an NLA track, or the scene's own timeline."""

    index: int
    """Order in the file, counted from 0."""
    name: str
    """Name as the file has it."""
    seconds_start: float
    """First key time, on the file's clock."""
    seconds_end: float
    """Last key time, on the file's clock."""

    @property
    def seconds(self) -> float:
        """Length of the action."""
        return self.seconds_end - self.seconds_start


@dataclass
class Loaded:
    """An asset that has been read into Blender's current scene. Times are seconds on the file's clock."""

    path: Path
    meshes: list[bpy.types.Object]
    """Objects with a surface that is drawn at some time, in a stable order, without helpers; an instanced
    one stands here once."""
    actions: list[ActionInfo]
    flags: list[str]
    """What was repaired or found missing, e.g. `alpha_repaired:7`, `missing_texture:skin.png`."""
    fps: float
    """Frames per second that the importer used to place keys."""
    first_frame: int = 0
    """Frame number at which the file's second 0 stands when the published script loads it (1 for FBX)."""
    root: bpy.types.Object | None = None
    """Empty above every other object, or that instances all of them; carries the normalisation."""
    keyed: frozenset[bpy.types.Object] = frozenset()
    """Objects whose visibility in renders changes while an action plays."""
    is_plain: bool = True
    """Whether every object with a surface is a mesh that stands for itself: no instances, no nodes."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """What `surfaces` remembers of meshes and materials."""
    _bindings: list[list[importers.Binding]] = field(default_factory=list)
    _rest: list[tuple[Callable[[Any], None], Any]] = field(default_factory=list)

    def activate(self, action_index: int | None) -> None:
        """Play one action alone; None puts every animated property back to its value in the file."""
        for owner in importers.animated_ids():
            data = owner.animation_data
            # While an NLA track is in tweak mode the action is read-only; muted tracks never contribute.
            data.use_nla = False
            if data.action is not None:
                data.action = None
        for restore, value in self._rest:
            restore(value)
        if action_index is None:
            return
        for binding in self._bindings[action_index]:
            binding.assign()

    def set_seconds(self, t: float) -> None:
        """Move the scene to `t` seconds on the file's clock and evaluate it."""
        frame = t * self.fps
        whole = int(frame // 1)
        bpy.context.scene.frame_set(whole, subframe=frame - whole)

    def key_seconds(self, action_index: int) -> list[float]:
        """Distinct times of all keys of one action, ascending."""
        times: set[float] = set()
        for binding in self._bindings[action_index]:
            for slot, curve in slot_curves(binding.action):
                if slot == binding.slot:
                    places = [0.0] * (2 * len(curve.keyframe_points))
                    curve.keyframe_points.foreach_get("co", places)
                    times.update(frame / self.fps for frame in places[::2])
        return sorted(times)

    def raw_frame_seconds(self, frame: int) -> float:
        """Seconds that the published script's `frame_set(frame)` shows."""
        return (frame - self.first_frame) / self.fps

    def normalise(self, scale: float, centre: Sequence[float]) -> None:
        """Show every world point x of the file at scale · (x − centre)."""
        if self.root is None:
            raise ValueError("this asset was loaded without a root")
        self.root.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation([-c for c in centre])


def load_asset(path: str | os.PathLike[str], merge_vertices: bool = False) -> Loaded:
    """Read a glb, gltf, fbx, obj, usd*, abc, blend, ply, stl or dae file into an empty scene.

    Everything loaded before is dropped. The first action is active, at its first time. `merge_vertices`
    joins glTF vertices that differ in normal or texture place alone, as the published script does.
    Raises LoadError when the file cannot be read, holds nothing to draw, or reaches outside its folder.
    """
    path = Path(path).resolve()
    imported = _import(path, merge_vertices)
    scene = bpy.context.scene
    if not imported.actions and plays_by_itself():
        frames = float(scene.frame_start), float(scene.frame_end)
        imported.actions = [importers.Action("scene", [], *frames)]
    flags = list(imported.flags)
    helpers = _helpers()
    for obj in bpy.data.objects:
        if obj in helpers or obj.type in ("LIGHT", "LIGHT_PROBE", "SPEAKER"):
            obj.hide_render = True
    if path.suffix.lower() == ".fbx":
        heed_fbx_visibility()
    keyed = keyed_visibility(b for action in imported.actions for b in action.bindings) - helpers
    evaluate_as_rendered(keyed)
    meshes = _drawn(keyed)
    if not meshes:
        raise LoadError("bad_file:no_geometry", "nothing in the file has a surface that is drawn")
    flags += repair_materials(meshes, path)
    if importers.IMPORTERS[path.suffix.lower()] is importers.import_gltf:
        single_sided_when_bare(meshes, gltf_material_names(str(path)))
    else:
        flags += paint_vertex_colours(meshes, path)

    instanced = _needs_instancing()
    loaded = Loaded(
        path=path,
        meshes=sorted(meshes, key=lambda o: o.name),
        actions=[
            ActionInfo(i, action.name, action.frame_start / imported.fps, action.frame_end / imported.fps)
            for i, action in enumerate(imported.actions)
        ],
        flags=flags,
        fps=imported.fps,
        first_frame=imported.first_frame,
        root=_add_instancing_root(scene) if instanced else _add_root(scene),
        keyed=frozenset(keyed),
        is_plain=all(map(_is_plain, meshes)) and not instanced,
        _bindings=[action.bindings for action in imported.actions],
        _rest=imported.rest,
    )
    loaded.activate(0 if loaded.actions else None)
    # A box measured at the frame that the asset before this one left behind would be wrong.
    loaded.set_seconds(loaded.actions[0].seconds_start if loaded.actions else 0.0)
    return loaded


def _import(path: Path, merge_vertices: bool) -> importers.Imported:
    """Read the file into an empty scene. Raises LoadError as `load_asset` does."""
    importer = importers.IMPORTERS.get(path.suffix.lower())
    if importer is None:
        raise LoadError("bad_file:format", f"no importer for '{path.suffix}'")
    if not path.is_file():
        raise LoadError("bad_file:missing", f"no file at {path}")
    _empty_scene()
    try:
        joined = {"merge_vertices": True} if merge_vertices and importer is importers.import_gltf else {}
        imported = importer(path, **joined)
    except importers.Refused as refusal:
        raise LoadError(refusal.code, str(refusal)) from None
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        # Importers are Python or C++ code fed with untrusted bytes: they fail in every way there is.
        raise LoadError("bad_file:import", cause_of(error)) from error
    if refused := _outside_references(path.parent):
        raise LoadError("bad_file:outside_reference", f"refers to {refused}, outside the asset's folder")
    return imported


def _drawn(keyed: set[bpy.types.Object]) -> list[bpy.types.Object]:
    """Objects with a surface that renders draw, those that appear later and those instanced included."""
    found = {
        obj
        for obj in rendered_objects(bpy.context.view_layer)
        if obj.type in SURFACE_TYPES and (not obj.hide_render or obj in keyed)
    }
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.is_instance and instance.object.type in SURFACE_TYPES:
            found.add(instance.object.original)
    return list(found)


def _is_plain(obj: bpy.types.Object) -> bool:
    modifiers = {modifier.type for modifier in obj.modifiers}
    return obj.type == "MESH" and obj.instance_type == "NONE" and not modifiers & {"NODES", "PARTICLE_SYSTEM"}


def _instances_collections() -> bool:
    return any(obj.instance_type == "COLLECTION" for obj in bpy.data.objects) or any(
        particles.render_type in ("OBJECT", "COLLECTION") for particles in bpy.data.particles
    )


def _needs_instancing() -> bool:
    """Whether objects below a common parent would be moved twice, or not at all.

    An instance of a collection stands at its instancer's place times that of the collection's object: with
    both below one root, the root counts twice. Nodes, constraints and drivers may read the world, and
    particle hair is as long in the world as its settings say.
    """
    by_world = any(
        modifier.type in ("NODES", "PARTICLE_SYSTEM")
        for obj in bpy.data.objects
        for modifier in obj.modifiers
    )
    # Blender does not draw instanced metaballs.
    return (by_world or _instances_collections() or reads_world()) and not bpy.data.metaballs


def _empty_scene() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    paths = bpy.context.preferences.filepaths
    paths.use_scripts_auto_execute = False
    paths.use_load_ui = False


def _helpers() -> set[bpy.types.Object]:
    """Meshes that importers add for display: bone shapes, and glTF's collection of things not to export."""
    found = {
        bone.custom_shape
        for obj in bpy.data.objects
        if obj.pose is not None
        for bone in obj.pose.bones
        if bone.custom_shape is not None
    }
    for collection in bpy.data.collections:
        if collection.name.startswith("glTF_not_exported"):
            found.update(collection.all_objects)
    return found


def _add_root(scene: bpy.types.Scene) -> bpy.types.Object:
    root = bpy.data.objects.new(ROOT_NAME, None)
    for obj in scene.objects:
        if obj.parent is None:
            obj.parent = root
            obj.matrix_parent_inverse = Matrix.Identity(4)
    scene.collection.objects.link(root)
    return root


def _add_instancing_root(scene: bpy.types.Scene) -> bpy.types.Object:
    """A root that instances all that is drawn: every object keeps its place in the file's own world."""
    drawn = rendered_objects(bpy.context.view_layer)
    asset = bpy.data.collections.new(ROOT_NAME)
    for obj in sorted(drawn, key=lambda obj: obj.name):
        asset.objects.link(obj)
    for child in list(scene.collection.children):
        scene.collection.children.unlink(child)
    for obj in list(scene.collection.objects):
        scene.collection.objects.unlink(obj)
    root = bpy.data.objects.new(ROOT_NAME, None)
    root.instance_type, root.instance_collection = "COLLECTION", asset
    scene.collection.objects.link(root)
    return root


def _outside_references(folder: Path) -> str | None:
    """First file that the loaded data point to and that does not lie in `folder`, None when all do."""
    folder = folder.resolve()
    for collection in ("images", "movieclips", "sounds", "fonts", "volumes", "cache_files", "libraries"):
        for block in getattr(bpy.data, collection):
            if getattr(block, "packed_file", None) is not None or not getattr(block, "filepath", ""):
                continue
            if getattr(block, "source", "") in ("GENERATED", "VIEWER") or block.filepath == "<builtin>":
                continue
            target = Path(bpy.path.abspath(block.filepath, start=str(folder)))
            # realpath follows links, so a link inside the folder that leads out of it is caught as well.
            if not target.resolve().is_relative_to(folder) and target.exists():
                return str(block.filepath)
    return None
