# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Materials that glow in a property of their own: albedo, roughness, metallic, emission, position.

Each shader is replaced by an emission of the property, and alpha is hardened at one half, so that one sample
through a pixel's centre shows the property of exactly the surface that counts there: no light, no mixing.
Nothing else can be rendered afterwards.
"""

from __future__ import annotations

from typing import Any

import bpy

from orbit4d.render.blender.materials.alpha import SURFACE
from orbit4d.render.blender.materials.see_through import CULLED

#: Property -> (inputs of a shader node that hold it, colour where a shader has none of them).
_INPUTS: dict[str, tuple[tuple[str, ...], float]] = {
    "albedo": (("Base Color", "Color"), 0.0),
    "roughness": (("Roughness",), 1.0),
    "metallic": (("Metallic",), 0.0),
    "emission": (("Emission Color",), 0.0),
}
_MOST_NODES = 32
#: Added to positions, since a colour below 0 may be clamped: the clip's world lies well within.
POSITION_SHIFT = 8.0


class GlowingMaterials:
    """All materials of the file, to be shown by one property after another."""

    def __init__(self) -> None:
        _give_materials()
        self._fronts: list[tuple[Any, Any, Any]] = []
        for material in bpy.data.materials:
            if material.is_grease_pencil:
                continue
            if not material.use_nodes or material.node_tree is None:
                _with_diffuse(material)
            output = material.node_tree.get_output_node("CYCLES")
            if output is None or not output.inputs["Surface"].is_linked:
                continue
            place = output.inputs["Surface"]
            if place.links[0].from_node.name == CULLED:
                place = place.links[0].from_node.inputs[1]
            material.cycles.emission_sampling = "NONE"
            self._fronts.append((material.node_tree, place, place.links[0].from_socket))

    def show(self, kind: str) -> None:
        """Let every material glow in its albedo, roughness, metallic, emission or position."""
        for tree, place, front in self._fronts:
            tree.links.new(_glowing(tree, front, kind, _MOST_NODES), place)


def _give_materials() -> None:
    """A material for each surface that has none, of the look that Cycles gives it."""
    bare = None
    for obj in bpy.data.objects:
        materials = getattr(obj.data, "materials", None)
        if materials is None or not hasattr(obj, "material_slots"):
            continue
        empty = [slot for slot in obj.material_slots if slot.material is None]
        if len(obj.material_slots) and not empty:
            continue
        bare = bare or bpy.data.materials.new("orbit4d_bare")
        for slot in empty:
            slot.material = bare
        if not len(obj.material_slots):
            materials.append(bare)


def _with_diffuse(material: Any) -> None:
    colour = tuple(material.diffuse_color)
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs["Color"].default_value = (*colour[:3], 1.0)
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(diffuse.outputs[0], output.inputs["Surface"])


def _glowing(tree: Any, socket: Any, kind: str, depth: int) -> Any:
    """Shader output that shows `kind` of the shader behind the output `socket`."""
    node = socket.node
    if depth <= 0 or node.type == "BSDF_TRANSPARENT":
        return tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0]
    if node.type == "REROUTE" and node.inputs[0].is_linked:
        return _glowing(tree, node.inputs[0].links[0].from_socket, kind, depth - 1)
    if node.type in ("MIX_SHADER", "ADD_SHADER"):
        inputs = node.inputs[1:] if node.type == "MIX_SHADER" else node.inputs
        parts = [_glowing(tree, i.links[0].from_socket, kind, depth - 1) for i in inputs if i.is_linked]
        if not parts:
            return tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0]
        if len(parts) == 1 or node.type == "ADD_SHADER":
            return next((p for p in parts if p.node.type != "BSDF_TRANSPARENT"), parts[0])
        through = any(part.node.type == "BSDF_TRANSPARENT" for part in parts)
        return _mixed(tree, node.inputs[0], parts, hard=through)
    glow = tree.nodes.new("ShaderNodeEmission")
    _feed(tree, node, kind, glow)
    alpha = node.inputs.get("Alpha") if node.type == "BSDF_PRINCIPLED" else None
    if alpha is None or (not alpha.is_linked and alpha.default_value >= SURFACE):
        return glow.outputs[0]
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    return _mixed(tree, alpha, [clear.outputs[0], glow.outputs[0]], hard=True)


def _mixed(tree: Any, factor: Any, parts: list[Any], hard: bool) -> Any:
    """A mix of two shaders by what feeds `factor`, all or nothing when `hard`."""
    mix = tree.nodes.new("ShaderNodeMixShader")
    target = mix.inputs[0]
    if hard:
        # Exactly one half counts as the surface; of shaders that mix the second one is then seen.
        under = tree.nodes.new("ShaderNodeMath")
        under.operation, under.inputs[1].default_value = "LESS_THAN", SURFACE
        over = tree.nodes.new("ShaderNodeMath")
        over.operation, over.inputs[0].default_value = "SUBTRACT", 1.0
        tree.links.new(under.outputs[0], over.inputs[1])
        tree.links.new(over.outputs[0], mix.inputs[0])
        target = under.inputs[0]
    _carry(tree, factor, target)
    tree.links.new(parts[0], mix.inputs[1])
    tree.links.new(parts[1], mix.inputs[2])
    return mix.outputs[0]


def _carry(tree: Any, source: Any, target: Any) -> None:
    """Give the input `target` what the input `source` has: its link, or its value."""
    if source.is_linked:
        tree.links.new(source.links[0].from_socket, target)
        return
    value = source.default_value
    if hasattr(value, "__len__") == hasattr(target.default_value, "__len__"):
        target.default_value = value
    elif not hasattr(value, "__len__"):
        target.default_value = (value, value, value, 1.0)


def _feed(tree: Any, node: Any, kind: str, glow: Any) -> None:
    """What the emission `glow` glows in, of a shader node."""
    colour, strength = glow.inputs["Color"], glow.inputs["Strength"]
    if kind == "position":
        place, shifted = tree.nodes.new("ShaderNodeNewGeometry"), tree.nodes.new("ShaderNodeVectorMath")
        shifted.inputs[1].default_value = (POSITION_SHIFT,) * 3
        tree.links.new(place.outputs["Position"], shifted.inputs[0])
        tree.links.new(shifted.outputs[0], colour)
        return
    names, missing = _INPUTS[kind]
    if node.type == "EMISSION" and kind == "emission":
        _carry(tree, node.inputs["Color"], colour)
        _carry(tree, node.inputs["Strength"], strength)
        return
    if node.type == "BSDF_METALLIC" and kind == "metallic":
        colour.default_value = (1.0, 1.0, 1.0, 1.0)
        return
    skip = node.type in ("BSDF_DIFFUSE", "EMISSION") and kind == "roughness"
    source = None if skip else next((node.inputs[name] for name in names if name in node.inputs), None)
    if source is None:
        colour.default_value = (missing, missing, missing, 1.0)
        return
    _carry(tree, source, colour)
    if kind == "emission":
        _carry(tree, node.inputs["Emission Strength"], strength)
