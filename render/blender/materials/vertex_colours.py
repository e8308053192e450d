# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Draw the colours that a file gives to vertices, faces or corners: importers read them, no material shows
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy

from orbit4d.datasets.assets.inspection import BadFile, map_file
from orbit4d.datasets.assets.usd import usd_speaks_of
from orbit4d.render.blender.materials.stl_colours import add_facet_colours

#: Formats whose colours tint the material that they lie under as well, as their readers do.
_TINTS = (".obj", ".ply")
#: A .blend shows what its own materials say and nothing more.
_OWN_LOOK = (".blend",)
#: Names that USD gives to the colours and the opacity of what has no material.
_USD_COLOUR, _USD_OPACITY = "displayColor", "displayOpacity"


def paint_vertex_colours(objects: Sequence[bpy.types.Object], path: Path) -> list[str]:
    """Show the colours of `objects` where they have no material; in OBJ and PLY also under materials
    without a texture, which they multiply. Diffuse, as Cycles draws what has no material.

    For all formats but glTF, whose importer does so, and .blend, whose own materials decide. Returns flags:
    `colours_not_drawn` for a file whose colours are lost on the way.
    """
    kind = path.suffix.lower()
    if kind in _OWN_LOOK:
        return []
    if kind == ".stl" and not all(add_facet_colours(obj, path) for obj in objects):
        return ["colours_not_drawn"]
    made: dict[tuple[str, str], Any] = {}
    bare = False
    for obj in objects:
        names = _attributes(obj)
        materials = getattr(obj.data, "materials", None)
        if names[0] == "" or materials is None:
            bare |= not any(slot.material is not None for slot in obj.material_slots)
            continue
        if names not in made:
            made[names] = _painted(*names)
        if not len(obj.material_slots):
            materials.append(made[names])
            continue
        for slot in obj.material_slots:
            if slot.material is None:
                slot.material = made[names]
            elif kind in _TINTS:
                _tint(slot.material, names[0])
    return ["colours_not_drawn"] if bare and kind.startswith(".usd") and _has_display_colour(path) else []


def _has_display_colour(path: Path) -> bool:
    """Whether a stage speaks of colours: those of a parent, which its children inherit, the importer does not
    read."""
    try:
        return usd_speaks_of(str(path), map_file(str(path)), _USD_COLOUR.encode())
    except (BadFile, OSError):
        return False


def _attributes(obj: bpy.types.Object) -> tuple[str, str]:
    """Names of the attributes that hold an object's colours and opacity, '' for none."""
    attributes = getattr(obj.data, "attributes", None)
    if attributes is None:
        return "", ""
    opacity = _USD_OPACITY if _USD_OPACITY in attributes else ""
    if _USD_COLOUR in attributes:
        return _USD_COLOUR, opacity
    active = getattr(attributes, "active_color", None)
    if active is not None:
        return active.name, opacity
    colours = (a.name for a in attributes if a.data_type in ("FLOAT_COLOR", "BYTE_COLOR"))
    return next(colours, ""), opacity


def _painted(colour: str, opacity: str) -> Any:
    material = bpy.data.materials.new(f"orbit4d_{colour}")
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    surface = tree.nodes.new("ShaderNodeBsdfDiffuse")
    tree.links.new(_attribute(tree, colour).outputs["Color"], surface.inputs["Color"])
    shown = surface.outputs[0]
    if opacity:
        mix = tree.nodes.new("ShaderNodeMixShader")
        tree.links.new(_attribute(tree, opacity).outputs["Fac"], mix.inputs[0])
        tree.links.new(tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
        tree.links.new(shown, mix.inputs[2])
        shown = mix.outputs[0]
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(shown, output.inputs["Surface"])
    return material


def _tint(material: Any, colour: str) -> None:
    """Multiply an untextured base colour by the colours of the vertices, once."""
    tree = material.node_tree
    if tree is None or not material.use_nodes:
        return
    for node in list(tree.nodes):
        base = node.inputs["Base Color"] if node.type == "BSDF_PRINCIPLED" else None
        if base is None or base.is_linked:
            continue
        mix = tree.nodes.new("ShaderNodeMix")
        mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
        factor, a, b = (s for s in mix.inputs if s.enabled)
        factor.default_value, a.default_value = 1.0, tuple(base.default_value)
        tree.links.new(_attribute(tree, colour).outputs["Color"], b)
        tree.links.new(next(s for s in mix.outputs if s.enabled), base)


def _attribute(tree: Any, name: str) -> Any:
    node = tree.nodes.new("ShaderNodeAttribute")
    node.attribute_type, node.attribute_name = "GEOMETRY", name
    return node
