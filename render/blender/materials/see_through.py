# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""What is seen through: single-sided surfaces from behind, and glass."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import bpy

from orbit4d.render.blender.materials.repair import is_unlit, only_camera_rays

#: Name of the node that mixes a material with nothing where it is seen from behind.
CULLED = "orbit4d_culled"
#: Linear grey of a surface without a material, as Cycles draws it.
_BARE = (0.8, 0.8, 0.8, 1.0)
#: Shader nodes that let light through and bend it.
_REFRACTING = ("BSDF_GLASS", "BSDF_REFRACTION")
#: Name of the material that a bare single-sided surface gets.
_BARE_NAME = "orbit4d_bare_single_sided"
#: Name of the material that the glTF importer gives to surfaces with colours and without a material.
_IMPORTERS_OWN = "DefaultMaterial"


def cull_backfaces() -> None:
    """Draw every material with backface culling (glTF: without `doubleSided`) from its front alone.

    A camera, and light that bounces, look along the ray: what they meet from behind is not there. A ray
    towards a lamp is met by the surface as the lamp sees it, from the ray's other end, so there it is the
    front that is not there: a card throws a shadow when its front faces the lamp, and a hull that is turned
    inside out does not darken what it surrounds. Cycles turns the winding of mirrored objects by itself.
    """
    for material in bpy.data.materials:
        if material.use_backface_culling and not material.is_grease_pencil:
            _cull(material)


def is_culled(material: Any) -> bool:
    """Whether a material is drawn from its front alone, as `cull_backfaces` left it."""
    tree = None if material is None or not material.use_nodes else material.node_tree
    return tree is not None and tree.nodes.get(CULLED) is not None


def single_sided_when_bare(objects: Any, named: Container[str]) -> None:
    """Give the surfaces of `objects` that have no material one with backface culling, of the same look.

    For glTF, whose material of what names none is single-sided; `named` are the file's own materials. What
    has colours of its own gets a material from the importer.
    """
    if _IMPORTERS_OWN not in named:
        for material in bpy.data.materials:
            if material.name.partition(".")[0] == _IMPORTERS_OWN:
                material.use_backface_culling = True
    bare = None
    for obj in objects:
        materials = getattr(obj.data, "materials", None)
        empty = [slot for slot in obj.material_slots if slot.material is None]
        if materials is None or (len(obj.material_slots) and not empty):
            continue
        if bare is None:
            bare = bpy.data.materials.new(_BARE_NAME)
            bare.diffuse_color = _BARE
            bare.use_backface_culling = True
        for slot in empty:
            slot.material = bare
        if not len(obj.material_slots):
            materials.append(bare)


def _cull(material: Any) -> None:
    if not material.use_nodes or material.node_tree is None:
        _with_nodes(material)
    tree = material.node_tree
    output = tree.get_output_node("CYCLES")
    if output is None or not output.inputs["Surface"].is_linked or tree.nodes.get(CULLED) is not None:
        return
    nodes, links = tree.nodes, tree.links
    front = output.inputs["Surface"].links[0].from_socket
    geometry, path = nodes.new("ShaderNodeNewGeometry"), nodes.new("ShaderNodeLightPath")
    gone = _math(tree, "ABSOLUTE", _math(tree, "SUBTRACT", geometry.outputs["Backfacing"],
                                         path.outputs["Is Shadow Ray"]))  # fmt: skip
    if refracts(tree):
        # A ray inside glass meets its surface from behind and must be refracted out again.
        inside = _math(tree, "SUBTRACT", None, path.outputs["Is Transmission Ray"])
        inside.node.inputs[0].default_value = 1.0
        gone = _math(tree, "MULTIPLY", gone, inside)
    mix = nodes.new("ShaderNodeMixShader")
    mix.name = CULLED
    links.new(gone, mix.inputs[0])
    links.new(front, mix.inputs[1])
    links.new(nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])


def _with_nodes(material: Any) -> None:
    """Nodes that draw a material without any as Cycles does: diffuse in its viewport colour."""
    colour = tuple(material.diffuse_color)
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs["Color"].default_value = (*colour[:3], 1.0)
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(diffuse.outputs[0], output.inputs["Surface"])


def _math(tree: Any, operation: str, a: Any, b: Any = None) -> Any:
    """Output socket of a new math node on the sockets `a` and `b`."""
    node = tree.nodes.new("ShaderNodeMath")
    node.operation = operation
    for i, socket in enumerate((a, b)):
        if socket is not None:
            tree.links.new(socket, node.inputs[i])
    return node.outputs[0]


def all_nodes(tree: Any) -> Iterator[Any]:
    """The nodes of a tree and of the groups in it."""
    for node in tree.nodes:
        yield node
        if node.type == "GROUP" and node.node_tree is not None:
            yield from all_nodes(node.node_tree)


def refracts(tree: Any) -> bool:
    """Whether a material's nodes let light through that they bend."""
    for node in all_nodes(tree):
        if node.type in _REFRACTING:
            return True
        if node.type == "BSDF_PRINCIPLED":
            weight = node.inputs["Transmission Weight"]
            if weight.is_linked or weight.default_value > 0.0:
                return True
    return False


def scene_refracts() -> bool:
    """Whether anything in the file is of glass."""
    return any(m.use_nodes and m.node_tree is not None and refracts(m.node_tree) for m in bpy.data.materials)


def clear_glass(scene: bpy.types.Scene) -> None:
    """Let the background show through glass of any roughness, and unlit surfaces be seen through it.

    An unlit surface glows for camera rays alone (glTF's importer builds it so); behind glass those have
    become transmission rays, for which it would be missing. Rays that another surface has reflected still do
    not see it: it lights nothing. Nothing is changed where no material is of glass.
    """
    if not scene_refracts():
        return
    scene.cycles.film_transparent_glass = True
    # On a background of one colour it does not matter how far rough glass scatters what passes it.
    scene.cycles.film_transparent_roughness = 1.0
    for material in bpy.data.materials:
        if is_unlit(material):
            # It is met by rays that could also have been aimed at it, of which it must not be thought a lamp.
            material.cycles.emission_sampling = "NONE"
            _show_to_transmission(material.node_tree)


def _show_to_transmission(tree: Any) -> None:
    seen: Any = None
    for node in list(tree.nodes):
        if node.type != "MIX_SHADER" or not any(only_camera_rays(link) for link in _shaders(node)):
            continue
        if seen is None:
            path = node.inputs[0].links[0].from_node
            bounces = _math(tree, "ADD", path.outputs["Diffuse Depth"], path.outputs["Glossy Depth"])
            direct = _math(tree, "LESS_THAN", bounces)
            direct.node.inputs[1].default_value = 0.5
            through = _math(tree, "MULTIPLY", path.outputs["Is Transmission Ray"], direct)
            seen = _math(tree, "MAXIMUM", path.outputs["Is Camera Ray"], through)
        tree.links.new(seen, node.inputs[0])


def _shaders(mix: Any) -> Iterator[Any]:
    for socket in mix.inputs[1:]:
        yield from socket.links
