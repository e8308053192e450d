"""`.4dgs` (avala-ai/4dgs, version 1): a Gaussian per window between two times, moving on a straight line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import f_dc, largest_and_rest, unit_quats
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

Array = npt.NDArray[Any]
MAGIC = bytes.fromhex("8934444753310d0a")
_HEADER, _FOOTER, _QUANTIZATION, _WINDOWS, _CHUNK, _HARMONICS, _INDEX = 1, 2, 3, 4, 5, 7, 8
#: Steps of the grids: position in shares of the longest edge, the others in their own units.
_POSITION = 1 / 16384
_STEPS = {"log_scale": 0.01, "rotation": 1 / 1024, "rgb": 1 / 255, "alpha": 1 / 255}
#: Parts of a window that times are counted in; the last window lasts one part longer.
_TICKS = 64
_HARMONIC_RANGE = 4.0
#: Rotations stand still within a window; scales, colours and opacities too.
_CUTOFF = 0.05


def fourdgs_bytes(moments: Sequence[Gaussians], seconds: float, axes: str = "z-up-right-handed") -> bytes:
    """The file of Gaussians at times evenly apart over `seconds`; `axes` is what it calls those of the
    numbers.

    Windows are half open, so the last one ends a little after the last time. InputError for fewer than two.
    """
    if len(moments) < 2:
        raise InputError("--format 4dgs: --frames 1; give at least 2, between which the Gaussians move")
    if len({len(m) for m in moments}) > 1:
        raise InputError(
            "--format 4dgs: the scene has other Gaussians at other times, which no straight line joins; give "
            "--format ply-sequence or usd"
        )
    sets = [m.detached().to("cpu") for m in moments]
    means = [m.means.double().numpy() for m in sets]
    window = seconds / (len(sets) - 1)
    tick = window / _TICKS
    everywhere = np.concatenate(means)
    low, high = everywhere.min(0), everywhere.max(0)
    position = float(max((high - low).max(), 1e-6)) * _POSITION
    motion = position / max(window, 1e-6)
    steps = (position, *_STEPS.values(), motion, tick, 1e-3)
    ends = [(i * window, (i + 1) * window) for i in range(len(sets) - 1)]
    ends[-1] = (ends[-1][0], ends[-1][1] + tick)
    duration, n, degree = ends[-1][1], len(sets[0]), sets[0].sh_degree
    head = _text("") + _text("orbit4d") + struct.pack("<dQd", duration, n * len(ends), _CUTOFF)
    head += _text("gaussian-birth") + struct.pack("<6dBB", *low, *high, degree, 2)
    head += _map({"coordinate_system": axes})
    grid = _text("uniform-v1") + struct.pack("<3d8dB", *low, *steps, 1) + struct.pack("<I", 0)
    out = bytearray(MAGIC)
    out += _record(_HEADER, head) + _record(_QUANTIZATION, grid)
    out += _record(_WINDOWS, struct.pack("<I", len(ends)) + b"".join(struct.pack("<2d", *e) for e in ends))
    index = b""
    for i, (start, end) in enumerate(ends):
        moved = (means[i + 1] - means[i]) / window
        streams = _streams(sets[i], means[i], moved, low, steps, (start, end), i)
        chunk = (
            struct.pack("<ddII", start, end, 0, n)
            + _text("")
            + struct.pack("<QQ", len(streams), len(streams))
        )
        where, record = len(out), _record(_CHUNK, chunk + streams)
        out += record
        bands = b""
        for band in range(1, degree + 1):
            kept = _record(_HARMONICS, bytes([band]) + _band(sets[i], band))
            bands += struct.pack("<BQQ", band, len(out), len(kept))
            out += kept
        given = struct.pack("<ddQQII", start, end, where, len(record), n, degree)
        index += _record(_INDEX, given + bands)
    first = len(out)
    out += index + _record(_FOOTER, struct.pack("<QQI", first, 0, zlib.crc32(index))) + MAGIC
    return bytes(out)


def _streams(
    g: Gaussians,
    means: Array,
    moved: Array,
    low: Array,
    steps: Sequence[float],
    ends: tuple[float, float],
    i: int,
) -> bytes:
    """The attribute streams of one window's chunk."""
    n = len(g)
    position, log_scale, rotation, rgb, alpha, motion, tick, _ = steps
    largest, rest = largest_and_rest(unit_quats(g)[:, [1, 2, 3, 0]])
    red, green, blue = np.round((f_dc(g) * SH_C0 + 0.5).clip(0, 1) / rgb).T
    half = min(max(ends[1] - ends[0], 0.02), 2.0)
    shrink = min(max(int(np.ceil(np.log2(half / 0.5))), -4), 2)
    parts = [
        (0, (means - low) / position), (1, g.log_scales.double().numpy() / log_scale), (2, largest[:, None]),
        (3, rest / rotation), (4, np.stack([green, red - green, blue - green], 1)),
        (5, g.opacities.double().numpy()[:, None] / alpha), (6, moved / (motion * 2.0**-shrink)),
        (7, np.full((n, 1), ends[0] / tick)),
        (8, np.zeros((n, 1))), (9, np.ones((n, 1))), (10, np.full((n, 1), i)),
    ]  # fmt: skip
    return b"".join(_stream(number, np.round(values)) for number, values in parts)


def _band(g: Gaussians, band: int) -> bytes:
    """Reds, then greens, then blues of one degree, in bytes from -4 to 4."""
    part = g.harmonics[:, band**2 - 1 : (band + 1) ** 2 - 1].double().transpose(1, 2).flatten(1).numpy()
    coded = np.round((part.clip(-_HARMONIC_RANGE, _HARMONIC_RANGE) + _HARMONIC_RANGE) * 255 / 8)
    return _stream(7, coded)


def _stream(number: int, values: Array) -> bytes:
    """Whole numbers [N, channels]: zigzag, byte planes, zlib."""
    symbols = values.astype(np.int64).reshape(-1)
    zigzag = (symbols << 1) ^ (symbols >> 63)
    largest = int(zigzag.max(initial=0))
    width = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    if largest >= 1 << 32:
        raise InputError("4dgs: a value does not fit its grid; the scene reaches too far or moves too fast")
    planes = zigzag.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes()
    payload = zlib.compress(planes, 9)
    head = struct.pack("<BBBBBIQ", number, width, 0, 0, values.shape[1], len(values), len(payload))
    return head + payload


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _map(pairs: dict[str, str]) -> bytes:
    body = b"".join(_text(key) + _text(value) for key, value in pairs.items())
    return struct.pack("<I", len(body)) + body
