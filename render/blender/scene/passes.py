# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Extra images of a render: depth, world normals, object numbers, as arrays of floats or integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.importers.load import SURFACE_TYPES

#: Name of a pass -> (view layer switch, socket of the render layers node, channels kept).
_SOURCES = {
    "depth": ("use_pass_z", "Depth", 1),
    "normal": ("use_pass_normal", "Normal", 3),
    "mask": ("use_pass_object_index", "IndexOB", 1),
}


class PassReader:
    """Makes the scene write its passes beside each image, and reads them.

    depth: float32 [H, W], distance along the view axis in units of the normalised scene, inf where nothing
    is hit normal: float16 [H, W, 3], unit vectors in the world, 0 where nothing is hit
    mask: uint16 [H, W], 1 + number of the object in name order, 0 where nothing is hit
    """

    def __init__(self, scene: bpy.types.Scene, names: Sequence[str], scratch: str) -> None:
        self.names, self.folder = tuple(names), Path(scratch) / "passes"
        # Objects that are drawn as instances alone need not stand in the scene.
        instanced = any(obj.instance_type == "COLLECTION" for obj in scene.objects)
        known = bpy.data.objects if instanced else scene.objects
        surfaces = [obj for obj in known if obj.type in SURFACE_TYPES]
        for i, obj in enumerate(sorted(surfaces, key=lambda o: o.name)):
            obj.pass_index = i + 1
        scene.use_nodes = True
        scene.render.use_compositing = True
        tree = scene.node_tree
        tree.nodes.clear()
        layers = tree.nodes.new("CompositorNodeRLayers")
        # Without an output for the image itself the compositor would hand on an empty one.
        tree.links.new(layers.outputs["Image"], tree.nodes.new("CompositorNodeComposite").inputs["Image"])
        files = tree.nodes.new("CompositorNodeOutputFile")
        files.base_path = str(self.folder)
        files.format.file_format = "OPEN_EXR"
        files.format.color_depth, files.format.exr_codec = "32", "NONE"
        files.file_slots.clear()
        for name in self.names:
            switch, socket, _ = _SOURCES[name]
            setattr(scene.view_layers[0], switch, True)
            files.file_slots.new(name)
            tree.links.new(layers.outputs[socket], files.inputs[name])

    def read(self, covered: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        """Passes of the image just taken; `covered` [H, W] says where its alpha is above 0."""
        found = {}
        for name in self.names:
            path = next(self.folder.glob(f"{name}*.exr"))
            found[name] = _typed(name, take_exr(path)[..., : _SOURCES[name][2]], covered)
        return found

    def empty(self, w: int, h: int) -> dict[str, npt.NDArray[Any]]:
        """Passes of an image that shows nothing."""
        nothing = np.zeros((h, w), bool)
        return {
            name: _typed(name, np.zeros((h, w, _SOURCES[name][2]), np.float32), nothing)
            for name in self.names
        }


def take_exr(path: Path) -> npt.NDArray[np.float32]:
    """Numbers [H, W, 4] of an EXR file, top row first, as they stand in it; the file is removed."""
    image = bpy.data.images.load(str(path), check_existing=False)
    image.colorspace_settings.name = "Non-Color"
    w, h = image.size
    values = np.empty(w * h * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    path.unlink()
    return values.reshape(h, w, 4)[::-1]


def _typed(name: str, values: npt.NDArray[np.float32], covered: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    if name == "depth":
        return np.where(covered & (values[..., 0] < 1e9), values[..., 0], np.float32(np.inf)).astype(
            np.float32
        )
    if name == "normal":
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        unit = np.divide(values, length, out=np.zeros_like(values), where=length > 1e-6)
        return np.where(covered[..., None], unit, 0.0).astype(np.float16)
    return np.where(covered, np.rint(values[..., 0]), 0).astype(np.uint16)
