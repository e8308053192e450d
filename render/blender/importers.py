# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""One function per file format: call Blender's importer, and say which actions the file holds.

An action is a list of bindings (data-block, Blender action, slot): one glTF animation or FBX take may move
many objects, and since Blender 4.4 an action without a chosen slot silently moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy

from orbit4d.render.blender.as_rendered import rendered_objects

#: Collections of bpy.data whose members can be animated.
ANIMATED_COLLECTIONS = (
    "objects",
    "shape_keys",
    "materials",
    "node_groups",
    "meshes",
    "curves",
    "armatures",
    "lattices",
    "cameras",
    "lights",
    "textures",
)


def animated_ids() -> Iterator[Any]:
    """Every data-block that carries animation data, a material's own node tree included."""
    for collection in ANIMATED_COLLECTIONS:
        for owner in getattr(bpy.data, collection):
            if owner.animation_data is not None:
                yield owner
            tree = getattr(owner, "node_tree", None)
            if tree is not None and tree.animation_data is not None:
                yield tree


class Refused(Exception):
    """The file asks for something that is not done with untrusted files."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class Binding:
    """One data-block played by one slot of one Blender action."""

    owner: Any
    action: Any
    slot: Any

    def assign(self) -> None:
        data = self.owner.animation_data or self.owner.animation_data_create()
        data.action = self.action
        data.action_slot = self.slot


@dataclass
class Action:
    """A named group of bindings with its range in frames."""

    name: str
    bindings: list[Binding] = field(default_factory=list)
    frame_start: float = 0.0
    frame_end: float = 0.0

    def measure(self) -> Action:
        """Set the frame range from the keys that the bindings play."""
        keys = [
            key
            for binding in self.bindings
            for curve in _curves(binding)
            for key in (
                (curve.keyframe_points[0].co[0], curve.keyframe_points[-1].co[0])
                if len(curve.keyframe_points)
                else ()
            )
        ]
        if keys:
            self.frame_start, self.frame_end = float(min(keys)), float(max(keys))
        return self


@dataclass
class Imported:
    """What an importer left in the scene."""

    fps: float
    actions: list[Action] = field(default_factory=list)
    rest: list[tuple[Callable[[Any], None], Any]] = field(default_factory=list)
    """(setter, value) of every animated property as it stands in the file, before any action played."""
    flags: list[str] = field(default_factory=list)
    first_frame: int = 0


def _curves(binding: Binding) -> list[Any]:
    curves = []
    for layer in binding.action.layers:
        for strip in layer.strips:
            bag = strip.channelbag(binding.slot)
            if bag is not None:
                curves.extend(bag.fcurves)
    return curves


def rest_values(actions: list[Action]) -> list[tuple[Callable[[Any], None], Any]]:
    """Current values of all properties that any of the actions animates."""
    seen: set[tuple[int, str]] = set()
    rest: list[tuple[Callable[[Any], None], Any]] = []
    for action in actions:
        for binding in action.bindings:
            for curve in _curves(binding):
                key = (binding.owner.as_pointer(), curve.data_path)
                if key not in seen:
                    seen.add(key)
                    rest += _rest_value(binding.owner, curve.data_path)
    return rest


def _rest_value(owner: Any, data_path: str) -> list[tuple[Callable[[Any], None], Any]]:
    head, _, name = data_path.rpartition(".")
    if not name.isidentifier() or name in ("hide_viewport", "show_viewport"):
        # A custom property such as pose.bones["x"]["y"]: drivers may read it, nothing we draw does. What the
        # viewport shows follows what renders show (see `as_rendered`).
        return []
    try:
        holder = owner.path_resolve(head) if head else owner
        value = getattr(holder, name)
    except (ValueError, AttributeError):
        return []
    if hasattr(value, "__len__") and not isinstance(value, str):
        value = tuple(value)
    return [(lambda v, holder=holder, name=name: setattr(holder, name, v), value)]


def _scene_fps() -> float:
    render = bpy.context.scene.render
    return render.fps / render.fps_base


# ---------------------------------------------------------------- glTF


def import_gltf(path: Path, merge_vertices: bool = False) -> Imported:
    from io_scene_gltf2.blender.imp.animation import BlenderAnimation

    # The importer ends by playing animation 0, which overwrites the file's own values as soon as the scene is
    # evaluated. It is kept from playing anything, and asked for the names in file order, which differs
    # from the order of the NLA tracks that say what belongs to which animation.
    order: list[str] = []
    original = BlenderAnimation.restore_animation
    BlenderAnimation.restore_animation = staticmethod(
        lambda gltf, name: order.extend(animation.track_name for animation in gltf.data.animations)
    )
    try:
        bpy.ops.import_scene.gltf(
            filepath=str(path),
            disable_bone_shape=True,
            import_scene_extras=False,
            merge_vertices=merge_vertices,
            loglevel=40,
        )
    finally:
        BlenderAnimation.restore_animation = original
    tracks = _actions_by_track()
    actions = [tracks.pop(name, Action(name)) for name in order] + list(tracks.values())
    return Imported(fps=_scene_fps(), actions=[a.measure() for a in actions], rest=rest_values(actions))


def _actions_by_track() -> dict[str, Action]:
    """NLA tracks of one name over all data-blocks, as one action each; tracks are muted."""
    found: dict[str, Action] = {}
    for owner in animated_ids():
        for track in owner.animation_data.nla_tracks:
            track.mute = True
            for strip in track.strips:
                if strip.action is not None and strip.action_slot is not None:
                    action = found.setdefault(track.name, Action(track.name))
                    action.bindings.append(Binding(owner, strip.action, strip.action_slot))
    return found


# ---------------------------------------------------------------- FBX


def import_fbx(path: Path) -> Imported:
    from io_scene_fbx import import_fbx as fbx

    # The importer assigns only the first take to its objects and leaves the others loose, without saying
    # which object they belong to. Feeding it one take at a time, with nothing assigned, tells exactly.
    original = fbx.blen_read_animations
    actions: list[Action] = []
    rest: list[tuple[Callable[[Any], None], Any]] = []

    def read_one_by_one(tmpl_stack, tmpl_layer, stacks, *rest_args):  # type: ignore[no-untyped-def]
        for uuid, stack in stacks.items():
            original(tmpl_stack, tmpl_layer, {uuid: stack}, *rest_args)
            name = fbx.elem_name_ensure_class(stack[0][0], b"AnimStack")
            actions.append(Action(name, _take_assigned()).measure())
        rest.extend(rest_values(actions))

    fbx.blen_read_animations = read_one_by_one
    try:
        # anim_offset 0 keeps the file's clock: the add-on's default puts second 0 on frame 1.
        bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0, use_image_search=False)
    finally:
        fbx.blen_read_animations = original
    # Keys are placed with the rounded rate, whatever fps_base says.
    return Imported(fps=float(bpy.context.scene.render.fps), actions=actions, rest=rest, first_frame=1)


def _take_assigned() -> list[Binding]:
    bindings = []
    for owner in animated_ids():
        data = owner.animation_data
        if data.action is None:
            continue
        slot = data.action_slot or next(iter(data.action_suitable_slots), None)
        if slot is not None:
            bindings.append(Binding(owner, data.action, slot))
        data.action = None
    return bindings


# ---------------------------------------------------------------- scenes with a timeline


def _timeline(first_frame: int = 0) -> Imported:
    """What plays when the scene as a whole is run: caches, constraints and whatever is assigned."""
    scene = bpy.context.scene
    bindings = _take_assigned()
    action = Action("scene", bindings).measure()
    if bpy.data.cache_files:
        frames = (float(scene.frame_start), float(scene.frame_end))
        action.frame_start = min(action.frame_start, frames[0]) if bindings else frames[0]
        action.frame_end = max(action.frame_end, frames[1])
    names = {binding.action.name for binding in bindings}
    if len(names) == 1 and not bpy.data.cache_files:
        action.name = names.pop()
    actions = [action] if bindings or bpy.data.cache_files else []
    return Imported(_scene_fps(), actions, rest_values(actions), first_frame=first_frame)


def import_usd(path: Path) -> Imported:
    bpy.ops.wm.usd_import(
        filepath=str(path),
        import_cameras=False,
        import_lights=False,
        import_guide=False,
        import_proxy=False,
        set_frame_range=True,
        import_textures_mode="IMPORT_PACK",
    )
    return _timeline()


def import_alembic(path: Path) -> Imported:
    bpy.ops.wm.alembic_import(filepath=str(path), set_frame_range=True, as_background_job=False)
    return _timeline()


def import_collada(path: Path) -> Imported:
    if "collada_import" not in dir(bpy.ops.wm):
        raise Refused("bad_file:format", "this Blender was built without Collada")
    bpy.ops.wm.collada_import(filepath=str(path))
    return _timeline()


def import_blend(path: Path) -> Imported:
    """Append the objects of the file's first scene; the file itself is never opened as the main file.

    Opening would bring handlers, registered text blocks and preferences; appending brings data only, and
    Python drivers stay off because automatic execution is.
    """
    scene = bpy.context.scene
    with bpy.data.libraries.load(str(path), link=False) as (source, target):
        if not source.scenes:
            raise Refused("bad_file:no_geometry", "the file holds no scene")
        target.scenes = source.scenes[:1]
    theirs = target.scenes[0]
    scene.render.fps, scene.render.fps_base = theirs.render.fps, theirs.render.fps_base
    scene.frame_start, scene.frame_end = theirs.frame_start, theirs.frame_end
    _link_objects(theirs, scene)
    # Drivers may read the scene: its frame, or properties of its own.
    for name in list(theirs.keys()):
        scene[name] = theirs[name]
    theirs.user_remap(scene)
    bpy.data.scenes.remove(theirs)
    bpy.context.view_layer.update()
    for obj in bpy.data.objects:
        # Scripted expressions would not be evaluated anyway; dropping them also drops Blender's warnings.
        data = obj.animation_data
        for driver in list(data.drivers) if data is not None else []:
            if driver.driver.type == "SCRIPTED" and not driver.driver.is_simple_expression:
                data.drivers.remove(driver)
    tracks = _actions_by_track()
    playing = _timeline(first_frame=0)
    taken = {binding.action for action in playing.actions for binding in action.bindings}
    others = [a.measure() for a in tracks.values() if not all(b.action in taken for b in a.bindings)]
    actions = playing.actions + others
    return Imported(playing.fps, actions, rest_values(actions))


def _link_objects(theirs: bpy.types.Scene, scene: bpy.types.Scene) -> None:
    """Put the objects of `theirs` into `scene`: those that a render of it draws, and, hidden, those that only
    serve them.
    """
    layers = [layer for layer in theirs.view_layers if layer.use] or list(theirs.view_layers)
    drawn = set().union(*map(rendered_objects, layers))
    hidden = bpy.data.collections.new("orbit4d_hidden")
    hidden.hide_render = True
    scene.collection.children.link(hidden)
    for obj in theirs.collection.all_objects:
        place = scene.collection if obj in drawn else hidden
        if obj.name not in place.objects:
            place.objects.link(obj)


# ---------------------------------------------------------------- formats without animation


def _still(operator: str, **options: Any) -> Callable[[Path], Imported]:
    def run(path: Path) -> Imported:
        getattr(bpy.ops.wm, operator)(filepath=str(path), **options)
        return Imported(fps=_scene_fps())

    return run


IMPORTERS: dict[str, Callable[..., Imported]] = {
    ".glb": import_gltf,
    ".gltf": import_gltf,
    ".vrm": import_gltf,
    ".fbx": import_fbx,
    ".usd": import_usd,
    ".usda": import_usd,
    ".usdc": import_usd,
    ".usdz": import_usd,
    ".abc": import_alembic,
    ".blend": import_blend,
    ".dae": import_collada,
    ".obj": _still("obj_import"),
    ".ply": _still("ply_import"),
    ".stl": _still("stl_import"),
}
