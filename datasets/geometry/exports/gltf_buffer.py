"""The binary chunk of a GLB as it is written, and the file around it."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

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
        told = {"bufferView": self.view(array, target), **_facts(array, kind, bounds)}
        self.accessors.append(told)
        return len(self.accessors) - 1

    def deltas(self, array: npt.NDArray[np.float32]) -> int:
        """Displacements [V, 3]; sparse where less than half of the vertices move."""
        moved = np.flatnonzero(array.any(axis=1)).astype(np.uint32)
        if 2 * len(moved) >= len(array):
            return self.accessor(array, "VEC3", True, VERTEX_DATA)
        if not len(moved):
            moved = np.zeros(1, np.uint32)  # a sparse accessor holds at least one value
        told = _facts(array, "VEC3", True)
        told["sparse"] = {
            "count": len(moved),
            "indices": {"bufferView": self.view(moved), "componentType": UNSIGNED_INT},
            "values": {"bufferView": self.view(array[moved])},
        }
        self.accessors.append(told)
        return len(self.accessors) - 1


def _facts(array: npt.NDArray[Any], kind: str, bounds: bool) -> dict[str, Any]:
    component = {"f4": FLOAT, "u2": UNSIGNED_SHORT}.get(array.dtype.str[1:], UNSIGNED_INT)
    told: dict[str, Any] = {"componentType": component, "count": len(array), "type": kind}
    if bounds:
        flat = array.reshape(len(array), -1)
        told |= {"min": flat.min(axis=0).tolist(), "max": flat.max(axis=0).tolist()}
    return told


def pack_glb(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
