"""Inspection of a .blend file without Blender: block lengths, and the files that it names.

Plain, gzip and Zstandard files are walked as a stream, never unpacked as a whole. The last data block,
DNA1, describes every struct of the version that wrote the file, so that paths are found in files of any age.
Layout: Blender, source/blender/blenloader/BLO_core_bhead.hh and makesdna/intern/dna_genfile.cc.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from orbit4d.datasets.assets.inspection import LIMITS, BadFile, Inspection, Mentions, map_file

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC = b"\x1f\x8b"
#: Struct -> fields that hold the path of a file which Blender reads when it loads or evaluates the block.
#: On disk some are still called `name`, as they were before they were renamed in the sources.
PATH_FIELDS: dict[str, tuple[str, ...]] = {
    "Library": ("filepath", "name"),
    "Image": ("filepath", "name"),
    "bSound": ("filepath", "name"),
    "VFont": ("filepath", "name"),
    "MovieClip": ("filepath", "name"),
    "CacheFile": ("filepath",),
    "Volume": ("filepath",),
    "MeshCacheModifierData": ("filepath",),
    "OceanModifierData": ("cachepath",),
    "FluidDomainSettings": ("cache_directory",),
    "NodeShaderScript": ("filepath",),
    "NodeShaderTexIES": ("filepath",),
}
#: Pointers that say the contents are stored in the .blend itself, so that the path is only a memory.
PACKED_FIELDS = ("packedfile", "packedfiles")
#: Values of Image.source: a sequence of numbered files; made by Blender; a render result; UDIM tiles.
_SEQUENCE, _GENERATED, _VIEWER, _TILED = 2, 4, 5, 6
#: Libraries that name libraries: this many files are inspected.
_MAX_LIBRARIES = 64
_CHUNK = 1 << 20


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Field:
    offset: int
    size: int


@dataclass(frozen=True)
class _Struct:
    size: int
    fields: dict[str, _Field]


@dataclass(frozen=True)
class _Block:
    code: bytes
    struct: int
    length: int
    count: int
    at: int
    """Byte of the unpacked file at which its data begin."""


@dataclass(frozen=True)
class _Layout:
    """What the 12 or 17 bytes of the file's header say."""

    head: struct.Struct
    order: str
    pointer: int
    large: bool

    def block(self, raw: bytes, at: int) -> _Block:
        fields = self.head.unpack(raw)
        code = fields[0].rstrip(b"\0")
        if self.large:
            return _Block(code, fields[1], fields[3], fields[4], at)
        return _Block(code, fields[3], fields[1], fields[4], at)


def inspect_blend(path: str, data: memoryview, name: str) -> Inspection:
    """Refuse a file that is cut short, lies about lengths, or names a file outside its folder."""
    unchecked = _look(os.path.abspath(path), data, set())
    return Inspection(name, len(data), notes=("blend_unchecked:no_zstandard_module",) if unchecked else ())


def _look(path: str, data: memoryview, seen: set[str]) -> bool:
    """Inspect one file and the libraries it links. True where some could not be unpacked here."""
    seen.add(os.path.realpath(path))
    if len(seen) > _MAX_LIBRARIES:
        raise BadFile("absurd", f"more than {_MAX_LIBRARIES} linked libraries")
    unpack = _unpacker(data)
    if unpack is None:
        return True
    dna: bytes = b""
    dna_layout: _Layout | None = None
    for layout, block, read in _blocks(unpack()):
        if block.code == b"DNA1":
            if block.length > LIMITS.json_bytes:
                raise BadFile("absurd", f"a description of {block.length} bytes")
            dna, dna_layout = read(), layout
    if dna_layout is None:
        raise BadFile("corrupt", "no description of its structs")
    structs = _parse_dna(dna, dna_layout)
    mentions = Mentions(os.path.dirname(path))
    unchecked = False
    for _, block, read in _blocks(unpack()):
        if block.struct not in structs:
            continue
        kind, layout_of = structs[block.struct]
        if block.length > LIMITS.json_bytes:
            raise BadFile("absurd", f"{block.length} bytes of {kind}")
        for named in _paths(kind, layout_of, read(), dna_layout):
            if os.path.realpath(os.path.join(mentions.folder, named)) == os.path.realpath(mentions.folder):
                continue
            is_there = mentions.check(named, f"a {kind}")
            library = os.path.join(mentions.folder, named)
            if kind == "Library" and is_there and os.path.realpath(library) not in seen:
                unchecked |= _look(library, map_file(library), seen)
    return unchecked


