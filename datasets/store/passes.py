"""Stored passes: further images of each frame, as arrays with units and axes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.images.codec import decode


@dataclass(frozen=True)
class Pass:
    """One kind of pass."""

    dtype: str
    channels: int
    meaning: str
    """Unit, axes, and what stands where nothing is hit."""
    empty: float
    """Value where nothing is hit."""


#: What `orbit4d render --passes` stores; each frame is one .npy of [H, W] or [H, W, 3], or one WebP of bytes.
PASSES = {
    "depth": Pass(
        "float32", 1, "distance along the camera's view axis, units of the clip's world; inf: nothing", np.inf
    ),
    "normal": Pass(
        "float16", 3, "unit vector, axes of the clip's world (+Z up, front seen from -Y); 0: nothing", 0.0
    ),
    "mask": Pass("uint16", 1, "1 + number of the object in the order of names; 0: nothing", 0.0),
    "albedo": Pass("uint8", 3, "base colour of the surface at the pixel's centre, sRGB; 0: nothing", 0.0),
    "roughness": Pass("uint8", 1, "roughness there, in 255ths; 0: nothing", 0.0),
    "metallic": Pass("uint8", 1, "metallic there, in 255ths; 0: nothing", 0.0),
    "emission": Pass("float16", 3, "emitted radiance there, linear; 0: nothing", 0.0),
    "position": Pass("float32", 3, "place of the surface there, in the clip's world; 0: nothing", 0.0),
}


def decode_pass(data: bytes, name: str = "pass") -> npt.NDArray[Any]:
    """[H, W] or [H, W, C] of one stored frame, in the type it was stored in; a pass that somebody stored as
    images comes as uint8 [H, W, 4]. Damage raises WorkError."""
    if data[:6] != b"\x93NUMPY":
        known = PASSES.get(name)
        pixels = decode(data)
        if known is None or known.dtype != "uint8":
            return pixels
        return pixels[..., :3] if known.channels == 3 else pixels[..., 0]
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise WorkError(f"cannot decode a {name} of {len(data)} bytes: {error}") from error


def pass_planes(members: Sequence[bytes], name: str, size: tuple[int, int]) -> npt.NDArray[Any]:
    """[F, C, H, W] of a clip's frames at `size` = (width, height): the nearest stored pixel's value, since
    depths, normals and numbers of objects must not be mixed. float32, 255ths in [0, 1], and int64 for numbers
    of objects."""
    frames = []
    for data in members:
        array = decode_pass(data, name)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        h, w = array.shape[:2]
        if (w, h) != size:
            rows = np.minimum((np.arange(size[1]) + 0.5) * h / size[1], h - 1).astype(int)
            columns = np.minimum((np.arange(size[0]) + 0.5) * w / size[0], w - 1).astype(int)
            array = array[rows[:, None], columns]
        frames.append(np.moveaxis(array, 2, 0) if array.ndim == 3 else array[None])
    planes = np.stack(frames)
    if name in PASSES and PASSES[name].dtype == "uint8":
        return planes.astype(np.float32) / np.float32(255.0)
    return planes.astype(np.int64 if planes.dtype.kind in "iu" else np.float32)


def missing_pass(what: str, name: str, stored: Iterable[str]) -> str:
    """One line that says which passes there are instead of `name`."""
    have = ", ".join(sorted(stored)) or "none"
    return f"{what}: no pass {name!r} is stored (stored: {have}); render with --passes {name}"


def pass_names(asked: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, of one name too. Raises InputError for a doubled one."""
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"passes={names!r}: {name!r} is named twice")
    return names
