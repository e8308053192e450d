# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Make Blender evaluate for measuring what it evaluates for rendering.

A scene has two sets of switches: those of the viewport, which an evaluation outside a render heeds, and those
of renders. Here the first are set to the second once, on loading, so that the dependency graph at hand gives
the render's modifiers, resolutions, instances and hidden objects. Renders themselves are not changed by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import bpy

#: Objects of these types have a surface that Cycles draws.
SURFACE_TYPES = ("MESH", "CURVE", "SURFACE", "FONT", "META", "CURVES", "POINTCLOUD")
#: modifier type -> (viewport property, render property)
_LEVELS = {
    "SUBSURF": ("levels", "render_levels"),
    "MULTIRES": ("levels", "render_levels"),
    "SCREW": ("steps", "render_steps"),
    "OCEAN": ("viewport_resolution", "resolution"),
}

#: Constraints with lengths or places of their own.
_BY_NUMBERS = (
    "LIMIT_LOCATION",
    "LIMIT_DISTANCE",
    "LIMIT_SCALE",
    "TRANSFORM",
    "FLOOR",
    "SHRINKWRAP",
    "MAINTAIN_VOLUME",
)


def rendered_objects(view_layer: bpy.types.ViewLayer) -> set[bpy.types.Object]:
    """Objects that a render of `view_layer` draws as far as collections decide: those of an excluded
    collection are left out, and those below a collection that renders do not show. One that lies in several
    collections is drawn when one of them is.
    """
    found: set[bpy.types.Object] = set()

    def walk(layer: bpy.types.LayerCollection, hidden: bool) -> None:
        hidden = hidden or layer.collection.hide_render
        if not hidden and not layer.exclude:
            found.update(layer.collection.objects)
        for child in layer.children:
            walk(child, hidden)

    walk(view_layer.layer_collection, False)
    return found


def keyed_visibility(bindings: Iterable[Any]) -> set[bpy.types.Object]:
    """Objects whose visibility in renders an action, given by its bindings, or a driver changes."""
    found = {
        binding.owner
        for binding in bindings
        if isinstance(binding.owner, bpy.types.Object)
        and any(slot == binding.slot and curve.data_path == "hide_render"
                for slot, curve in slot_curves(binding.action))
    }  # fmt: skip
    for obj in bpy.data.objects:
        data = obj.animation_data
        if data is not None and any(driver.data_path == "hide_render" for driver in data.drivers):
            found.add(obj)
    return found


def slot_curves(action: bpy.types.Action) -> Iterator[tuple[Any, Any]]:
    """(slot, F-curve) of everything that an action holds."""
    for layer in action.layers:
        for strip in layer.strips:
            for bag in strip.channelbags:
                for curve in bag.fcurves:
                    yield bag.slot, curve


def heed_fbx_visibility() -> None:
    """FBX: `Visibility` 0, of an object or of what it lies in, hides it; the importer leaves it as a switch
    of the viewport. A mesh stays seen below a hidden armature: skins are put there by the importer alone.
    """
    hidden = {obj for obj in bpy.data.objects if obj.hide_viewport}
    for obj in bpy.data.objects:
        at = obj
        while at is not None and at not in hidden:
            at = at.parent if at.parent is not None and at.parent.type != "ARMATURE" else None
        if at is not None:
            obj.hide_render = True


def evaluate_as_rendered(keyed: set[bpy.types.Object]) -> None:
    """Set every viewport switch of the loaded data to its render twin, and keep it from being animated.

    `keyed` objects stay in the graph whatever they are hidden by now (see `keyed_visibility`).
    """
    for action in bpy.data.actions:
        for _, curve in slot_curves(action):
            if curve.data_path == "hide_viewport" or curve.data_path.endswith(".show_viewport"):
                curve.mute = True
    for obj in bpy.data.objects:
        _sync_object(obj, obj in keyed)
    for collection in bpy.data.collections:
        collection.hide_viewport = collection.hide_render
    for curve in bpy.data.curves:
        for spline in curve.splines:
            if curve.render_resolution_u:
                spline.resolution_u = curve.render_resolution_u
            if curve.render_resolution_v:
                spline.resolution_v = curve.render_resolution_v
    for ball in bpy.data.metaballs:
        ball.resolution = ball.render_resolution
    for particles in bpy.data.particles:
        particles.display_percentage = 100
        particles.display_step = particles.render_step
        particles.child_percent = particles.rendered_child_count
    for tree in bpy.data.node_groups:
        _never_viewport(tree)


def _sync_object(obj: bpy.types.Object, keyed: bool) -> None:
    if obj.type in SURFACE_TYPES or obj.instance_type != "NONE":
        # A keyed one stays in the graph: `surfaces` heeds its hide_render at each time.
        obj.hide_viewport = obj.hide_render and not keyed
    obj.show_instancer_for_viewport = obj.show_instancer_for_render
    for modifier in obj.modifiers:
        modifier.show_viewport = modifier.show_render
        if modifier.type in _LEVELS:
            viewport, render = _LEVELS[modifier.type]
            setattr(modifier, viewport, getattr(modifier, render))


def _never_viewport(tree: bpy.types.NodeTree) -> None:
    """Geometry nodes that ask whether they run in the viewport hear no."""
    for node in [node for node in tree.nodes if node.bl_idname == "GeometryNodeIsViewport"]:
        answer = tree.nodes.new("FunctionNodeInputBool")
        answer.boolean = False
        for link in list(node.outputs[0].links):
            tree.links.new(answer.outputs[0], link.to_socket)


def reads_world() -> bool:
    """Whether a constraint or a driver takes numbers from the world, which a common parent would change."""
    owners = [bone for obj in bpy.data.objects if obj.pose for bone in obj.pose.bones]
    for owner in (*bpy.data.objects, *owners):
        for each in owner.constraints:
            if each.type in _BY_NUMBERS and not each.mute and each.owner_space == "WORLD":
                return True
    return any(
        variable.type in ("TRANSFORMS", "LOC_DIFF")
        for curve in _drivers()
        for variable in curve.driver.variables
    )


def plays_by_itself() -> bool:
    """Whether something may move though no key says so: drivers by the frame, Scene Time, simulations."""
    return any(_by_frame(driver) for driver in _drivers()) or _simulates()


def _drivers() -> Iterator[Any]:
    for collection in ("objects", "shape_keys", "materials", "node_groups", "meshes", "curves", "armatures",
                       "lattices", "metaballs", "hair_curves", "textures", "scenes"):  # fmt: skip
        for owner in getattr(bpy.data, collection):
            for block in (owner, getattr(owner, "node_tree", None)):
                data = getattr(block, "animation_data", None)
                if data is not None:
                    yield from data.drivers


def _by_frame(curve: Any) -> bool:
    driver = curve.driver
    if driver.type == "SCRIPTED" and "frame" in driver.expression:
        return True
    return any(
        "frame_" in target.data_path or variable.type == "CONTEXT_PROP"
        for variable in driver.variables
        for target in variable.targets
    )


def _simulates() -> bool:
    for tree in bpy.data.node_groups:
        if any(
            node.bl_idname in ("GeometryNodeInputSceneTime", "GeometryNodeSimulationOutput")
            for node in tree.nodes
        ):
            return True
    if any(particles.type == "EMITTER" for particles in bpy.data.particles):
        return True
    moving = ("CLOTH", "SOFT_BODY", "FLUID", "OCEAN", "WAVE", "DYNAMIC_PAINT")
    return any(modifier.type in moving for obj in bpy.data.objects for modifier in obj.modifiers)
