"""Niantic's SPZ: version 4 (zstd streams) written, versions 2 to 4 read."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import (
    f_dc,
    from_arrays,
    from_largest,
    largest_and_rest,
    unit_quats,
)
from orbit4d.recon4d.gaussians import Gaussians

MAGIC = b"NGSP"
VERSION = 4
#: Bits behind the point of a position: steps of 1/4096.
FRACTION = 12
#: Positions have 24 bits with a sign.
_POSITIONS = (1 << 23) - 1
_COLOR = 0.15
#: f_dc beyond the ends of its byte, and harmonics beyond 1, are clipped.
_HEADER = struct.Struct("<4sIIBBBB")
_LEVEL = 12
#: Harmonics of these numbers above the constant; 24 is degree 4, which is read and dropped.
_HARMONICS = (0, 3, 8, 15, 24)
Bytes = npt.NDArray[np.uint8]


def spz_bytes(gaussians: Gaussians, harmonic_bits: tuple[int, int] = (8, 8), version: int = VERSION) -> bytes:
    """The file, of version 3 or 4. `harmonic_bits`: bits kept at degree 1 and above, of 8.

    All 8 cost twice the size of Niantic's default (5, 4), which loses 14 dB at degree 3.
    InputError where a position is too far from the origin for 24 bits.
    """
    arrays = [array.tobytes() for array in _pack(gaussians, harmonic_bits)]
    head = [len(gaussians), gaussians.sh_degree, FRACTION, 0]
    if version == 3:
        body = _HEADER.pack(MAGIC, 3, *head, 0) + b"".join(arrays)
        return gzip.compress(body, 9, mtime=0)
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=_LEVEL)
    arrays = [array for array in arrays if array]
    frames = [codec.compress(array, asbytes=True) for array in arrays]
    table = b"".join(struct.pack("<QQ", len(f), len(a)) for f, a in zip(frames, arrays))
    header = _HEADER.pack(MAGIC, 4, *head, len(arrays)) + struct.pack("<I12x", 32)
    return header + table + b"".join(frames)


def _pack(gaussians: Gaussians, bits: tuple[int, int]) -> list[npt.NDArray[Any]]:
    g = gaussians.detached()
    fixed = np.round(g.means.double().cpu().numpy() * (1 << FRACTION))
    if len(g) and (not np.isfinite(fixed).all() or np.abs(fixed).max() > _POSITIONS):
        raise InputError("spz holds positions within 2048 of the origin; this set reaches further")
    positions = fixed.astype("<i4").view(np.uint8).reshape(-1, 3, 4)[:, :, :3]
    alphas = np.floor(g.opacities.double().cpu().numpy() * 255 + 0.5)
    colors = np.round(255 * (_COLOR * f_dc(g) + 0.5))
    scales = np.round(16 * (g.log_scales.double().cpu().numpy() + 10))
    # Their order of components is x, y, z, w.
    largest, rest = largest_and_rest(unit_quats(g)[:, [1, 2, 3, 0]])
    size = np.clip(np.floor(511 * np.sqrt(2) * np.abs(rest) + 0.5), 0, 511).astype(np.uint32)
    part = size | ((rest < 0).astype(np.uint32) << np.uint32(9))
    packed = largest.astype(np.uint32) << np.uint32(30)
    for i, shift in enumerate((20, 10, 0)):
        packed |= part[:, i] << np.uint32(shift)
    harmonics = _bucketed(g.harmonics.double().cpu().numpy(), bits)
    whole = [np.clip(a, 0, 255).astype(np.uint8) for a in (alphas, colors, scales)]
    return [positions, *whole, packed.astype("<u4"), harmonics]


def _bucketed(harmonics: npt.NDArray[np.float64], bits: tuple[int, int]) -> Bytes:
    q = np.round(128 * harmonics) + 128
    bucket = np.array([1 << (8 - bits[0 if k < 3 else 1]) for k in range(harmonics.shape[1])])[:, None]
    return np.clip(np.floor((q + bucket // 2) / bucket) * bucket, 0, 255).astype(np.uint8)


def read_spz(data: bytes, name: str, notes: list[str] | None = None) -> Gaussians:
    """From a file of version 2, 3 or 4. `notes` receives what was left out.

    InputError for anything else and where sizes do not agree.
    """
    plain = data if data[:4] == MAGIC else _gunzipped(data, name)
    if len(plain) < _HEADER.size or plain[:4] != MAGIC:
        raise InputError(f"{name}: not an SPZ file")
    _, version, count, degree, fraction, _, n_streams = _HEADER.unpack_from(plain)
    if version not in (2, 3, 4):
        raise InputError(f"{name}: SPZ version {version}; 2, 3 and 4 are known")
    if degree > 4 or not count or count * 9 > 1024 * len(data):
        raise InputError(
            f"{name}: an SPZ header that says {count} Gaussians of degree {degree}, which cannot be"
        )
    k = _HARMONICS[degree]
    sizes = [9 * count, count, 3 * count, 3 * count, (3 if version == 2 else 4) * count, 3 * k * count]
    if version == 4:
        arrays = _streams(plain, n_streams, sizes, name)
    else:
        arrays = _cut(plain[_HEADER.size :], sizes, name)
    if k > 15 and notes is not None:
        notes.append(f"{name}: harmonics of degree 4 are left out; 3 is the highest here")
    return _unpack(arrays, count, k, fraction, version)


def _gunzipped(data: bytes, name: str) -> bytes:
    """At most as much as the header can mean: a small file must not become a large one."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size or head[:4] != MAGIC:
                raise InputError(f"{name}: not an SPZ file")
            count, degree = struct.unpack_from("<IB", head, 8)
            if count * 9 > 1024 * len(data) or degree > 4:
                raise InputError(f"{name}: an SPZ header that says {count} Gaussians in {len(data)} bytes")
            return head + file.read(count * (20 + 3 * _HARMONICS[degree]) + 1)
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{name}: not an SPZ file, or a damaged one") from None


