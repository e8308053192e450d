# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs inside Blender, which is GPL, so it is GPL too.
"""Triangles of an evaluated mesh with their materials and texture places, and a sign of its polygons."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass
class Faces:
    """What of a surface's triangles stays the same while it moves."""

    sign: int
    """Checksum of all polygons' corners: another one is another topology."""
    materials: list[str] = field(default_factory=list)
    """Name of each slot's material, '' for none; empty unless details were asked for."""
    slot: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """[K] slot of each triangle."""
    uv: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Name of a UV map to [K, 3, 2] places of the corners; '' is the one that renders use."""
    vertices: npt.NDArray[np.int64] | None = None
    """[V] which vertices of the mesh the surface's are; None: all of them."""


def sign_of(mesh: Any) -> int:
    """Checksum of the corners of all polygons."""
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    starts = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    return zlib.crc32(starts.tobytes(), zlib.crc32(corners.tobytes()))


def details_of(obj: Any, mesh: Any, seen: npt.NDArray[np.bool_] | None) -> Faces:
    """Faces of an evaluated object whose polygons `seen` [P] are drawn (None: all), in the order of its
    triangles.
    """
    mesh.calc_loop_triangles()
    n = len(mesh.loop_triangles)
    polygons, slots = np.empty(n, np.int32), np.empty(n, np.int32)
    mesh.loop_triangles.foreach_get("polygon_index", polygons)
    mesh.loop_triangles.foreach_get("material_index", slots)
    loops = np.empty(n * 3, np.int32)
    mesh.loop_triangles.foreach_get("loops", loops)
    loops = loops.reshape(-1, 3)
    if seen is not None:
        kept = seen[polygons]
        slots, loops = slots[kept], loops[kept]
    materials = [slot.material for slot in obj.material_slots] or list(mesh.materials)
    names = ["" if material is None else material.name for material in materials] or [""]
    return Faces(sign_of(mesh), names, slots.clip(0, len(names) - 1), _places(mesh, loops))


def _places(mesh: Any, loops: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[np.float32]]:
    found: dict[str, npt.NDArray[np.float32]] = {}
    for layer in mesh.uv_layers:
        flat = np.empty(len(mesh.loops) * 2, np.float32)
        layer.uv.foreach_get("vector", flat)
        found[layer.name] = flat.reshape(-1, 2)[loops]
        if layer.active_render:
            found[""] = found[layer.name]
    return found
