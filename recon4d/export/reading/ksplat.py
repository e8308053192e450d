"""mkkellogg's .ksplat, version 0.1 and later: sections of rows, of 16 bits in blocks at levels 1 and 2."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import from_arrays, positive_scales
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

Array = npt.NDArray[Any]
_HEADER, _SECTION = 4096, 1024
#: Range of harmonics of level 2 where the header names none.
_HARMONIC_RANGE = 1.5
#: Largest number of a packed position where the section names none.
_RANGE = 32767
#: Coefficients above the constant by degree.
_HARMONICS = (0, 3, 8)


def read_ksplat(data: bytes, name: str) -> Gaussians:
    """All sections of a file, joined; levels 0, 1 and 2, harmonics to degree 2.

    InputError for another version or level, and where sizes do not agree.
    """
    if len(data) < _HEADER:
        raise InputError(f"{name}: {len(data)} bytes are no .ksplat, whose header has {_HEADER}")
    major, minor = data[0], data[1]
    sections, count = struct.unpack_from("<I", data, 4)[0], struct.unpack_from("<I", data, 16)[0]
    (level,) = struct.unpack_from("<H", data, 20)
    if major != 0 or minor < 1:
        raise InputError(f"{name}: .ksplat version {major}.{minor}; 0.1 and later are known")
    if level > 2 or not sections or not count or _HEADER + sections * _SECTION > len(data):
        raise InputError(
            f"{name}: a .ksplat header that says level {level}, {sections} sections and {count} Gaussians "
            f"in {len(data)} bytes, which cannot be"
        )
    low, high = struct.unpack_from("<2f", data, 36)
    if low == high == 0:
        low, high = -_HARMONIC_RANGE, _HARMONIC_RANGE
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"{name}: a .ksplat whose harmonics reach from {low:g} to {high:g}")
    start, parts = _HEADER + sections * _SECTION, []
    for i in range(sections):
        part, start = _section(data, _HEADER + i * _SECTION, start, level, (low, high), name)
        if part is not None:
            parts.append(part)
    found = sum(len(part["mean"]) for part in parts)
    if found != count:
        raise InputError(f"{name}: a .ksplat of {count} Gaussians whose sections hold {found}")
    widths = {part["harmonics"].shape[1] for part in parts}
    most = max(widths)
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key != "harmonics"}
    rest = [np.pad(p["harmonics"], ((0, 0), (0, most - p["harmonics"].shape[1]), (0, 0))) for p in parts]
    rgba = whole["rgba"] / 255.0
    return from_arrays(
        whole["mean"], np.log(positive_scales(whole["scale"], name)), whole["quat"], rgba[:, 3],
        (rgba[:, :3] - 0.5) / SH_C0, np.concatenate(rest),
    )  # fmt: skip


def _section(
    data: bytes, head: int, start: int, level: int, between: tuple[float, float], name: str
) -> tuple[dict[str, Array] | None, int]:
    """The rows of one section, None where it is empty, and where the next one starts."""
    count, room, size, buckets = struct.unpack_from("<4I", data, head)
    (block,) = struct.unpack_from("<f", data, head + 16)
    (per_bucket,) = struct.unpack_from("<H", data, head + 20)
    (reach,) = struct.unpack_from("<I", data, head + 24)
    full, partial = struct.unpack_from("<2I", data, head + 32)
    (degree,) = struct.unpack_from("<H", data, head + 40)
    if degree > 2 or count > room:
        raise InputError(
            f"{name}: a section of a .ksplat with {count} of {room} Gaussians of degree {degree}, which "
            "cannot be"
        )
    row = _row(level, 3 * _HARMONICS[degree])
    centres = start + 4 * partial
    rows = centres + per_bucket * buckets
    if rows + row.itemsize * room > len(data) or (buckets and per_bucket < 12):
        raise InputError(f"{name}: truncated .ksplat, {room} Gaussians promised")
    end = rows + row.itemsize * room
    if not count:
        return None, end
    table = np.frombuffer(data, row, count, rows)
    means = table["mean"].astype(np.float64)
    if level:
        sizes = np.frombuffer(data, "<u4", partial, start)
        bucket = _buckets(count, size, full, sizes, buckets, name)
        middle: Array = np.ndarray((buckets, 3), "<f4", data, centres, (per_bucket, 4))
        step = block / 2 / (reach or _RANGE)
        means = (means - (reach or _RANGE)) * step + middle[bucket].astype(np.float64)
    out = {
        "mean": means, "scale": table["scale"].astype(np.float64), "quat": table["quat"].astype(np.float64),
        "rgba": table["rgba"], "harmonics": _harmonics(table["rest"], level, degree, between),
    }  # fmt: skip
    return out, end


def _row(level: int, rest: int) -> np.dtype[Any]:
    wide, kind = ("<f4", "<f4") if level == 0 else ("<u2", "<f2")
    harmonic = "u1" if level == 2 else kind
    return np.dtype(
        [
            ("mean", wide, 3),
            ("scale", kind, 3),
            ("quat", kind, 4),
            ("rgba", "u1", 4),
            ("rest", harmonic, rest),
        ]
    )


def _buckets(count: int, size: int, full: int, partial: Array, buckets: int, name: str) -> Array:
    """The bucket of each row: full ones first, then those of the sizes that are told."""
    sizes = np.concatenate([np.full(min(full, count), size, np.int64), partial.astype(np.int64)])
    which = np.searchsorted(np.cumsum(sizes), np.arange(count), side="right")
    if which.max() >= min(buckets, len(sizes)):
        raise InputError(f"{name}: a .ksplat whose {buckets} blocks do not hold its {count} Gaussians")
    return which


def _harmonics(rest: Array, level: int, degree: int, between: tuple[float, float]) -> Array:
    """[N, K, 3] of degree 1 red 3, green 3, blue 3, then degree 2 red 5, green 5, blue 5."""
    values = rest.astype(np.float64)
    if level == 2:
        values = between[0] + values / 255 * (between[1] - between[0])
    out, at = np.zeros((len(values), _HARMONICS[degree], 3)), 0
    for band in range(1, degree + 1):
        width = 2 * band + 1
        part = values[:, at : at + 3 * width].reshape(-1, 3, width)
        out[:, band**2 - 1 : (band + 1) ** 2 - 1] = part.transpose(0, 2, 1)
        at += 3 * width
    return out
