"""`.4dgs` (avala-ai/4dgs, version 1) of the model gaussian-birth, read: the Gaussians and their windows."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.windows import WindowField
from orbit4d.recon4d.export.fourdgs import MAGIC
from orbit4d.recon4d.export.packing import from_arrays, from_largest
from orbit4d.recon4d.export.reading.attribute_streams import Cursor, Damaged, stream
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

Array = npt.NDArray[Any]
_HEADER, _FOOTER, _QUANTIZATION, _WINDOWS, _CHUNK, _BAND = 1, 2, 3, 4, 5, 7
_FRAME, _TRACK = 0x20, 0x25
#: Grid of motion: by the time that a Gaussian is there, in classes of powers of two about the first.
_LIFE, _LEAST_LIFE, _MOST_LIFE, _CLASSES = 0.5, 0.02, 2.0, (-4, 2)
#: Grid of the peak of a Gaussian that fades: at most so much of its bell, in at most so many halvings.
_OF_BELL, _HALVINGS = 0.05, -10
#: A last window that is longer by less than this share of the one before it was so written for its half-open
#: end: the clip ends where it would without.
_TAIL = 1 / 16
#: What a file says of its axes -> what they are called here.
_AXES = {"z-up-right-handed": "z-up", "y-up-right-handed": "y-up"}
#: Axes of a Coordinate Frame record: x y z -x -y -z.
_UP = {1: "y-up", 2: "z-up"}
#: A Coordinate Frame that is left-handed.
_LEFT = 2
#: A file cannot hold more Gaussians than this for each of its bytes: constant streams repeat.
_MOST_A_BYTE = 256


@dataclass
class _File:
    """What the records of a file say."""

    library: str = ""
    seconds: float = 0.0
    count: int = 0
    cutoff: float = 0.05
    model: str = ""
    degree: int = 0
    axes: str = "file"
    origin: Array = field(default_factory=lambda: np.zeros(3))
    steps: Array = field(default_factory=lambda: np.zeros(0))
    sh_step: int = 1
    windows: Array = field(default_factory=lambda: np.zeros((0, 2)))
    chunks: list[dict[int, Array]] = field(default_factory=list)
    bands: list[dict[int, Array]] = field(default_factory=list)
    tracks: int = 0
    mirrored: bool = False


def read_fourdgs(
    data: bytes, name: str, notes: list[str] | None = None
) -> tuple[Gaussians, WindowField, str]:
    """The Gaussians of all windows, numbers as stored, the field that shows them, and their axes.

    Axes are z-up, y-up, or file where it says none. `notes` receives what was left out. InputError for
    another model, and for a file that is cut or damaged.
    """
    told = _File()
    try:
        for opcode, body in _records(data):
            _take(told, opcode, Cursor(body), len(data))
        if told.model != "gaussian-birth":
            raise InputError(
                f"{name}: a .4dgs of the model {told.model[:40]!r}; gaussian-birth is read, which `fourdgs "
                "convert` writes from a PLY sequence"
            )
        if told.mirrored:
            raise InputError(
                f"{name}: left-handed axes, in which all would be seen mirrored; convert it first"
            )
        gaussians, field = _decoded(told)
    except (Damaged, struct.error, UnicodeDecodeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{name}: a damaged .4dgs ({type(error).__name__}: {error})") from None
    if told.tracks and notes is not None:
        notes.append(f"{name}: {told.tracks} object tracks are left out: their objects stay in place")
    return gaussians, field, told.axes


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of each record of a whole file."""
    if data[:8] != MAGIC:
        raise Damaged("not version 1 of the format")
    at, end, ended = 8, len(data) - 8, False
    while at + 9 <= end:
        opcode, size = struct.unpack_from("<BQ", data, at)
        if size > end - at - 9:
            raise Damaged("cut in the middle of a record")
        body = data[at + 9 : at + 9 + size]
        if opcode == _FOOTER:
            first, _, told = struct.unpack_from("<QQI", body)
            if first and told and zlib.crc32(data[first:at]) != told:
                raise Damaged("the checksum of its index")
            ended = True
        yield opcode, body
        at += 9 + size
    if not ended or at != end or data[end:] != MAGIC:
        raise Damaged("cut before its end")


def _take(told: _File, opcode: int, body: Cursor, size: int) -> None:
    if opcode == _HEADER:
        body.text()
        told.library = body.text()
        told.seconds, told.count, told.cutoff = (
            *body.numbers("d", 1),
            *body.numbers("Q", 1),
            *body.numbers("d", 1),
        )
        told.model = body.text()
        body.numbers("d", 6)
        told.degree = body.numbers("B", 2)[0]
        told.axes = _AXES.get(body.texts().get("coordinate_system", ""), "file")
        if not (0 < told.cutoff <= 1 and math.isfinite(told.seconds) and told.seconds >= 0):
            raise Damaged(f"a cutoff of {told.cutoff:g}, {told.seconds:g} s")
        if not 0 < told.count <= _MOST_A_BYTE * size or told.degree > 3:
            raise Damaged(f"{told.count} Gaussians of degree {told.degree} in {size} bytes")
    elif opcode == _QUANTIZATION:
        if (scheme := body.text()) != "uniform-v1":
            raise Damaged(f"a grid of kind {scheme[:40]!r}")
        told.origin, told.steps = np.array(body.numbers("d", 3)), np.array(body.numbers("d", 8))
        told.sh_step = body.numbers("B", 1)[0]
        if not np.isfinite([*told.origin, *told.steps]).all() or (told.steps <= 0).any() or not told.sh_step:
            raise Damaged("steps of its grid that are none")
    elif opcode == _WINDOWS:
        count = body.numbers("I", 1)[0]
        told.windows = np.array(body.numbers("d", 2 * count)).reshape(-1, 2)
    elif opcode == _CHUNK:
        told.chunks.append(_chunk(body, told.count))
        told.bands.append({})
    elif opcode == _BAND and told.bands:
        band = body.numbers("B", 1)[0]
        told.bands[-1][band] = stream(body, told.count)[1]
    elif opcode == _FRAME:
        body.text()
        right, up = body.numbers("B", 2)
        told.axes, told.mirrored = _UP.get(up, "file"), right == _LEFT
    elif opcode == _TRACK:
        told.tracks += 1


