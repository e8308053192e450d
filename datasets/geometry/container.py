"""One file of named arrays, each packed on its own and guarded by a checksum; read without unpickling.

    magic 8 bytes · length of the header uint32 · header (JSON) · blocks one after another

The header holds what the caller gave and, under `blocks`, dtype, shape, codec, offset, length and CRC-32 of
each block. Codecs are joined by `+` and named in the order in which they were applied: `delta` (differences
along the first axis, wrapping), `zigzag` (signed to unsigned), `split` (byte planes, lowest first), `zstd`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.datasets.core.errors import WorkError

Array = npt.NDArray[Any]

_LEVEL = 19
_PREFIX = struct.Struct("<8sI")
#: A block or a header above this is damage: no action has two billion numbers.
_MOST_BYTES = 1 << 31


def pack(magic: bytes, header: Mapping[str, Any], blocks: Mapping[str, tuple[Array, str]]) -> bytes:
    """Bytes of a file; `blocks` are name -> (array, codec). `magic` has 8 bytes."""
    given, pieces, offset = {}, [], 0
    for name, (array, codec) in blocks.items():
        data = _encode(array, codec)
        given[name] = {
            "dtype": array.dtype.newbyteorder("<").str,
            "shape": list(array.shape),
            "codec": codec,
            "offset": offset,
            "length": len(data),
            "crc32": zlib.crc32(data),
        }
        pieces.append(data)
        offset += len(data)
    text = json.dumps({**header, "blocks": given}, sort_keys=True, ensure_ascii=False).encode()
    return _PREFIX.pack(magic, len(text)) + text + b"".join(pieces)


def unpack(magic: bytes, data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a file; WorkError naming `name` for damage or another kind of file."""
    try:
        found, length = _PREFIX.unpack_from(data)
        if found != magic:
            raise ValueError(f"begins with {found!r}, not {magic!r}")
        start = _PREFIX.size + length
        header = json.loads(data[_PREFIX.size : start])
        arrays = {key: _decode(data, start, given) for key, given in header.pop("blocks").items()}
    except Exception as error:
        # Bytes from elsewhere can be wrong in every way; what they are is not known until they are read.
        raise WorkError(f"{name}: damaged ({type(error).__name__}: {error}); run `orbit4d verify`") from error
    return header, arrays


def _encode(array: Array, codec: str) -> bytes:
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = b""
    for step in codec.split("+"):
        if step == "delta":
            array = np.diff(array, axis=0, prepend=np.zeros_like(array[:1])) if len(array) else array
        elif step == "zigzag":
            bits = array.dtype.itemsize * 8 - 1
            array = ((array << 1) ^ (array >> bits)).view(array.dtype.str.replace("i", "u"))
        elif step == "split":
            array = np.ascontiguousarray(array.reshape(-1).view(np.uint8).reshape(-1, array.dtype.itemsize).T)
        elif step == "zstd":
            data = pa.Codec("zstd", compression_level=_LEVEL).compress(array.tobytes(), asbytes=True)
        else:
            raise ValueError(f"no codec {step!r}")
    return data


def _decode(data: bytes, start: int, given: Mapping[str, Any]) -> Array:
    dtype, shape = np.dtype(given["dtype"]), tuple(given["shape"])
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"a block of {given['dtype']} {given['shape']}")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    first = start + given["offset"]
    packed = data[first : first + given["length"]]
    if len(packed) != given["length"] or zlib.crc32(packed) != given["crc32"] or size > _MOST_BYTES:
        raise ValueError("a block whose checksum does not fit")
    steps = given["codec"].split("+")
    if steps.pop() != "zstd":
        raise ValueError(f"no codec {given['codec']!r}")
    raw = pa.Codec("zstd").decompress(packed, decompressed_size=size, asbytes=True)
    array = np.frombuffer(raw, np.uint8)
    if steps and steps[-1] == "split":
        steps.pop()
        array = np.ascontiguousarray(array.reshape(dtype.itemsize, -1).T)
    if steps and steps[-1] == "zigzag":
        steps.pop()
        unsigned = array.reshape(-1).view(dtype.str.replace("i", "u"))
        array = ((unsigned >> 1) ^ (0 - (unsigned & 1))).view(dtype)
    array = array.reshape(-1).view(dtype).reshape(shape)
    if steps == ["delta"]:
        return np.cumsum(array, axis=0, dtype=dtype)
    if steps:
        raise ValueError(f"no codec {given['codec']!r}")
    return array
