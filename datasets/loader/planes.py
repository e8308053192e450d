"""From the bytes of a clip to float planes on a background: each frame is decoded and composited while it is
in the processor's cache, all frames of a clip in one call that holds no lock.

The kernel calls libwebp through its address: numba cannot keep a compiled function that names a C library,
but one that is handed an address it can. Frames that it does not know (another format, a WebP with extra
chunks, damage) come back to Python one by one.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.jit import jit
from orbit4d.datasets.images.codec import decode, decoder_address
from orbit4d.datasets.images.composite import compose, compose_words
from orbit4d.datasets.loader.blocks import Blocks

_BLOCKS = Blocks()

Planes = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@intrinsic
def _call_decoder(typing_context, address, data, length, out, out_bytes, stride):  # type: ignore[no-untyped-def]
    """WebPDecodeRGBAInto(data, length, out, out_bytes, stride) at `address`; 0 when it fails."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word, c_int = args[0].type, ir.IntType(32)
        kind = ir.FunctionType(word, [word, word, word, word, c_int])
        function = builder.inttoptr(args[0], kind.as_pointer())
        return builder.call(function, [*args[1:5], builder.trunc(args[5], c_int)])

    return types.intp(*[types.intp] * 6), generate


@jit
def _lossless_size(data, start, length):  # type: ignore[no-untyped-def]
    """(width, height) in the header of a plain lossless WebP, (0, 0) for anything else.

    https://developers.google.com/speed/webp/docs/riff_container, simple file format (lossless).
    """
    if length < 25:
        return 0, 0
    magic = (82, 73, 70, 70, -1, -1, -1, -1, 87, 69, 66, 80, 86, 80, 56, 76, -1, -1, -1, -1, 0x2F)
    for i in range(21):
        if magic[i] >= 0 and data[start + i] != magic[i]:
            return 0, 0
    bits = np.int64(0)
    for i in range(4):
        bits |= np.int64(data[start + 21 + i]) << (8 * i)
    return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1


class _Coded(NamedTuple):
    """Frames as they are stored."""

    data: npt.NDArray[np.uint8]
    """[B]"""
    starts: npt.NDArray[np.int64]
    """[F]"""
    lengths: npt.NDArray[np.int64]
    """[F]"""


class _Canvas(NamedTuple):
    """Where frames of P pixels are decoded to, and composited."""

    words: npt.NDArray[np.uint32]
    """[1, P]"""
    rgb: npt.NDArray[np.float32]
    """[F, 3, P]"""
    alpha: npt.NDArray[np.float32]
    """[F, P]"""


@jit
def _planes(address, coded, first, width, background, canvas):  # type: ignore[no-untyped-def]
    """Decode and composite frames first, first + 1, ...; the first that it could not do, or F."""
    data, starts, lengths = coded
    words, rgb, alpha = canvas
    for f in range(first, starts.shape[0]):
        w, h = _lossless_size(data, starts[f], lengths[f])
        if w != width or w * h != words.shape[1]:
            return f
        at, room = data.ctypes.data + starts[f], 4 * words.size
        if _call_decoder(address, at, lengths[f], words.ctypes.data, room, 4 * width) == 0:  # type: ignore[call-arg]
            return f
        compose_words(words, background, rgb[f : f + 1], alpha[f : f + 1])
    return starts.shape[0]


def clip_planes(
    data: bytes | memoryview,
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    size: tuple[int, int],
    background: tuple[float, float, float],
    pool: ThreadPoolExecutor | None = None,
    threads: int = 1,
) -> Planes:
    """Frames of `size` = (width, height) that lie in `data` at `starts` [F] with `lengths` [F], on a colour
    in [0, 1]: float32 (rgb [F, 3, H, W], alpha [F, 1, H, W]), equal to `compose` of the decoded frames.

    With a pool the frames are shared among `threads`. A damaged frame, or one of another size, raises
    WorkError.
    """
    n, (w, h) = len(starts), size
    source = np.frombuffer(data, np.uint8)
    if n and (starts.min() < 0 or (starts + lengths).max() > source.size):
        raise WorkError(f"a clip of {source.size} bytes is too short for its frames; run `orbit4d verify`")
    rgb, alpha = _BLOCKS.empty((n, 3, h, w)), _BLOCKS.empty((n, 1, h, w))

    def some(part: slice) -> None:
        _fill(source, starts[part], lengths[part], background, rgb[part], alpha[part])

    if pool is None or threads <= 1:
        some(slice(0, n))
    else:
        cuts = [n * k // threads for k in range(threads + 1)]
        list(pool.map(some, [slice(a, b) for a, b in itertools.pairwise(cuts)]))
    return rgb, alpha


def _fill(
    source: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    background: tuple[float, float, float],
    rgb: npt.NDArray[np.float32],
    alpha: npt.NDArray[np.float32],
) -> None:
    n, _, h, w = rgb.shape
    address = decoder_address() if sys.byteorder == "little" else None
    words = np.empty((1, h * w), np.uint32)
    colour = np.asarray(background, np.float32)
    coded = _Coded(source, starts, lengths)
    canvas = _Canvas(words, rgb.reshape(n, 3, h * w), alpha.reshape(n, h * w))
    done = 0
    while done < n:
        if address is not None:
            done = _planes(address, coded, done, w, colour, canvas)
            if done == n:
                return
        frame = decode(source[starts[done] : starts[done] + lengths[done]].tobytes())
        if frame.shape[:2] != (h, w):
            raise WorkError(f"a frame is {frame.shape[1]}x{frame.shape[0]}, not {w}x{h}")
        (rgb[done],), (alpha[done],) = compose(frame[None], background)
        done += 1
