"""Depth maps in files: .npy, .exr, .pfm, 16-bit .png. Float32 [H, W] along the view axis; inf: nothing
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.model.guided.depth.exr import read_exr
from orbit4d.model.guided.warp import check_depth

Floats = npt.NDArray[np.float32]

ENDINGS = (".npy", ".exr", ".png", ".pfm")
#: Units of a 16-bit value: a thousandth, as most sensors and data sets store millimetres.
PNG_SCALE = 0.001


def read_depths(path: Path, sizes: Sequence[tuple[int, int]], png_scale: float = PNG_SCALE) -> list[Floats]:
    """One depth map for each image of (width, height), from a file or a folder in natural order.

    A .npy may hold several, [F, H, W]. InputError, one line, for another number of maps, another size than
    its image's, and depth with NaN, negative or nothing but infinite values.
    """
    files = [path]
    if path.is_dir():
        names = naturally([p.name for p in path.iterdir() if p.suffix.lower() in ENDINGS])
        files = [path / name for name in names]
        if not files:
            raise InputError(f"--depth {path}: no depth in this folder; give {', '.join(ENDINGS)} files")
    maps, names = [], []
    for file in files:
        found = read_depth(file, png_scale)
        stack = [found] if found.ndim == 2 else list(found)
        maps += stack
        names += [str(file) if len(stack) == 1 else f"{file} [{i}]" for i in range(len(stack))]
    if len(maps) != len(sizes):
        raise InputError(f"--depth {path}: {len(maps)} depth maps for {len(sizes)} images; give one each")
    for depth, name, (width, height) in zip(maps, names, sizes):
        if depth.shape != (height, width):
            raise InputError(
                f"{name}: depth is {depth.shape[1]}x{depth.shape[0]}, its image is {width}x{height}; "
                "give depth of the image's size"
            )
        checked(depth, name)
    return maps


def checked(depth: Floats, name: str) -> None:
    """InputError for depth with NaN, negative or nothing but infinite values."""
    try:
        check_depth(depth, name)
    except ValueError as error:
        raise InputError(str(error)) from None


def read_depth(file: Path, png_scale: float = PNG_SCALE) -> Floats:
    """A depth map [H, W], or [F, H, W] of an .npy. InputError for what is none."""
    if not file.is_file():
        raise InputError(f"--depth {file}: no such file or folder")
    kind = file.suffix.lower()
    if kind == ".npy":
        try:
            array = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{file}: not a readable array ({error})") from None
        if array.ndim not in (2, 3) or array.dtype.kind not in "fiu":
            raise InputError(f"{file}: depth is numbers [H, W], this is {array.dtype} {array.shape}")
        return array.astype(np.float32)
    if kind == ".exr":
        return read_exr(file)
    if kind == ".pfm":
        return _pfm(file)
    if kind == ".png":
        return _png(file, png_scale)
    raise InputError(f"{file}: depth comes as {', '.join(ENDINGS)}")


def _png(file: Path, scale: float) -> Floats:
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in ("I;16", "I;16B", "I"):
                raise InputError(f"{file}: depth as .png has 16 bits and one channel, this is {image.mode}")
            values = np.asarray(image).astype(np.float32)
    except OSError as error:
        raise InputError(f"{file}: not a readable image ({error})") from None
    return np.where(values > 0, values * np.float32(scale), np.float32(np.inf)).astype(np.float32)


def _pfm(file: Path) -> Floats:
    """Rows are stored bottom up; the sign of the scale line gives the byte order."""
    data = file.read_bytes()
    try:
        kind, size, scale, rest = data.split(b"\n", 3)
        width, height = (int(n) for n in size.split())
        order = "<" if float(scale) < 0 else ">"
        channels = {b"Pf": 1, b"PF": 3}[kind.strip()]
        values = np.frombuffer(rest, f"{order}f4", width * height * channels)
    except (ValueError, KeyError) as error:
        raise InputError(f"{file}: not a readable PFM ({type(error).__name__}: {error})") from None
    return values.reshape(height, width, channels)[::-1, :, 0].astype(np.float32)
