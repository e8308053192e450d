# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""One function per file format: call Blender's importer, and say which actions the file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from orbit4d.render.blender.importers import gltf_addon, usd_stage
from orbit4d.render.blender.importers.as_rendered import rendered_objects
from orbit4d.render.blender.importers.fbx_layers import Composed, Layers
from orbit4d.render.blender.importers.fbx_visibility import Visibility
from orbit4d.render.blender.importers.imported import (
    Action,
    Binding,
    Imported,
    Refused,
    animated_ids,
    rest_values,
)
from orbit4d.render.blender.importers.node_visibility import hide_nodes
from orbit4d.render.blender.importers.patching import patched
from orbit4d.render.blender.importers.stored_actions import stored_actions


def _scene_fps() -> float:
    render = bpy.context.scene.render
    return render.fps / render.fps_base


# ---------------------------------------------------------------- glTF


def import_gltf(path: Path, merge_vertices: bool = False) -> Imported:
    with gltf_addon.repaired() as reading:
        bpy.ops.import_scene.gltf(
            filepath=str(path),
            disable_bone_shape=True,
            import_scene_extras=False,
            merge_vertices=merge_vertices,
            loglevel=40,
        )
    # Tracks carry names of at most 63 bytes, in another order than the file's.
    tracks = _actions_by_track()
    actions = [tracks.pop(track, Action(track)) for track, _ in reading.names]
    for action, (_, name) in zip(actions, reading.names, strict=True):
        action.name = name
    actions += tracks.values()
    hide_nodes(reading, actions, _scene_fps())
    flags = [f"ignored_pointer:{pointer}" for pointer in reading.ignored_pointers()]
    return Imported(_scene_fps(), [a.measure() for a in actions], rest_values(actions), flags)


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
    from io_scene_fbx import parse_fbx

    # The importer assigns only the first take to its objects and leaves the others loose, without saying
    # which object they belong to. Feeding it one take at a time, with nothing assigned, tells exactly.
    parse, read_curve, read_takes = parse_fbx.parse, fbx.blen_read_animation_curve, fbx.blen_read_animations
    actions: list[Action] = []
    rest: list[tuple[Callable[[Any], None], Any]] = []
    flags: list[str] = []
    root: Any = None

    def remember_root(*args: Any, **options: Any) -> Any:
        nonlocal root
        root, version = parse(*args, **options)
        return root, version

    def read_one_by_one(tmpl_stack, tmpl_layer, stacks, *rest_args):  # type: ignore[no-untyped-def]
        layers, visibility = Layers(root, read_curve), Visibility(root, read_curve)
        frames_per_tick = rest_args[0].render.fps / rest_args[-1]
        for uuid, (stack, of_stack) in stacks.items():
            read_takes(tmpl_stack, tmpl_layer, {uuid: (stack, layers.compose(of_stack))}, *rest_args)
            name = fbx.elem_name_ensure_class(stack[0], b"AnimStack")
            actions.append(Action(name, _take_assigned()))
            visibility.key(uuid, actions[-1], frames_per_tick)
            actions[-1].measure()
        rest.extend(rest_values(actions))
        flags.extend(layers.flags + visibility.flags)

    def read_composed(curve: Any) -> Any:
        return (curve.times, curve.values) if isinstance(curve, Composed) else read_curve(curve)

    with (
        patched(parse_fbx, parse=remember_root),
        patched(fbx, blen_read_animations=read_one_by_one, blen_read_animation_curve=read_composed),
    ):
        # anim_offset 0 keeps the file's clock: the add-on's default puts second 0 on frame 1.
        bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0, use_image_search=False)
    # Keys are placed with the rounded rate, whatever fps_base says.
    fps = float(bpy.context.scene.render.fps)
    return Imported(fps, actions, rest, flags, first_frame=1)


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


def _timeline(first_frame: int = 0, frames: tuple[float, float] | None = None) -> Imported:
    """What plays when the scene as a whole is run: caches, constraints and whatever is assigned.

    Caches play over `frames`, by default the scene's.
    """
    scene = bpy.context.scene
    bindings = _take_assigned()
    action = Action("scene", bindings).measure()
    if bpy.data.cache_files:
        frames = frames or (float(scene.frame_start), float(scene.frame_end))
        action.frame_start = min(action.frame_start, frames[0]) if bindings else frames[0]
        action.frame_end = max(action.frame_end, frames[1])
    names = {binding.action.name for binding in bindings}
    if len(names) == 1 and not bpy.data.cache_files:
        action.name = names.pop()
    actions = [action] if bindings or bpy.data.cache_files else []
    return Imported(_scene_fps(), actions, rest_values(actions), first_frame=first_frame)


def import_usd(path: Path) -> Imported:
    stage = usd_stage.open_stage(path)
    with usd_stage.prim_map() as prims:
        bpy.ops.wm.usd_import(
            filepath=str(path),
            import_cameras=False,
            import_lights=False,
            import_guide=False,
            import_proxy=False,
            set_frame_range=True,
            import_textures_mode="IMPORT_PACK",
        )
    # Blender puts time code n on frame n, and knows of no timeCodesPerSecond.
    codes = usd_stage.time_codes(stage)
    imported = _timeline(frames=codes)
    imported.fps = float(stage.GetTimeCodesPerSecond())
    imported.flags += [f"ignored_animation:{path}" for path in usd_stage.ignored_animation(stage)]
    visibility = imported.actions[0] if imported.actions else Action("scene", [], *(codes or (0.0, 0.0)))
    if usd_stage.hide_prims(stage, prims, visibility):
        imported.actions = [visibility]
        imported.rest = rest_values(imported.actions)
    return imported


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
        # Actions that nothing uses come only when asked for.
        target.actions = list(source.actions)
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
    playing = _timeline(first_frame=0)
    others, flags = stored_actions({b.action for action in playing.actions for b in action.bindings})
    actions = playing.actions + others
    return Imported(playing.fps, actions, rest_values(actions), flags)


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
