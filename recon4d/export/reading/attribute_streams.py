"""Numbers of a .4dgs: fields of a record one after the other, and streams of symbols in byte planes."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_STREAM = struct.Struct("<BBBBBIQ")
_RAW, _DIFFERENCES, _CONSTANT = 0, 1, 2
_CODECS = {0: "deflate", 1: "zstd"}
#: A stream that unpacks to more numbers than this is refused.
_MOST = 1 << 28


class Damaged(ValueError):
    """A file that contradicts itself; the text says where."""


class Cursor:
    """A place in bytes, which moves as they are read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise Damaged("a record that is too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        """The next numbers of a kind of `struct`, little-endian."""
        size = struct.calcsize(f"<{kind}")
        if count * size > self.left:
            raise Damaged("a record that is too short")
        return struct.unpack(f"<{count}{kind}", self.take(count * size))

    def text(self) -> str:
        """The next string."""
        return self.take(self.numbers("I", 1)[0]).decode("utf-8")

    def texts(self) -> dict[str, str]:
        """The next map of strings."""
        inside, found = Cursor(self.take(self.numbers("I", 1)[0])), {}
        while inside.left:
            key = inside.text()
            found[key] = inside.text()
        return found

    def unpacked(self, codec: str, plain: int) -> bytes:
        """All that is left, unpacked to `plain` bytes."""
        return unpacked(self.take(self.left), codec, plain)


def unpacked(packed: bytes, codec: str, plain: int) -> bytes:
    """`plain` bytes of a deflate or zstd stream, and never more."""
    if plain > 8 * _MOST:
        raise Damaged(f"a stream of {plain} bytes")
    if codec == "zstd":
        import pyarrow as pa

        try:
            out = pa.Codec("zstd").decompress(packed, plain, asbytes=True)
        except (pa.ArrowException, OSError):
            raise Damaged("a zstd stream") from None
    elif codec == "deflate":
        try:
            out = zlib.decompressobj().decompress(packed, plain + 1)
        except zlib.error:
            raise Damaged("a deflate stream") from None
    else:
        raise Damaged(f"a codec {codec[:20]!r} that is not known")
    if len(out) != plain:
        raise Damaged("a stream of another length than it says")
    return out


def stream(cursor: Cursor, most: int) -> tuple[int, Array]:
    """The next stream: its attribute, and whole numbers [at most `most`, channels]."""
    attribute, width, mode, codec, channels, count, size = _STREAM.unpack(cursor.take(_STREAM.size))
    packed = cursor.take(size)
    if attribute > 14:  # of a later version: its symbols are its own
        return attribute, np.zeros((0, 1), np.int64)
    if width not in (1, 2, 4) or not channels or mode not in (_RAW, _DIFFERENCES, _CONSTANT):
        raise Damaged(f"attribute {attribute}: symbols of {width} bytes, mode {mode}")
    if count > most or count * channels > _MOST:
        raise Damaged(f"attribute {attribute} of {count} Gaussians where there are {most}")
    if not count:
        return attribute, np.zeros((0, channels), np.int64)
    symbols = channels if mode == _CONSTANT else count * channels
    plain = unpacked(packed, _CODECS.get(codec, str(codec)), symbols * width)
    planes = np.frombuffer(plain, np.uint8).reshape(width, symbols)
    zigzag = np.ascontiguousarray(planes.T).view(f"<u{width}")[:, 0].astype(np.int64)
    values = ((zigzag >> 1) ^ -(zigzag & 1)).reshape(-1, channels)
    if mode == _CONSTANT:
        values = np.repeat(values, count, axis=0)
    elif mode == _DIFFERENCES:
        values = np.cumsum(values, axis=0)
    return attribute, values
