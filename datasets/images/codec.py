"""Frames as bytes: lossless WebP that keeps colour under alpha 0, and a decoder that lets go of the GIL.

Why lossless WebP, method 2, quality (= effort) 25. `make bench-data` on Cycles renders of 256x256, one core
of an AMD EPYC, per frame:

    png level 6          16.4 kB   encode  3.1 ms   decode 0.94 ms
    webp method 0        30.3 kB   encode  1.3 ms   decode 0.68 ms
    webp method 2        12.3 kB   encode  6.9 ms   decode 0.23 ms
    webp method 4        11.9 kB   encode 21.0 ms   decode 0.24 ms
    webp method 6 q75    11.6 kB   encode 56.0 ms   decode 0.31 ms
    avif quality 100     15.8 kB   encode 19.8 ms   decode 3.0 ms, and off by up to 2 of 255

So it is smaller than PNG and decodes four times faster; higher methods triple the encoding time and more for
a few per cent; AVIF is not exact through Pillow and decodes ten times slower. `exact=True` keeps RGB where
alpha is 0, so that a round trip is exact for any input.

Pillow decodes WebP while it holds the GIL, so threads gain nothing from it. The libwebp that Pillow ships is
therefore called through ctypes, which releases the GIL; Pillow stays the fallback and the decoder of any
other format.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from orbit4d.datasets.core.errors import WorkError

Pixels = npt.NDArray[np.uint8]

WEBP_OPTIONS = {"lossless": True, "exact": True, "method": 2, "quality": 25}


def encode_webp(rgba: Pixels) -> bytes:
    """Encode straight RGBA, uint8 [H, W, 4], as lossless WebP. ValueError for another dtype or shape."""
    rgba = np.ascontiguousarray(rgba)
    if rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4:
        raise ValueError(f"expected uint8 [H, W, 4], got {rgba.dtype} {list(rgba.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


def encode_png(rgba: Pixels) -> bytes:
    """Straight RGBA, uint8 [H, W, 4], as PNG; exact also under alpha 0."""
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def decode(data: bytes | memoryview) -> Pixels:
    """Decode one image to straight RGBA, uint8 [H, W, 4]. Damaged data raises WorkError."""
    if bytes(data[:4]) == b"RIFF" and bytes(data[8:12]) == b"WEBP" and _libwebp() is not None:
        return _decode_webp(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise WorkError(f"cannot decode an image of {len(data)} bytes: {error}") from error


def decode_clip(
    members: Sequence[bytes], size: tuple[int, int], pool: ThreadPoolExecutor | None = None
) -> Pixels:
    """Frames of one clip, side by side in `pool`, to straight RGBA, uint8 [N, H, W, 4]; size is (width,
    height).

    A damaged frame, or one of another size, raises WorkError.
    """
    out = np.empty((len(members), size[1], size[0], 4), np.uint8)

    def one(i: int) -> None:
        data = members[i]
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and _libwebp() is not None:
            _decode_webp(data, out[i])
            return
        frame = decode(data)
        if frame.shape != out[i].shape:
            raise WorkError(f"frame {i} is {frame.shape[1]}x{frame.shape[0]}, not {size[0]}x{size[1]}")
        out[i] = frame

    if pool is None:
        for i in range(len(members)):
            one(i)
    else:
        list(pool.map(one, range(len(members))))
    return out


def suffix(data: bytes) -> str:
    """File ending (without a dot) that fits the leading bytes of an encoded member; "bin" when unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    for magic, ending in (
        (b"\x89PNG", "png"),
        (b"\xff\xd8\xff", "jpg"),
        (b"\x93NUMPY", "npy"),
        (b"\x76\x2f\x31\x01", "exr"),
    ):
        if data.startswith(magic):
            return ending
    return "avif" if data[4:12] == b"ftypavif" else "bin"


@functools.cache
def _libwebp() -> ctypes.CDLL | None:
    """The libwebp beside Pillow, else the system's, else None."""
    package = Path(PIL.__file__).parent
    bundled = [
        str(path)
        for folder, pattern in (
            (package.parent / "pillow.libs", "libwebp-*"),
            (package / ".dylibs", "libwebp.*"),
        )
        for path in sorted(folder.glob(pattern))
    ]
    # Pillow's own extension must be loaded first: it pulls in the libraries libwebp itself needs.
    Image.preinit()
    system = ctypes.util.find_library("webp")
    for name in [*bundled, *([system] if system else [])]:
        try:
            library = ctypes.CDLL(name)
            library.WebPGetInfo.argtypes = [
                ctypes.c_void_p,
                ctypes.c_size_t,
                ctypes.POINTER(ctypes.c_int),
                ctypes.POINTER(ctypes.c_int),
            ]
            library.WebPDecodeRGBAInto.argtypes = [
                ctypes.c_void_p,
                ctypes.c_size_t,
                ctypes.c_void_p,
                ctypes.c_size_t,
                ctypes.c_int,
            ]
            library.WebPDecodeRGBAInto.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        return library
    return None


@functools.cache
def decoder_address() -> int | None:
    """Where libwebp's WebPDecodeRGBAInto lies in this process; None without libwebp."""
    library = _libwebp()
    if library is None:
        return None
    return ctypes.cast(library.WebPDecodeRGBAInto, ctypes.c_void_p).value


def _decode_webp(data: bytes | memoryview, out: Pixels | None = None) -> Pixels:
    """Decode into `out` [H, W, 4], contiguous, or a new array."""
    library = _libwebp()
    assert library is not None
    source = np.frombuffer(data, np.uint8)
    pointer = source.ctypes.data
    width, height = ctypes.c_int(), ctypes.c_int()
    if not library.WebPGetInfo(pointer, source.size, ctypes.byref(width), ctypes.byref(height)):
        raise WorkError(f"cannot decode a WebP image of {source.size} bytes: damaged header")
    if out is None:
        out = np.empty((height.value, width.value, 4), np.uint8)
    elif out.shape[:2] != (height.value, width.value):
        raise WorkError(f"a frame is {width.value}x{height.value}, not {out.shape[1]}x{out.shape[0]}")
    if not library.WebPDecodeRGBAInto(pointer, source.size, out.ctypes.data, out.nbytes, out.strides[0]):
        raise WorkError(f"cannot decode a WebP image of {source.size} bytes: damaged data")
    return out