def _chunk(body: Cursor, most: int) -> dict[int, Array]:
    """Attribute -> whole numbers [n, channels] of one chunk."""
    body.numbers("d", 2)
    _, count = body.numbers("I", 2)
    codec, plain = body.text(), body.numbers("Q", 1)[0]
    packed = Cursor(body.take(body.numbers("Q", 1)[0]))
    inside = packed if not codec else Cursor(packed.unpacked(codec, plain))
    found: dict[int, Array] = {}
    while inside.left:
        attribute, values = stream(inside, most)
        if attribute <= 10 and len(values) != count:
            raise Damaged(f"attribute {attribute} of {len(values)} Gaussians in a chunk of {count}")
        found[attribute] = values
    if lacking := set(range(11)) - set(found):
        raise Damaged(f"a chunk without attribute {min(lacking)}")
    return found


def _decoded(told: _File) -> tuple[Gaussians, WindowField]:
    if not len(told.steps) or not told.chunks:
        raise Damaged("no grid or no Gaussians")
    raw = {key: np.concatenate([chunk[key] for chunk in told.chunks]) for key in range(11)}
    n = len(raw[0])
    if n != told.count:
        raise Damaged(f"{n} Gaussians where its header says {told.count}")
    for key, channels in enumerate((3, 3, 1, 3, 3, 1, 3, 1, 1, 1, 1)):
        if raw[key].shape[1] != channels:
            raise Damaged(f"attribute {key} with {raw[key].shape[1]} numbers")
    position, log_scale, rotation, rgb, alpha, motion, tick, log_sigma = told.steps
    windows = told.windows if len(told.windows) else np.zeros((1, 2))
    which = raw[10][:, 0]
    if which.min() < 0 or which.max() >= len(windows) or not np.isfinite(windows).all():
        raise Damaged("windows that are none")
    largest = raw[2][:, 0]
    if largest.min() < 0 or largest.max() > 3:
        raise Damaged("rotations that are none")
    window, never = windows[which], (raw[9][:, 0] & 1).astype(bool)
    sigma = np.exp(np.clip(raw[8][:, 0] * log_sigma, -700, 700))
    support = math.sqrt(-2 * math.log(told.cutoff)) if told.cutoff < 1 else 0.0
    life = np.where(never, window[:, 1] - window[:, 0], support * sigma).clip(_LEAST_LIFE, _MOST_LIFE)
    shrink = np.clip(np.ceil(np.log2(life / _LIFE)), *_CLASSES)
    fine = np.where(never, tick, np.minimum(tick, _OF_BELL * sigma)) / tick
    peak = raw[7][:, 0] * tick * 2.0 ** np.clip(np.floor(np.log2(np.maximum(fine, 1e-30))), _HALVINGS, 0)
    green, red, blue = raw[4].T
    colors = np.stack([red + green, green, blue + green], 1) * rgb
    # x y z w in the file.
    turned = from_largest(largest, np.clip(raw[3] * rotation, -1, 1))[:, [3, 0, 1, 2]]
    gaussians = from_arrays(
        raw[0] * position + told.origin, raw[1] * log_scale, turned, np.clip(raw[5][:, 0] * alpha, 0, 1),
        (colors - 0.5) / SH_C0, _harmonics(told, n),
    )  # fmt: skip
    field = WindowField(n, _span(told, windows), told.cutoff)
    field.motion[:] = torch.from_numpy(raw[6] * (motion * 2.0**-shrink)[:, None])
    field.peak[:] = torch.from_numpy(peak)
    field.fading[:] = torch.from_numpy(np.where(never, 0.0, 1 / sigma))
    field.window[:] = torch.from_numpy(window)
    return gaussians, field


def _span(told: _File, windows: Array) -> float:
    """Seconds from the first moment to the last."""
    seconds, ends = told.seconds, np.unique(windows, axis=0)
    if told.library == "orbit4d":
        seconds -= float(told.steps[6])  # the last window is written a tick longer
    elif len(ends) > 1:
        before, last = (float(hi - lo) for lo, hi in ends[-2:])
        if 0 < last - before < _TAIL * before and abs(ends[-1, 1] - seconds) < 1e-6 * max(seconds, 1e-6):
            seconds -= last - before
    if seconds <= 0:
        raise Damaged("a clip of 0 s")
    return seconds


def _harmonics(told: _File, n: int) -> Array:
    """[N, K, 3]; a byte b means -4 + 8 b / 255."""
    present = sorted({band for bands in told.bands for band in bands})
    if present != list(range(1, len(present) + 1)) or len(present) > 3:
        raise Damaged(f"harmonics of degrees {present}")
    out = np.zeros((n, (len(present) + 1) ** 2 - 1, 3))
    at = 0
    for chunk, bands in zip(told.chunks, told.bands):
        count = len(chunk[0])
        for band in present:
            values = bands[band]
            if values.shape != (count, 3 * (2 * band + 1)):
                raise Damaged(f"harmonics of degree {band} for {len(values)} Gaussians beside {count}")
            coded = (values * told.sh_step).reshape(count, 3, -1).transpose(0, 2, 1)
            out[at : at + count, band**2 - 1 : (band + 1) ** 2 - 1] = -4 + 8 * coded / 255
        at += count
    return out
