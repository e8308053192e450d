"""FBX: binary header, the tree of records, array properties, the names of its takes, the paths it mentions.

The layout is the one Blender's importer reads (io_scene_fbx/parse_fbx.py): records of (end offset, number of
properties, their length, name) with 32-bit numbers before version 7500 and 64-bit ones from it on, each list
of children closed by an all-zero record.
"""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np

from orbit4d.datasets.assets.inspection import LIMITS, BadFile, Budget, Inspection, Mentions

_MAGIC = b"Kaydara FBX Binary  \x00\x1a\x00"
_SCALARS = {b"C": 1, b"B": 1, b"Y": 2, b"I": 4, b"F": 4, b"D": 8, b"L": 8}
_ARRAYS = {b"f": 4, b"d": 8, b"l": 8, b"i": 4, b"b": 1, b"c": 1}
_DEPTH = 64
#: Deflate cannot shrink by more than about 1032 to 1.
_MOST_DEFLATE = 1100
#: Arrays whose numbers are checked to be finite.
_FINITE = {b"Vertices", b"KeyValueFloat"}


def inspect_fbx(path: str, data: memoryview, name: str) -> Inspection:
    """Raises BadFile; see `orbit4d.datasets.assets.inspect`."""
    head = bytes(data[:64])
    if not head.startswith(_MAGIC):
        if _MAGIC.startswith(head):
            raise BadFile("truncated", f"{len(data)} bytes")
        if head.lstrip().startswith(b";") or b"FBXHeaderExtension" in bytes(data[:4096]):
            raise BadFile("version", "ASCII FBX; Blender reads binary FBX only: export it again as binary")
        raise BadFile("magic", f"starts with {head[:8]!r}")
    if len(data) < 27:
        raise BadFile("truncated", f"{len(data)} bytes")
    version = struct.unpack_from("<I", data, 23)[0]
    if not 7100 <= version <= 7900:
        raise BadFile("version", f"FBX {version}; Blender reads 7100 and later")
    walker = _Walker(data, version, os.path.dirname(os.path.abspath(path)))
    walker.walk()
    return Inspection(
        format=name,
        bytes=len(data),
        n_animations=len(walker.takes),
        animation_names=tuple(walker.takes),
        n_meshes=walker.meshes,
        n_vertices=walker.vertices,
        n_triangles=walker.triangles,
        n_textures=walker.textures,
        n_materials=walker.materials,
        author=walker.author,
    )


