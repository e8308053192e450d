"""PLY: header, lengths, finite positions, faces that name vertices which are there.

`inspect_ply` takes (path, mapped bytes, format name) and raises BadFile; see `assets/inspect.py`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from orbit4d.datasets.assets.inspection import BadFile, Budget, Inspection, check_counts, text_blocks

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class _Property:
    name: str
    type: str
    """Of the number, or of a list's members, as numpy has it."""
    length_type: str = ""
    """Of a list's length; '' for a number."""


def inspect_ply(path: str, data: memoryview, name: str) -> Inspection:
    """Text or binary, either byte order."""
    kind, elements, offset = _header(data)
    vertices, faces = (elements[e][0] if e in elements else 0 for e in ("vertex", "face"))
    check_counts(vertices, faces)
    least = 0
    for element, (count, properties) in elements.items():
        # A text number takes at least a digit and a separator; a binary list at least its length, and that
        # of a face's corners three of them.
        width = sum(np.dtype(p.length_type or p.type).itemsize for p in properties)
        width += sum(
            3 * np.dtype(p.type).itemsize for p in properties if element == "face" and _is_corners(p)
        )
        least += count * (2 * len(properties) if kind == "ascii" else width)
    if least > len(data) - offset + (kind == "ascii"):
        raise BadFile("truncated", f"{len(data) - offset} bytes for at least {least}")
    order = list(elements)[:2]
    if order[:1] == ["vertex"] and not any(p.length_type for p in elements["vertex"][1]):
        if kind == "ascii":
            if order == ["vertex", "face"] and _is_corners(*elements["face"][1][:1]):
                _check_text_faces(data[offset:], vertices, faces)
        else:
            end = "<" if kind == "binary_little_endian" else ">"
            offset += _check_vertices(data, offset, vertices, elements["vertex"][1], end)
            if order == ["vertex", "face"]:
                _check_faces(data, offset, faces, elements["face"][1], end, vertices)
    return Inspection(name, len(data), n_animations=0, n_meshes=1, n_vertices=vertices, n_triangles=faces)


def _header(data: memoryview) -> tuple[str, dict[str, tuple[int, list[_Property]]], int]:
    """(format, element -> (count, properties), where the data begin)."""
    head = bytes(data[: 1 << 16])
    if not head.startswith(b"ply"):
        raise BadFile("magic", f"starts with {head[:4]!r}")
    match = re.search(rb"end_header[ \t]*\r?\n", head)
    if match is None:
        raise BadFile("truncated", "no end of the header in the first 64 KiB")
    kind = element = ""
    elements: dict[str, tuple[int, list[_Property]]] = {}
    for line in head[: match.start()].decode("latin-1").splitlines():
        words = line.split()
        if words[:1] == ["format"] and len(words) >= 2:
            kind = words[1]
        elif words[:1] == ["element"] and len(words) == 3:
            element = words[1]
            if not words[2].isdigit():
                raise BadFile("header", f"{line!r}")
            elements[element] = int(words[2]), []
        elif words[:1] == ["property"] and element:
            # `property list LENGTH MEMBER NAME`, or `property TYPE NAME`.
            types, expected = (words[2:4], 5) if words[1:2] == ["list"] else (words[1:2], 3)
            if len(words) != expected or not set(types) <= set(_PLY_TYPES):
                raise BadFile("header", f"{line!r}")
            *length, last = [_PLY_TYPES[word] for word in types]
            elements[element][1].append(_Property(words[-1], last, *length))
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise BadFile("version", f"PLY format {kind[:30]!r}")
    return kind, elements, match.end()


def _is_corners(*properties: _Property) -> bool:
    """Whether the first is the list of a face's vertices."""
    return (
        bool(properties) and bool(properties[0].length_type) and properties[0].name.startswith("vertex_ind")
    )


def _check_vertices(
    data: memoryview, offset: int, vertices: int, properties: list[_Property], order: str
) -> int:
    """Binary positions are finite; the bytes that the vertices take."""
    record = np.dtype([(f"f{i}", order + p.type) for i, p in enumerate(properties)])
    Budget().spend(vertices * len(properties))
    for first in range(0, vertices, 1 << 18):
        rows = np.frombuffer(data, record, min(1 << 18, vertices - first), offset + first * record.itemsize)
        for i, p in enumerate(properties):
            if p.name in ("x", "y", "z") and p.type.startswith("f") and not np.isfinite(rows[f"f{i}"]).all():
                raise BadFile("non_finite", f"vertex {p.name}")
    return vertices * record.itemsize


def _check_faces(
    data: memoryview, offset: int, faces: int, properties: list[_Property], order: str, vertices: int
) -> None:
    """Every binary face ends inside the file, and names vertices that are there: Blender's reader does not
    look. Faces with other lists beside that of their vertices are left alone."""
    lists = [i for i, p in enumerate(properties) if p.length_type]
    if len(lists) != 1 or not _is_corners(properties[lists[0]]):
        return
    corners = properties[lists[0]]
    before = sum(np.dtype(p.type).itemsize for p in properties[: lists[0]])
    behind = sum(np.dtype(p.type).itemsize for p in properties[lists[0] + 1 :])
    length, index = np.dtype(order + corners.length_type), np.dtype(order + corners.type)
    if length.kind not in "iu" or index.kind not in "iu":
        raise BadFile("header", "corners are numbered in fractions")
    unpack = struct.Struct(order + length.char).unpack_from
    octets = np.frombuffer(data, np.uint8)
    for first in range(0, faces, 1 << 18):
        starts, sizes = [], []
        for face in range(first, min(first + (1 << 18), faces)):
            offset += before
            if offset + length.itemsize > len(data):
                raise BadFile("truncated", f"the file ends in face {face} of {faces}")
            (n,) = unpack(data, offset)
            starts.append(offset + length.itemsize)
            sizes.append(n)
            offset += length.itemsize + n * index.itemsize + behind
            if n < 1 or offset > len(data):
                raise BadFile("truncated" if n > 0 else "corrupt", f"face {face} of {faces} has {n} corners")
        for n in set(sizes):
            some = np.array(starts)[np.array(sizes) == n]
            step = max((1 << 22) // (n * index.itemsize), 1)
            for k in range(0, len(some), step):
                places = some[k : k + step, None] + np.arange(n * index.itemsize)
                named = octets[places].view(index)
                if named.min() < 0 or named.max() >= vertices:
                    raise BadFile("index", f"a face names vertex {named.max()} of {vertices}")


def _check_text_faces(data: memoryview, vertices: int, faces: int) -> None:
    """`_check_faces` of a text file."""
    number = 0
    for block in text_blocks(data):
        for line in block.splitlines():
            words = line.split()
            number += bool(words)
            if not words or number <= vertices:
                continue
            if number > vertices + faces:
                return
            named = [int(word) for word in words[1 : 1 + int(words[0])]]
            if not named or len(named) != int(words[0]):
                raise BadFile("corrupt", f"face {number - vertices} of {faces} has {len(named)} corners")
            if min(named) < 0 or max(named) >= vertices:
                raise BadFile("index", f"a face names vertex {max(named)} of {vertices}")
    if number < vertices + faces:
        raise BadFile("truncated", f"{number} lines for {vertices} vertices and {faces} faces")