def _unpacker(data: memoryview) -> Callable[[], _Reader] | None:
    """Opens the unpacked file from its beginning; None without a decoder for it."""
    head = bytes(data[:16])
    if head[:2] == GZIP_MAGIC:
        return lambda: _Gzip(data)
    if head[:4] == ZSTD_MAGIC:
        try:
            import zstandard
        except ImportError:
            # bpy's wheel brings it; where it lacks, what Blender loaded is checked after the fact.
            return None
        return lambda: _Zstd(zstandard, data)
    if not head.startswith(b"BLENDER"):
        raise BadFile("truncated" if b"BLENDER".startswith(head) else "magic", f"starts with {head[:8]!r}")
    return lambda: _Plain(data)


class _Plain:
    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        piece = bytes(self._data[self._at : self._at + size])
        self._at += len(piece)
        return piece

    def skip(self, size: int) -> int:
        """Pass over bytes without touching them; returns how many there were."""
        size = min(size, len(self._data) - self._at)
        self._at += size
        return size


class _Gzip:
    def __init__(self, data: memoryview) -> None:
        self._data, self._at, self._held = data, 0, b""
        self._unpack = zlib.decompressobj(31)

    def read(self, size: int) -> bytes:
        pieces, wanted = [], size
        while wanted and not (self._unpack.eof or (self._at >= len(self._data) and not self._held)):
            if not self._held:
                self._held = bytes(self._data[self._at : self._at + (1 << 16)])
                self._at += len(self._held)
            try:
                piece = self._unpack.decompress(self._held, wanted)
            except zlib.error as error:
                raise BadFile("corrupt", str(error)) from None
            self._held = self._unpack.unconsumed_tail
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)


class _Zstd:
    def __init__(self, zstandard: Any, data: memoryview) -> None:
        self._error = zstandard.ZstdError
        # Blender writes many frames, and a table of them in a frame that decoders skip.
        unpack = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._stream = unpack.stream_reader(io.BufferedReader(_Raw(data)), read_across_frames=True)

    def read(self, size: int) -> bytes:
        pieces = []
        try:
            while size:
                piece = self._stream.read(min(size, _CHUNK))
                if not piece:
                    break
                pieces.append(piece)
                size -= len(piece)
        except self._error as error:
            raise BadFile("corrupt", str(error)) from None
        return b"".join(pieces)


