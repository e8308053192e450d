"""The container of glTF 2.0: a .glb's chunks, and its JSON as far as its version.

Source: Khronos glTF 2.0 specification, section 4 (GLB).
"""

from __future__ import annotations

import json
import struct
from typing import Any

from orbit4d.datasets.assets.inspection import LIMITS, BadFile


def split_document(data: memoryview) -> tuple[dict[str, Any], memoryview | None]:
    """JSON document and binary chunk of a .glb or .gltf (known by their contents, as Blender does)."""
    if data[:4] != b"glTF":
        if len(data) > LIMITS.json_bytes:
            raise BadFile("absurd" if data[:1] == b"{" else "magic", f"{len(data)} bytes of JSON")
        if not bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            raise BadFile("magic", f"starts with {bytes(data[:4])!r}")
        return _json(bytes(data).removeprefix(b"\xef\xbb\xbf")), None
    if len(data) < 12:
        raise BadFile("truncated", f"{len(data)} bytes, the header alone has 12")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise BadFile("version", f"GLB version {version}")
    if length > len(data):
        raise BadFile("truncated", f"{len(data)} of {length} bytes")
    # Bytes after the GLB are no part of it; length < 12 leaves no chunk, which is refused below.
    chunks: list[tuple[bytes, memoryview]] = []
    offset = 12
    while offset < length and len(chunks) < 2:
        if offset + 8 > length:
            raise BadFile("truncated", "inside a chunk header")
        size, kind = struct.unpack_from("<I4s", data, offset)
        if offset + 8 + size > length:
            raise BadFile(
                "header", f"chunk {len(chunks)} claims {size} bytes, {length - offset - 8} are left"
            )
        chunks.append((kind, data[offset + 8 : offset + 8 + size]))
        offset += 8 + size + (-size % 4)
    if not chunks or chunks[0][0] != b"JSON":
        raise BadFile("header", "the first chunk is not JSON")
    if len(chunks[0][1]) > LIMITS.json_bytes:
        raise BadFile("absurd", f"{len(chunks[0][1])} bytes of JSON")
    binary = chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None
    return _json(bytes(chunks[0][1])), binary


def _json(text: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise BadFile("non_finite", f"the JSON holds {constant}")

    try:
        doc = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BadFile("corrupt", f"JSON: {error}") from None
    if not isinstance(doc, dict) or not isinstance(doc.get("asset"), dict):
        raise BadFile("corrupt", "no asset in the JSON")
    if doc["asset"].get("version") != "2.0":
        raise BadFile("version", f"glTF version {str(doc['asset'].get('version'))[:20]}")
    return doc


def whole_number(value: Any, what: str, low: int = 0, high: int = 1 << 53) -> int:
    """`value`, an integer of [low, high]. Raises BadFile, which names `what`."""
    # JSON writes 3.0 for 3 now and then; a bool is an int to Python but not to glTF.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadFile("header", f"{what} is {str(value)[:40]}")
    return value
