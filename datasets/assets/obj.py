"""OBJ, STL, Alembic and COLLADA: magic, lengths, counts, finite numbers, mentioned paths.

Each inspector takes (path, mapped bytes, format name) and raises BadFile; see `assets/inspect.py`.
"""

from __future__ import annotations

import os
import re
import struct
import xml.parsers.expat
from collections.abc import Callable

import numpy as np

from orbit4d.datasets.assets.blend import inspect_blend
from orbit4d.datasets.assets.inspection import (
    LIMITS,
    BadFile,
    Inspection,
    Mentions,
    check_counts,
    folder_of,
    map_file,
    text_blocks,
)
from orbit4d.datasets.assets.ply import inspect_ply
from orbit4d.datasets.assets.usd import inspect_usd, inspect_usdz

_OBJ_VERTEX = re.compile(rb"^[ \t]*v[ \t]", re.M)
_OBJ_FACE = re.compile(rb"^[ \t]*f[ \t]", re.M)
_OBJ_BAD = re.compile(rb"^[ \t]*v[ \t][^\n]*?(?:nan|inf|1\.#|e\+?[0-9]{3})", re.M | re.I)
_OBJ_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+([^\r\n]+)", re.M)
_MTL_MAP = re.compile(rb"^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^\r\n]+)", re.M | re.I)


def inspect_obj(path: str, data: memoryview, name: str) -> Inspection:
    vertices = triangles = textures = missing = 0
    if b"\0" in bytes(data[:4096]):
        raise BadFile("magic", "binary bytes in a text format")
    folder = folder_of(path)
    mentions = Mentions(folder)
    for block in text_blocks(data):
        vertices += len(_OBJ_VERTEX.findall(block))
        triangles += len(_OBJ_FACE.findall(block))
        bad = _OBJ_BAD.search(block)
        if bad:
            raise BadFile("non_finite", bad.group(0).decode("ascii", "replace"))
        for library in _OBJ_LIBRARY.findall(block):
            named = library.decode("utf-8", "replace").strip()
            if mentions.check(named, "mtllib"):
                text = map_file(os.path.join(folder, named.replace("\\", "/")))
                if len(text) > LIMITS.json_bytes:
                    raise BadFile("absurd", f"{len(text)} bytes of materials")
                for entry in _MTL_MAP.findall(bytes(text)):
                    # Options such as `-s 1 1 1` stand before the file name, which may hold spaces.
                    words = re.sub(rb"^(?:-\w+(?:[ \t]+-?[\d.]+)*[ \t]+)*", b"", entry.strip())
                    textures += 1
                    missing += not mentions.check(words.decode("utf-8", "replace"), "a material")
    if vertices == 0:
        raise BadFile("magic", "no vertex line")
    check_counts(vertices, triangles)
    return Inspection(
        name, len(data), n_animations=0, n_vertices=vertices, n_triangles=triangles,
        n_textures=textures, n_missing_textures=missing,
    )  # fmt: skip


def inspect_stl(path: str, data: memoryview, name: str) -> Inspection:
    if len(data) >= 84:
        count = struct.unpack_from("<I", data, 80)[0]
        if 84 + 50 * count == len(data):
            check_counts(3 * count, count)
            record = np.dtype([("numbers", "<f4", 12), ("attribute", "<u2")])
            for first in range(0, count, 1 << 16):
                rows = np.frombuffer(data, record, min(1 << 16, count - first), 84 + 50 * first)
                if not np.isfinite(rows["numbers"][:, 3:]).all():
                    raise BadFile("non_finite", "a corner")
            return Inspection(
                name, len(data), n_animations=0, n_meshes=1, n_vertices=3 * count, n_triangles=count
            )
    if not bytes(data[:512]).lstrip().lower().startswith(b"solid"):
        if len(data) < 84:
            raise BadFile("truncated", f"{len(data)} bytes")
        raise BadFile("truncated", f"{len(data)} bytes for {count} triangles, which take {84 + 50 * count}")
    triangles = 0
    ended = False
    for block in text_blocks(data):
        triangles += len(re.findall(rb"^[ \t]*facet\b", block, re.M))
        ended = ended or re.search(rb"^[ \t]*endsolid", block, re.M) is not None
        if re.search(rb"^[ \t]*vertex[^\n]*?(?:nan|inf)", block, re.M | re.I):
            raise BadFile("non_finite", "a corner")
    if not ended:
        raise BadFile("truncated", "no endsolid")
    check_counts(3 * triangles, triangles)
    return Inspection(
        name, len(data), n_animations=0, n_meshes=1, n_vertices=3 * triangles, n_triangles=triangles
    )