def _cut(body: bytes, sizes: list[int], name: str) -> list[bytes]:
    if len(body) < sum(sizes):
        raise InputError(f"{name}: truncated SPZ")
    ends = np.cumsum(sizes)
    return [body[end - size : end] for size, end in zip(sizes, ends)]


def _streams(data: bytes, n_streams: int, sizes: list[int], name: str) -> list[bytes]:
    """The arrays of version 4; an empty one has no stream."""
    import pyarrow as pa

    wanted = [size for size in sizes if size]
    damaged = InputError(f"{name}: an SPZ whose streams do not add up to the file")
    if len(data) < 32 or n_streams != len(wanted):
        raise damaged
    (table,) = struct.unpack_from("<I", data, 16)
    if table < 32 or table + 16 * n_streams > len(data):
        raise damaged
    given = [struct.unpack_from("<QQ", data, table + 16 * i) for i in range(n_streams)]
    start = table + 16 * n_streams
    if [size for _, size in given] != wanted or start + sum(size for size, _ in given) != len(data):
        raise damaged
    codec, arrays = pa.Codec("zstd"), []
    for size, plain in given:
        try:
            arrays.append(codec.decompress(data[start : start + size], plain, asbytes=True))
        except (pa.ArrowException, OSError):
            raise damaged from None
        start += size
    return arrays if sizes[-1] else [*arrays, b""]


def _unpack(arrays: list[bytes], n: int, k: int, fraction: int, version: int) -> Gaussians:
    positions, alphas, colors, scales, rotations, harmonics = (np.frombuffer(a, np.uint8) for a in arrays)
    wide = np.zeros((n, 3, 4), np.uint8)
    wide[:, :, 1:] = positions.reshape(n, 3, 3)
    means = (wide.view("<i4")[:, :, 0] >> 8) / float(1 << fraction)
    if version == 2:
        xyz = rotations.reshape(n, 3) / 127.5 - 1
        w = np.sqrt(np.clip(1 - np.square(xyz).sum(1), 0, 1))
        quats = np.concatenate([w[:, None], xyz], 1)
    else:
        packed = rotations.view("<u4")
        part = (packed[:, None] >> np.array([20, 10, 0], np.uint32)) & 1023
        size = (part & 511) / (511 * np.sqrt(2))
        largest = (packed >> 30).astype(np.int64)
        quats = from_largest(largest, np.where(part & 512, -size, size))[:, [3, 0, 1, 2]]
    rest = (harmonics.reshape(n, k, 3).astype(np.float64) - 128) / 128
    return from_arrays(
        means, scales.reshape(n, 3) / 16.0 - 10, quats, alphas / 255.0,
        (colors.reshape(n, 3) / 255.0 - 0.5) / _COLOR, rest[:, :15],
    )  # fmt: skip