class _Walker:
    def __init__(self, data: memoryview, version: int, folder: str) -> None:
        self.data, self.mentions = data, Mentions(folder)
        self.head, self.width = (
            (struct.Struct("<QQQB"), 25) if version >= 7500 else (struct.Struct("<IIIB"), 13)
        )
        self.takes: list[str] = []
        self.meshes = self.vertices = self.triangles = self.textures = self.materials = self.records = 0
        self.author = ""
        self.budget = Budget()

    def walk(self) -> None:
        """Walk the whole tree without recursion."""
        offset, size = 27, len(self.data)
        ends: list[int] = [size]
        while True:
            if offset + self.width > ends[-1]:
                if len(ends) > 1 and offset == ends[-1]:
                    # A list of children may end without its empty record when its end offset says so.
                    offset = ends.pop()
                    continue
                raise BadFile("truncated", f"no end of the record list by byte {ends[-1]}")
            end, n_properties, properties, name_size = self.head.unpack_from(self.data, offset)
            if end == 0:
                if n_properties or properties or name_size:
                    raise BadFile("header", f"a closing record at byte {offset} that is not empty")
                if len(ends) == 1:
                    return
                if offset + self.width != ends[-1]:
                    raise BadFile("header", f"records end at byte {offset} instead of {ends[-1]}")
                offset = ends.pop()
                continue
            self.records += 1
            if self.records > LIMITS.entries * 4:
                raise BadFile("absurd", f"more than {self.records} records")
            start = offset + self.width + name_size
            if end > ends[-1]:
                raise BadFile(
                    "truncated" if end > size and len(ends) == 1 else "header",
                    f"a record at byte {offset} ends at {end} of {ends[-1]}",
                )
            if start + properties > end:
                raise BadFile("header", f"the properties of the record at byte {offset} leave it")
            name = bytes(self.data[offset + self.width : start])
            self._record(name, start, n_properties, start + properties)
            if start + properties < end:
                if len(ends) > _DEPTH:
                    raise BadFile("absurd", f"records nested {_DEPTH} deep")
                ends.append(end)
                offset = start + properties
            else:
                offset = end

    def _record(self, name: bytes, offset: int, count: int, end: int) -> None:
        if name in (b"AnimationStack", b"Geometry", b"Texture", b"Video", b"Material"):
            strings = self._strings(offset, count, end)
            if name == b"AnimationStack":
                self.takes.append(
                    strings[0].split("\0", 1)[0].removeprefix("AnimStack::")[:200] if strings else ""
                )
            elif name == b"Geometry":
                self.meshes += "Mesh" in strings
            elif name == b"Texture":
                self.textures += 1
            elif name == b"Material":
                self.materials += 1
            return
        if name in (b"RelativeFilename", b"FileName", b"Filename"):
            for text in self._strings(offset, count, end):
                self.mentions.check(text, "a texture")
            return
        if name == b"Author":
            self.author = self.author or " ".join(self._strings(offset, count, end))[:200]
        self._properties(name, offset, count, end)

    def _strings(self, offset: int, count: int, end: int) -> list[str]:
        found = []
        for kind, start, size in self._walk_properties(offset, count, end):
            if kind == b"S":
                found.append(bytes(self.data[start : start + min(size, 4096)]).decode("utf-8", "replace"))
        return found

    def _properties(self, name: bytes, offset: int, count: int, end: int) -> None:
        for kind, start, size in self._walk_properties(offset, count, end):
            if kind not in _ARRAYS:
                continue
            length, encoding = struct.unpack_from("<II", self.data, start - 12)
            if length > LIMITS.vertices * 3:
                raise BadFile("absurd", f"an array of {length} numbers")
            if name == b"Vertices":
                self.vertices += length // 3
            elif name == b"PolygonVertexIndex":
                # A polygon of n corners makes n - 2 triangles; most are triangles or quads.
                self._count_triangles(start, size, length, encoding)
            if name in _FINITE and kind in (b"f", b"d"):
                self._check_finite(name, start, size, length, encoding, "<f4" if kind == b"f" else "<f8")

    def _walk_properties(self, offset: int, count: int, end: int):
        """Yield (type, start of data, bytes) of each property, all lengths held to the record's end."""
        if count > end - offset:
            raise BadFile("header", f"{count} properties in {end - offset} bytes")
        for _ in range(count):
            if offset + 1 > end:
                raise BadFile("header", "a property outside its record")
            kind = bytes(self.data[offset : offset + 1])
            offset += 1
            if kind in _SCALARS:
                size = _SCALARS[kind]
            elif kind in (b"S", b"R"):
                if offset + 4 > end:
                    raise BadFile("header", "a property outside its record")
                size = struct.unpack_from("<I", self.data, offset)[0]
                offset += 4
            elif kind in _ARRAYS:
                if offset + 12 > end:
                    raise BadFile("header", "a property outside its record")
                length, encoding, packed = struct.unpack_from("<III", self.data, offset)
                offset += 12
                plain = length * _ARRAYS[kind]
                if encoding not in (0, 1) or (encoding == 0 and packed != plain):
                    raise BadFile("header", f"an array of {length} in {packed} bytes, encoding {encoding}")
                if encoding == 1 and plain > packed * _MOST_DEFLATE + 64:
                    raise BadFile("absurd", f"{packed} bytes claim to unpack to {plain}")
                size = packed
            else:
                raise BadFile("corrupt", f"a property of the unknown type {kind!r}")
            if offset + size > end:
                raise BadFile("header", "a property outside its record")
            yield kind, offset, size
            offset += size

    def _blocks(self, start: int, size: int, length: int, encoding: int, dtype: str):
        """The numbers of an array property, in pieces of at most 1 MiB."""
        self.budget.spend(length)
        width = np.dtype(dtype).itemsize
        total, rest = length * width, b""
        if encoding == 0:
            for at in range(0, size, 1 << 20):
                yield np.frombuffer(self.data[start + at : start + min(size, at + (1 << 20))], dtype)
            return
        unpack = zlib.decompressobj()
        data, got = bytes(self.data[start : start + size]), 0
        while data and got <= total:
            block = rest + unpack.decompress(data, 1 << 20)
            data = unpack.unconsumed_tail
            got += len(block) - len(rest)
            whole = len(block) - len(block) % width
            rest = block[whole:]
            yield np.frombuffer(block[:whole], dtype)
            if unpack.eof:
                break
        if got != total or not unpack.eof:
            raise BadFile("corrupt", f"an array unpacks to {got} of {total} bytes")

    def _check_finite(
        self, name: bytes, start: int, size: int, length: int, encoding: int, dtype: str
    ) -> None:
        for block in self._blocks(start, size, length, encoding, dtype):
            if not np.isfinite(block).all():
                raise BadFile("non_finite", name.decode())

    def _count_triangles(self, start: int, size: int, length: int, encoding: int) -> None:
        polygons = 0
        for block in self._blocks(start, size, length, encoding, "<i4"):
            polygons += int((block < 0).sum())
        self.triangles += max(length - 2 * polygons, 0)
        if self.triangles > LIMITS.triangles:
            raise BadFile("absurd", f"{self.triangles} triangles")
