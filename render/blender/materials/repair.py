# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Repair what importers get wrong about materials, and report it: nothing turns magenta or invisible in
silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import bpy

from orbit4d.datasets.assets.texture_names import file_name, unread_textures

#: What a surface looks like whose texture cannot be read: Blender's own default base colour.
NEUTRAL = (0.8, 0.8, 0.8, 1.0)


def repair_materials(meshes: Iterable[bpy.types.Object], path: Path) -> list[str]:
    """Fix the materials that `meshes` use; returns flags such as `alpha_repaired:7` or
    `missing_texture:a.png`.
    """
    materials: dict[str, Any] = {}
    for obj in meshes:
        for slot in obj.material_slots:
            if slot.material is not None:
                materials[slot.material.name] = slot.material
    flags = []
    if path.suffix.lower() == ".fbx":
        repaired = sum(_repair_alpha(material) for material in materials.values())
        if repaired:
            flags.append(f"alpha_repaired:{repaired}")
    missing: dict[str, None] = {}
    for material in materials.values():
        if material.use_nodes and material.node_tree is not None:
            missing.update(dict.fromkeys(_drop_missing_textures(material.node_tree, path.parent)))
    if "" in missing:
        # A texture for which the importer made no image at all: only the file can say what it is called.
        del missing[""]
        missing.update(dict.fromkeys(unread_textures(path) or ["unnamed"]))
    return flags + [f"missing_texture:{name}" for name in missing]


def _repair_alpha(material: Any) -> bool:
    """Old FBX writers store transparency where the importer reads opacity: alpha 0 means opaque there."""
    if not material.use_nodes or material.node_tree is None:
        return False
    repaired = False
    for node in material.node_tree.nodes:
        if node.type == "BSDF_PRINCIPLED":
            alpha = node.inputs["Alpha"]
            if not alpha.is_linked and alpha.default_value < 1e-6:
                alpha.default_value = 1.0
                repaired = True
    return repaired


def _drop_missing_textures(tree: Any, folder: Path) -> list[str]:
    """Take textures without a readable image out of a node tree and the groups in it; their names, '' for one
    without an image."""
    dropped = []
    for node in list(tree.nodes):
        if node.type == "GROUP" and node.node_tree is not None:
            dropped += _drop_missing_textures(node.node_tree, folder)
        if node.type != "TEX_IMAGE" or (node.image is not None and readable(node.image, folder)):
            continue
        if node.image is None and not any(output.is_linked for output in node.outputs):
            continue
        dropped.append("" if node.image is None else file_name(node.image.filepath) or node.image.name)
        for output in node.outputs:
            for link in list(output.links):
                socket = link.to_socket
                tree.links.remove(link)
                if socket.type == "RGBA" and len(socket.default_value) == 4:
                    socket.default_value = NEUTRAL
        tree.nodes.remove(node)
    return dropped


def readable(image: bpy.types.Image, folder: Path) -> bool:
    """Whether the image's pixels can be had, judged by its header."""
    from PIL import Image, UnidentifiedImageError

    if image.source in ("GENERATED", "VIEWER") or image.source == "TILED":
        return True
    try:
        if image.packed_file is not None:
            source: Any = BytesIO(image.packed_file.data)
        else:
            source = Path(bpy.path.abspath(image.filepath, start=str(folder)))
            if not source.is_file():
                return False
        with Image.open(source) as opened:
            return opened.width > 0 and opened.height > 0
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        # Formats that Pillow does not know (EXR, HDR) are Blender's to judge.
        return image.size[0] > 0 and image.size[1] > 0


def is_unlit(material: Any) -> bool:
    """Whether all that a material emits is for the camera's eyes: an emission that only camera rays reach, as
    the glTF importer builds KHR_materials_unlit."""
    if not material.use_nodes or material.node_tree is None:
        return False
    nodes = material.node_tree.nodes
    emitters = [node for node in nodes if node.type == "EMISSION"]
    if not emitters or any(node.type in ("BSDF_PRINCIPLED", "GROUP", "SCRIPT") for node in nodes):
        return False
    return all(
        link.to_node.type == "MIX_SHADER" and only_camera_rays(link)
        for node in emitters
        for link in node.outputs[0].links
    )


def only_camera_rays(link: Any) -> bool:
    """Whether what a link carries into a mix of two shaders is there for camera rays alone."""
    mix = link.to_node
    factor = mix.inputs[0]
    if not factor.is_linked or link.to_socket != mix.inputs[2]:
        return False
    source = factor.links[0]
    return source.from_node.type == "LIGHT_PATH" and source.from_socket.name == "Is Camera Ray"
