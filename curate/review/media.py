"""Images of clips for the page: previews of a table, and the stored frames of a dataset as one animation."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

#: Frames of an animation: those of a clip, evenly chosen where it has more.
MOST_FRAMES = 16
#: Milliseconds a frame is shown.
FRAME_MS = 90
#: Pixels a side of an animation that has to be drawn again, as its frames are no WebP.
_REDRAWN = 192


class Previews:
    """The previews of a table in a temporary file without a name, so that memory does not hold them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._file = tempfile.TemporaryFile(prefix="orbit4d-review-")  # noqa: SIM115 (as long as the page)
        ends = []
        for value in column:
            if value.is_valid:
                self._file.write(value.as_buffer())
            ends.append(self._file.tell())
        self._file.flush()
        self._bounds = np.array([0, *ends], np.int64)

    def has(self, row: int) -> bool:
        """Whether a row has a preview."""
        return bool(self._bounds[row + 1] > self._bounds[row])

    def read(self, row: int) -> bytes:
        """The preview of a row, b"" without one."""
        start, end = int(self._bounds[row]), int(self._bounds[row + 1])
        return os.pread(self._file.fileno(), end - start, start)


def _chunks(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (name, contents) of a WebP file."""
    at = 12
    while at + 8 <= len(webp):
        name, size = webp[at : at + 4], struct.unpack_from("<I", webp, at + 4)[0]
        yield name, webp[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _chunk(name: bytes, contents: bytes) -> bytes:
    return name + struct.pack("<I", len(contents)) + contents + b"\0" * (len(contents) % 2)


def animation(frames: Sequence[bytes], size: tuple[int, int], frame_ms: int = FRAME_MS) -> bytes:
    """One animated WebP of still images, `size` (width, height) each; the pixels are not coded again where
    they are WebP. Layout: the WebP container specification, chunks ANIM and ANMF."""
    if not all(frame[:4] == b"RIFF" and frame[8:12] == b"WEBP" for frame in frames):
        return _redrawn(frames, frame_ms)
    width, height = size
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    # Bit 1: no blending with the frame before, which the whole frame replaces.
    head = bytes(6) + sides + frame_ms.to_bytes(3, "little") + b"\x02"
    parts = [
        _chunk(b"VP8X", b"\x12\0\0\0" + sides),  # alpha, animation
        _chunk(b"ANIM", bytes(6)),  # no background; for ever
    ]
    for frame in frames:
        image = [_chunk(*found) for found in _chunks(frame) if found[0] in (b"ALPH", b"VP8 ", b"VP8L")]
        parts.append(_chunk(b"ANMF", head + b"".join(image)))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _redrawn(frames: Sequence[bytes], frame_ms: int) -> bytes:
    from PIL import Image

    images = []
    for frame in frames:
        with Image.open(io.BytesIO(frame)) as image:
            small = image.convert("RGBA")
        small.thumbnail((_REDRAWN, _REDRAWN))
        images.append(small)
    out = io.BytesIO()
    images[0].save(out, "WEBP", save_all=True, append_images=images[1:], duration=frame_ms, loop=0, method=0)
    return out.getvalue()


def dataset_frames(index: Any) -> Callable[[int], bytes]:
    """A function: number of an index row -> its clip as an animated WebP, read from its shard."""
    from orbit4d.datasets.index.reader import read_members

    def read(number: int) -> bytes:
        row = index.row(number, ["shard", "offsets", "lengths", "n_frames", "width", "height"])
        # Frames alone: passes beside them may be larger than all of them.
        frames = read_members(index.shard_store, row, passes=False)
        count = min(len(frames), MOST_FRAMES)
        chosen = [frames[i * len(frames) // count] for i in range(count)]
        return animation(chosen, (row["width"], row["height"]))

    return read
