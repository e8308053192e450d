"""One channel of an OpenEXR image: scanlines of half or float, uncompressed or ZIP (what Blender writes).

By the OpenEXR package where it is installed, which reads every compression; else by this reader.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError

Floats = npt.NDArray[np.float32]

#: Names under which depth is stored, the first that is there counts.
DEPTH_CHANNELS = ("Z", "depth.Z", "R", "Y")
_LINES = {0: 1, 2: 1, 3: 16}
_TYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
_NAMES = {0: "none", 1: "RLE", 2: "ZIPS", 3: "ZIP", 4: "PIZ", 5: "PXR24", 6: "B44", 7: "B44A", 8: "DWAA"}


def read_exr(path: Path) -> Floats:
    """The depth channel [H, W] of an EXR. InputError for one without, or a compression that is not read."""
    try:
        import OpenEXR
    except ImportError:
        return _read(path)
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        return np.asarray(channels[_chosen(path, list(channels))].pixels, dtype=np.float32)


def _chosen(path: Path, names: list[str]) -> str:
    for wanted in DEPTH_CHANNELS:
        for name in names:
            if name == wanted or name.endswith(f".{wanted}"):
                return name
    raise InputError(f"{path}: no channel {', '.join(DEPTH_CHANNELS)}; it has {', '.join(names)}")


def _read(path: Path) -> Floats:
    data = path.read_bytes()
    try:
        return _decoded(path, data)
    except (struct.error, zlib.error, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: not a readable EXR ({type(error).__name__}: {error})") from None


def _decoded(path: Path, data: bytes) -> Floats:
    magic, version = struct.unpack_from("<ii", data)
    if magic != 20000630:
        raise InputError(f"{path}: not an EXR image")
    if version & 0x1A00:
        raise InputError(f"{path}: tiled, deep and multi-part EXR need the OpenEXR package: save scanlines")
    header, at = _header(data)
    compression = header["compression"][0]
    if compression not in _LINES:
        name = _NAMES.get(compression, str(compression))
        raise InputError(f"{path}: EXR compression {name} needs the OpenEXR package: save it as ZIP or none")
    left, top, right, bottom = struct.unpack("<iiii", header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    channels = _channels(header["channels"])
    wanted = _chosen(path, [name for name, _ in channels])
    row = sum(width * np.dtype(_TYPES[kind]).itemsize for _, kind in channels)
    skipped = channels[: [name for name, _ in channels].index(wanted)]
    before = sum(width * np.dtype(_TYPES[kind]).itemsize for _, kind in skipped)
    kind = np.dtype(_TYPES[dict(channels)[wanted]])
    lines = _LINES[compression]
    out = np.empty((height, width), np.float32)
    for offset in struct.unpack_from(f"<{-(-height // lines)}Q", data, at):
        y, size = struct.unpack_from("<ii", data, offset)
        count = min(lines, bottom - y + 1)
        block = data[offset + 8 : offset + 8 + size]
        if compression and size < row * count:
            block = _unzipped(block)
        for i in range(count):
            start = i * row + before
            out[y - top + i] = np.frombuffer(block, kind, width, start)
    return out


def _header(data: bytes) -> tuple[dict[str, bytes], int]:
    """Attributes by name, and where they end."""
    found, at = {}, 8
    while data[at]:
        end = data.index(b"\0", at)
        name, at = data[at:end].decode("latin-1"), end + 1
        at = data.index(b"\0", at) + 1
        (size,) = struct.unpack_from("<i", data, at)
        found[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return found, at + 1


def _channels(data: bytes) -> list[tuple[str, int]]:
    """(name, type) in stored order. ValueError for sub-sampled ones."""
    found, at = [], 0
    while data[at]:
        end = data.index(b"\0", at)
        kind, _, x, y = struct.unpack_from("<iiii", data, end + 1)
        if (x, y) != (1, 1):
            raise ValueError("sub-sampled channels")
        found.append((data[at:end].decode("latin-1"), kind))
        at = end + 17
    return found


def _unzipped(block: bytes) -> bytes:
    """ZIP of EXR: deflated differences of bytes, even ones before odd ones."""
    raw = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
    raw[1:] -= 128
    values = (np.cumsum(raw) & 255).astype(np.uint8)
    half = (len(values) + 1) // 2
    out = np.empty_like(values)
    out[0::2], out[1::2] = values[:half], values[half:]
    return out.tobytes()