class _Raw(io.RawIOBase):
    """A memory view as a raw stream."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _blocks(stream: Any) -> Iterator[tuple[_Layout, _Block, Callable[[], bytes]]]:
    """Every block up to ENDB; the third of each reads its data, which are skipped when it is not called."""
    layout = _layout(_exactly(stream, 12), stream)
    at = 17 if layout.large else 12
    for _ in range(LIMITS.entries * 4):
        raw = _exactly(stream, layout.head.size)
        at += layout.head.size
        block = layout.block(raw, at)
        if block.code == b"ENDB":
            return
        if at + block.length > LIMITS.file_bytes:
            raise BadFile("absurd", f"unpacks to more than {LIMITS.file_bytes} bytes")
        left = block.length

        def read(size: int = block.length) -> bytes:
            nonlocal left
            left = 0
            return _exactly(stream, size)

        yield layout, block, read
        _skip(stream, left)
        at += block.length
    raise BadFile("absurd", "too many blocks")


def _layout(head: bytes, stream: _Reader) -> _Layout:
    if not head.startswith(b"BLENDER"):
        raise BadFile("magic", f"unpacks to {head[:8]!r}")
    if head[7:9] == b"17":
        # Blender 5: a header of 17 bytes, 64-bit lengths, always little-endian.
        _exactly(stream, 5)
        return _Layout(struct.Struct("<4sIQQQ"), "<", 8, True)
    if head[7:8] not in (b"_", b"-") or head[8:9] not in (b"v", b"V"):
        raise BadFile("header", f"{head!r}")
    order = "<" if head[8:9] == b"v" else ">"
    if head[7:8] == b"-":
        return _Layout(struct.Struct(order + "4sIQII"), order, 8, False)
    return _Layout(struct.Struct(order + "4sIIII"), order, 4, False)


def _exactly(stream: _Reader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise BadFile("truncated", f"{len(data)} bytes where {size} should follow")
    return data


def _skip(stream: Any, size: int) -> None:
    if isinstance(stream, _Plain):
        there = stream.skip(size)
        if there != size:
            raise BadFile("truncated", f"{there} bytes where {size} should follow")
        return
    while size:
        size -= len(_exactly(stream, min(size, _CHUNK)))


def _parse_dna(data: bytes, layout: _Layout) -> dict[int, tuple[str, _Struct]]:
    """Number of each struct of PATH_FIELDS -> (name, size and fields)."""
    at = 0

    def take(code: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(layout.order + code, data, at)
        at += struct.calcsize(layout.order + code)
        return values

    def words(mark: bytes) -> list[str]:
        nonlocal at
        expect(mark)
        (count,) = take("I")
        if count > LIMITS.entries:
            raise BadFile("absurd", f"{count} names")
        found = []
        for _ in range(count):
            end = data.index(b"\0", at)
            found.append(data[at:end].decode("latin-1"))
            at = end + 1
        return found

    def expect(mark: bytes) -> None:
        nonlocal at
        at = -(-at // 4) * 4
        if data[at : at + 4] != mark:
            raise BadFile("corrupt", f"the description of structs lacks {mark.decode()}")
        at += 4

    try:
        expect(b"SDNA")
        names, types = words(b"NAME"), words(b"TYPE")
        expect(b"TLEN")
        sizes = take(f"{len(types)}H")
        expect(b"STRC")
        found = {}
        (count,) = take("I")
        for number in range(count):
            kind, n = take("HH")
            pairs = take(f"{2 * n}H")
            if types[kind] not in PATH_FIELDS:
                continue
            fields, offset = {}, 0
            for of, called in zip(pairs[::2], pairs[1::2], strict=True):
                label = names[called]
                pointer = label.startswith(("*", "(*"))
                size = layout.pointer if pointer else sizes[of]
                for dimension in re.findall(r"\[(\d+)\]", label):
                    size *= int(dimension)
                fields[re.split(r"[\[)]", label.lstrip("(*"))[0]] = _Field(offset, size)
                offset += size
            found[number] = types[kind], _Struct(sizes[kind], fields)
    except (struct.error, ValueError, IndexError) as error:
        raise BadFile("corrupt", f"the description of structs: {error}") from None
    return found


def _paths(kind: str, of: _Struct, data: bytes, layout: _Layout) -> Iterator[str]:
    """Paths that the structs in a block name, as `Mentions` takes them: relative ones to the folder."""
    if of.size == 0:
        return
    for start in range(0, len(data) - of.size + 1, of.size):
        if any(_is_set(of, data, start, name) for name in PACKED_FIELDS):
            continue
        source = _number(of, data, start, "source", layout) if kind == "Image" else 0
        if source in (_GENERATED, _VIEWER):
            continue
        for name in PATH_FIELDS[kind]:
            field = of.fields.get(name)
            if field is None:
                continue
            raw = data[start + field.offset : start + field.offset + field.size].split(b"\0")[0]
            text = raw.decode("utf-8", "replace")
            if text in ("", "<builtin>"):
                continue
            text = text.removeprefix("//")
            if source in (_SEQUENCE, _TILED):
                # Numbers and tile names take the place of a part of the name: the folder is what is known.
                text = os.path.dirname(text.replace("\\", "/"))
            yield text


def _is_set(of: _Struct, data: bytes, start: int, name: str) -> bool:
    field = of.fields.get(name)
    return field is not None and any(data[start + field.offset : start + field.offset + field.size])


def _number(of: _Struct, data: bytes, start: int, name: str, layout: _Layout) -> int:
    field = of.fields.get(name)
    if field is None:
        return 0
    raw = data[start + field.offset : start + field.offset + field.size]
    return int.from_bytes(raw, "little" if layout.order == "<" else "big", signed=True)
