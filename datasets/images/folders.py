"""Images from files: one reader for frames, masks, photos and whatever a folder holds.

Whatever the file stores (palettes with transparency, 16 bits a channel, grey, CMYK, a colour profile, an EXIF
orientation), the result is straight RGBA of 8 bits in sRGB, upright. Files are listed in natural order,
without hidden ones.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally

Pixels = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = (
    ".png", ".webp", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".tga", ".ppm", ".pgm", ".avif",
)  # fmt: skip
#: What Pillow raises for files that are no image or a broken one.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_ORIENTATION = 0x0112


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Image files of a folder in natural order; hidden files, `._` twins of macOS among them, are left out.

    InputError where the folder cannot be read; a path that is no folder holds none.
    """
    root = Path(folder)
    try:
        inside = list(root.iterdir()) if root.is_dir() else []
        return naturally(
            path
            for path in inside
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror})") from None


def read_image(path: str | os.PathLike[str], max_edge: int | None = None) -> Pixels:
    """One image file as straight RGBA, uint8 [H, W, 4], upright.

    `max_edge` reduces it by areas until its longer edge has that many pixels. InputError, one line, for what
    is no image or a broken one.
    """
    return read_sized_image(path, max_edge)[0]


def read_sized_image(
    path: str | os.PathLike[str], max_edge: int | None = None
) -> tuple[Pixels, tuple[int, int]]:
    """`read_image`, and the upright image's (width, height) before it was reduced."""
    image = upright(path)
    return np.array(reduced(image, max_edge)), image.size


def read_images(
    folder_or_files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], max_edge: int | None = None
) -> Pixels:
    """All images of a folder in natural order, or the files given in theirs, upright: straight RGBA
    as uint8 [N, H, W, 4].

    They are reduced one by one, so that memory is that of the result. InputError where there is none, or
    where their sizes differ.
    """
    if isinstance(folder_or_files, str | os.PathLike):
        name, files = os.fspath(folder_or_files), image_files(folder_or_files)
    else:
        name, files = "the given images", [Path(file) for file in folder_or_files]
    if not files:
        raise InputError(f"{name}: no image in this folder; give a video or a folder of frames")
    out: Pixels | None = None
    first: tuple[int, int] = (0, 0)
    for i, file in enumerate(files):
        pixels, size = read_sized_image(file, max_edge)
        if out is None:
            out, first = np.empty((len(files), *pixels.shape), np.uint8), size
        check_same_size(name, files[0], first, file, size)
        out[i] = pixels
    assert out is not None
    return out


def check_same_size(
    name: str, file: Path, size: tuple[int, int], other: Path, other_size: tuple[int, int]
) -> None:
    """InputError with both sizes (width, height) where two images of one folder differ."""
    if size != other_size:
        raise InputError(
            f"{name}: frames of different sizes ({file.name} {size[0]}x{size[1]}, {other.name} "
            f"{other_size[0]}x{other_size[1]}); resize them to one"
        )


def upright(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as a PIL image of mode RGBA, turned as its EXIF data ask. InputError if unreadable."""
    try:
        with Image.open(path) as image:
            return to_rgba(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an image (png, jpg, webp, tif)") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable image ({_why(error)})") from None


def rgba_of(source: IO[bytes] | Image.Image) -> Pixels:
    """Straight RGBA, uint8 [H, W, 4], of an open file or a PIL image. Raises one of UNREADABLE."""
    if isinstance(source, Image.Image):
        return np.array(to_rgba(source))
    with Image.open(source) as image:
        return np.array(to_rgba(image))


def reduced(image: Image.Image, max_edge: int | None) -> Image.Image:
    """The image averaged over areas until its longer edge has `max_edge` pixels; smaller ones stay.

    Pillow weighs colours by alpha, so that those of transparent pixels do not bleed in.
    """
    w, h = image.size
    if max_edge is None or max(w, h) <= max_edge:
        return image
    size = max(1, round(w * max_edge / max(w, h))), max(1, round(h * max_edge / max(w, h)))
    return image.resize(size, Image.Resampling.BOX)


def to_rgba(image: Image.Image) -> Image.Image:
    """An open image as mode RGBA, upright."""
    image.load()
    # Colours first: a palette's transparency must not be lost in the turn.
    return _turned(_eight_bits(image), image)


def upright_plane(image: Image.Image) -> Image.Image:
    """An open image in its own mode, upright: labels of a mask stay labels."""
    image.load()
    return _turned(image, image)


#: EXIF orientation -> how an image is turned to stand upright (CIPA DC-008, section 4.6.4).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(image: Image.Image, described: Image.Image) -> Image.Image:
    turn = _TURNS.get(described.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGBA of any mode. Values of 16 bits become the nearest of 8; floats are taken to lie in [0, 1]."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.dtype.kind == "f":
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
                raise ValueError("floating-point values outside [0, 1]")
            grey = np.rint(values * 255)
        else:
            grey = np.rint(values.astype(np.float64).clip(0, 65535) / 257)
        alpha = np.full(grey.shape, 255.0)
        if isinstance(clear := image.info.get("transparency"), int):
            alpha[values == clear] = 0
        return Image.fromarray(np.stack([grey, grey, grey, alpha], -1).astype(np.uint8))
    if image.mode == "LAB":
        raise ValueError("CIELAB colours; save it as RGB")
    if image.mode == "La":
        image = image.convert("LA")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and any(value > 255 for value in clear):
        # PNG names it with 16 bits where the image has them; Pillow keeps the upper 8 of the pixels.
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    image = _in_srgb(image)
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _in_srgb(image: Image.Image) -> Image.Image:
    """The image with the colours that its embedded profile means (Display P3, Adobe RGB, CMYK); as it is
    without one, under sRGB, and where the profile is broken.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        wanted = "RGB" if image.mode == "CMYK" else image.mode
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, srgb, outputMode=wanted) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _why(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