def inspect_abc(path: str, data: memoryview, name: str) -> Inspection:
    """Ogawa container: "Ogawa", a frozen mark, 2 bytes of version, position of the root group.

    Layout: Alembic, lib/Alembic/Ogawa/IStreams.cpp. The older HDF5 container is not in Blender.
    """
    head = bytes(data[:16])
    if head.startswith(b"\x89HDF"):
        raise BadFile(
            "version", "HDF5 Alembic; Blender reads Ogawa only: convert it with abcconvert -toOgawa"
        )
    if not head.startswith(b"Ogawa"):
        raise BadFile("truncated" if b"Ogawa".startswith(head) else "magic", f"starts with {head[:8]!r}")
    if len(data) < 16:
        raise BadFile("truncated", f"{len(data)} bytes")
    if head[5] != 0xFF:
        raise BadFile("truncated", "the archive was never closed by its writer")
    _walk_ogawa(data, struct.unpack_from("<Q", data, 8)[0])
    return Inspection(name, len(data))


def _walk_ogawa(data: memoryview, root: int) -> None:
    """Every group (a count and as many places) and every piece of data (its length in front) lies inside the
    file. The highest bit of a place marks data; without any other it is empty, as is a group at 0."""
    is_data = 1 << 63
    waiting, seen, entries = [root], {root}, 0
    if root + 8 > len(data):
        raise BadFile("truncated", f"the root group lies at byte {root} of {len(data)}")
    while waiting:
        at = waiting.pop()
        (count,) = struct.unpack_from("<Q", data, at)
        entries += count
        if entries > LIMITS.entries:
            raise BadFile("absurd", f"more than {LIMITS.entries} entries")
        if at + 8 + 8 * count > len(data):
            raise BadFile("header", f"the group at byte {at} has {count} children")
        for child in struct.unpack_from(f"<{count}Q", data, at + 8):
            place = child & ~is_data
            if place == 0 or child in seen:
                continue
            seen.add(child)
            if place + 8 > len(data):
                raise BadFile("truncated", f"a child lies at byte {place} of {len(data)}")
            if child & is_data:
                (size,) = struct.unpack_from("<Q", data, place)
                if place + 8 + size > len(data):
                    raise BadFile("truncated", f"{size} bytes at byte {place} of {len(data)}")
            else:
                waiting.append(child)


def inspect_dae(path: str, data: memoryview, name: str) -> Inspection:
    parser = xml.parsers.expat.ParserCreate()
    mentions = Mentions(folder_of(path))
    seen = {"depth": 0, "animations": 0, "images": 0, "missing": 0, "meshes": 0}
    root = ""
    text: list[str] = []

    def refuse_entity(*_: object) -> None:
        # Entities serve nothing in COLLADA and everything in "billion laughs" and file disclosure.
        raise BadFile("corrupt", "an XML entity declaration")

    def start(tag: str, attributes: dict) -> None:
        nonlocal root
        seen["depth"] += 1
        if seen["depth"] > 1000:
            raise BadFile("absurd", "XML nested 1000 deep")
        if not root:
            root = tag
            if tag.rpartition(":")[2] != "COLLADA":
                raise BadFile("magic", f"the root element is {tag[:40]!r}")
        seen["animations"] += tag == "animation"
        seen["meshes"] += tag == "mesh"
        text.clear()

    def characters(piece: str) -> None:
        if sum(map(len, text)) < 4096:
            text.append(piece)

    def end(tag: str) -> None:
        seen["depth"] -= 1
        if tag == "init_from":
            mention = "".join(text).strip()
            if "/" in mention or "." in mention or "\\" in mention:
                seen["images"] += 1
                seen["missing"] += not mentions.check(mention, "an image")
        text.clear()

    parser.EntityDeclHandler = refuse_entity
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    try:
        for offset in range(0, len(data), 1 << 20):
            parser.Parse(bytes(data[offset : offset + (1 << 20)]), False)
        parser.Parse(b"", True)
    except xml.parsers.expat.ExpatError as error:
        ended = error.code in (3, 5)  # no element found, unclosed token
        raise BadFile("truncated" if ended else "corrupt", f"XML: {error}") from None
    return Inspection(
        name, len(data), n_animations=seen["animations"], n_meshes=seen["meshes"],
        n_textures=seen["images"], n_missing_textures=seen["missing"],
    )  # fmt: skip


INSPECTORS: dict[str, Callable[[str, memoryview, str], Inspection]] = {
    "obj": inspect_obj,
    "ply": inspect_ply,
    "stl": inspect_stl,
    "usd": inspect_usd,
    "usda": inspect_usd,
    "usdc": inspect_usd,
    "usdz": inspect_usdz,
    "abc": inspect_abc,
    "blend": inspect_blend,
    "dae": inspect_dae,
}
