"""GLB of a moving mesh: its first shape is the base, each further one a morph target with its own key.

Written here and not through Blender, whose exporter splits vertices. One mesh, one primitive, vertices and
triangles in the dataset's order. The axes are turned in the numbers, not by a node.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry.action import ActionMesh
from orbit4d.datasets.geometry.exports.job import ExportAction, turned

FLOAT, UNSIGNED_INT, UNSIGNED_SHORT = 5126, 5125, 5123
VERTEX_DATA, INDEX_DATA = 34962, 34963


class GlbBuffer:
    """The binary chunk as it grows, with its views and accessors."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.length = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, array: npt.NDArray[Any], target: int | None = None) -> int:
        data = np.ascontiguousarray(array).tobytes()
        self.views.append({"buffer": 0, "byteOffset": self.length, "byteLength": len(data)})
        if target is not None:
            self.views[-1]["target"] = target
        self.chunks.append(data + b"\0" * (-len(data) % 4))
        self.length += len(self.chunks[-1])
        return len(self.views) - 1

    def accessor(self, array: npt.NDArray[Any], kind: str, bounds: bool, target: int | None = None) -> int:
        given = {"bufferView": self.view(array, target), **_facts(array, kind, bounds)}
        self.accessors.append(given)
        return len(self.accessors) - 1

    def deltas(self, array: npt.NDArray[np.float32]) -> int:
        """Displacements [V, 3]; sparse where less than half of the vertices move."""
        moved = np.flatnonzero(array.any(axis=1)).astype(np.uint32)
        if 2 * len(moved) >= len(array):
            return self.accessor(array, "VEC3", True, VERTEX_DATA)
        if not len(moved):
            moved = np.zeros(1, np.uint32)  # a sparse accessor holds at least one value
        given = _facts(array, "VEC3", True)
        given["sparse"] = {
            "count": len(moved),
            "indices": {"bufferView": self.view(moved), "componentType": UNSIGNED_INT},
            "values": {"bufferView": self.view(array[moved])},
        }
        self.accessors.append(given)
        return len(self.accessors) - 1


def _facts(array: npt.NDArray[Any], kind: str, bounds: bool) -> dict[str, Any]:
    component = {"f4": FLOAT, "u2": UNSIGNED_SHORT}.get(array.dtype.str[1:], UNSIGNED_INT)
    given: dict[str, Any] = {"componentType": component, "count": len(array), "type": kind}
    if bounds:
        flat = array.reshape(len(array), -1)
        given |= {"min": flat.min(axis=0).tolist(), "max": flat.max(axis=0).tolist()}
    return given


def pack_glb(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def glb(
    vertices: npt.NDArray[np.float32],
    faces: npt.NDArray[np.integer],
    seconds: Sequence[float] = (),
    uv: npt.NDArray[np.float32] | None = None,
    name: str = "mesh",
    extras: dict[str, Any] | None = None,
) -> bytes:
    """`vertices` [T, V, 3] (+Y up) at `seconds` [T] as a file, with `faces` [M, 3] and glTF's `uv` [V, 2]."""
    buffer = GlbBuffer()
    attributes = {"POSITION": buffer.accessor(vertices[0], "VEC3", True, VERTEX_DATA)}
    if uv is not None:
        attributes["TEXCOORD_0"] = buffer.accessor(uv.astype(np.float32), "VEC2", False, VERTEX_DATA)
    corners = faces.astype(np.uint32).reshape(-1)
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.accessor(corners, "SCALAR", False, INDEX_DATA),
        "material": 0,
    }
    mesh: dict[str, Any] = {"name": name, "primitives": [primitive]}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "orbit4d", "extras": extras or {}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [mesh],
        "materials": [{"name": "surface", "doubleSided": True}],
    }
    n_targets = len(vertices) - 1
    if n_targets:
        # The difference of the float32 numbers that readers add up again.
        primitive["targets"] = [{"POSITION": buffer.deltas(v - vertices[0])} for v in vertices[1:]]
        mesh["weights"] = [0.0] * n_targets
        document["animations"] = [_keys(buffer, np.asarray(seconds, np.float64), n_targets)]
    document |= {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    return pack_glb(document, b"".join(buffer.chunks))


def _keys(buffer: GlbBuffer, seconds: npt.NDArray[np.float64], n_targets: int) -> dict[str, Any]:
    times = (seconds - seconds[0]).astype(np.float32)
    weights = np.concatenate([np.zeros((1, n_targets)), np.eye(n_targets)]).astype(np.float32)
    source = buffer.accessor(times, "SCALAR", True)
    target = buffer.accessor(weights.reshape(-1), "SCALAR", False)
    return {
        "name": "motion",
        "samplers": [{"input": source, "output": target, "interpolation": "LINEAR"}],
        "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
    }


def vertex_uv(mesh: ActionMesh) -> npt.NDArray[np.float32] | None:
    """[V, 2] texture places as glTF has them (v down), None where a vertex has several or the mesh none."""
    if mesh.uv is None:
        return None
    found = np.zeros((len(mesh.weld), 2), np.float32)
    found[mesh.faces] = mesh.uv
    if not np.array_equal(found[mesh.faces], mesh.uv):
        return None
    found[:, 1] = 1.0 - found[:, 1]
    return found


def morphed_action(action: ExportAction) -> bytes:
    """The file of an action as one mesh with morph targets."""
    moments, up = action.moments(), action.axes("y")
    uv = vertex_uv(action.mesh)
    if uv is None and action.mesh.uv is not None:
        action.note("vertices with several texture places; the GLB is written without them")
    row = action.rows[0]
    given = {key: row.get(key, "") for key in ("uid", "action", "license", "caption")}
    vertices = turned(action.geometry.vertices[moments], up)
    seconds = action.mesh.seconds[moments]
    return glb(vertices, action.mesh.faces, list(seconds), uv, action.name, given)
