"""A video's frames, decoded one by one and turned into the images that a player shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.display import (
    deinterlaced,
    orientation,
    oriented,
    pixel_aspect,
    square_size,
    to_srgb,
    unlike_srgb,
)

if TYPE_CHECKING:
    import av

Frames = npt.NDArray[np.uint8]
_UNSPECIFIED = 2
_BT2020 = 9
#: How the comment of a padded file names its true size.
_TRUE_SIZE = re.compile(r"orbit4d size (\d+)x(\d+)")


def true_size_comment(width: int, height: int) -> str:
    """What a file whose odd edges were repeated says of its true size."""
    return f"orbit4d size {width}x{height}"


@dataclass
class Shown:
    """What the first frame tells of the whole video."""

    how: tuple[bool, bool, bool] = (False, False, False)
    rotation: int = 0
    aspect: Fraction | None = None
    size: tuple[int, int] = (0, 0)
    stored_size: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)


def pictures(
    source: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    max_edge: int | None,
    shown: Shown,
) -> Iterator[tuple[Frames, float | None]]:
    """Images as shown, with their times; fills `shown`."""
    true = _TRUE_SIZE.search(container.metadata.get("comment", ""))
    whole: tuple[int, int] | None = (int(true[1]), int(true[2])) if true else None
    count = fields = 0
    for frame, interlaced in deinterlaced(_checked(source, container, stream, shown), stream):
        if count == 0:
            if whole and (frame.width, frame.height) != (whole[0] + whole[0] % 2, whole[1] + whole[1] % 2):
                whole = None  # Another program has changed the images since.
            _look(frame, whole, shown)
        fields += interlaced
        image = _to_rgb(frame, max_edge, shown.aspect, whole)
        yield oriented(image, shown.how), float(frame.time) if frame.time is not None else None
        count += 1
    if fields:
        shown.notes.append(f"interlaced: {fields} of {count} frames deinterlaced (bwdif)")


def _checked(
    source: Path, container: av.container.InputContainer, stream: av.VideoStream, shown: Shown
) -> Iterator[av.VideoFrame]:
    """Decoded frames; refuses damaged ones, and takes orientation and pixel aspect from the first."""
    for index, frame in enumerate(_frames(container, stream)):
        if frame.is_corrupt:
            raise InputError(f"{source}: frame {index} is damaged; write the video again")
        if index == 0:
            shown.rotation = round(frame.rotation) % 360
            how = orientation(frame)
            if how is None:
                raise InputError(f"{source}: rotated by {shown.rotation} degrees; write it upright")
            shown.how, shown.aspect = how, pixel_aspect(frame, stream)
        yield frame


def _look(frame: av.VideoFrame, whole: tuple[int, int] | None, shown: Shown) -> None:
    """Sizes and notes of the first frame."""
    stored = whole or (frame.width, frame.height)
    square = square_size(*stored, shown.aspect)
    if shown.how[0]:
        shown.stored_size, shown.size = (stored[1], stored[0]), (square[1], square[0])
    else:
        shown.stored_size, shown.size = stored, square
    if square != stored:
        sizes = f"{stored[0]}x{stored[1]} are shown as {square[0]}x{square[1]}"
        shown.notes.append(f"pixel aspect {shown.aspect}: frames of {sizes}")
    if colours := unlike_srgb(frame):
        shown.notes.append(colours)


def _frames(container, stream):
    """Decoded frames in order; VP8/VP9 with an alpha layer go through libvpx, which alone decodes it."""
    import av

    name = stream.codec_context.name
    alpha = {k.lower(): v for k, v in stream.metadata.items()}.get("alpha_mode") == "1"
    if not (alpha and name in ("vp8", "vp9")):
        yield from container.decode(stream)
        return
    decoder: Any = av.CodecContext.create("libvpx" if name == "vp8" else "libvpx-vp9", "r")
    for packet in container.demux(stream):
        for frame in decoder.decode(packet):
            if frame.time_base is None:
                frame.time_base = stream.time_base
            yield frame


def _to_rgb(
    frame: av.VideoFrame,
    max_edge: int | None,
    aspect: Fraction | None = None,
    whole: tuple[int, int] | None = None,
) -> Frames:
    """uint8 [H, W, 3 or 4] sRGB of a decoded frame; `whole` cuts repeated edges off first."""
    from av.video.reformatter import Colorspace, Interpolation

    # Palettes decode to bgra; of the rest, formats with a fourth component carry alpha.
    alpha = len(frame.format.components) in (2, 4) or frame.format.name == "pal8"
    deep = bool(unlike_srgb(frame))
    options: dict[str, Any] = {}
    if not frame.format.is_rgb and int(frame.colorspace) in (0, _UNSPECIFIED):
        # Untagged files follow the old habit: standard definition is BT.601, larger is BT.709.
        small = Colorspace.ITU601 if frame.height <= 576 else Colorspace.ITU709
        options["src_colorspace"] = Colorspace.BT2020 if int(frame.color_primaries) == _BT2020 else small
    if whole is not None:
        # At full size: cutting after a reduction would cut another share.
        cut = frame.reformat(format="rgba" if alpha else "rgb24", **options).to_ndarray()
        cut = np.ascontiguousarray(cut[: whole[1], : whole[0]])
        frame = type(frame).from_ndarray(cut, format="rgba" if alpha else "rgb24")
        deep, options = False, {}
    width, height = square_size(frame.width, frame.height, aspect)
    if max_edge is not None and max(width, height) > max_edge:
        shrink = max_edge / max(width, height)
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        options["interpolation"] = Interpolation.AREA
    if deep:
        kind = "rgba64le" if alpha else "rgb48le"
        image = frame.reformat(width=width, height=height, format=kind, **options)
        coded = image.to_ndarray().astype(np.float32) / 65535
        shown = to_srgb(coded[..., :3], int(frame.color_trc), int(frame.color_primaries))
        shown = np.concatenate([shown, coded[..., 3:]], axis=-1)
        return np.asarray(shown * 255 + 0.5, dtype=np.uint8)
    image = frame.reformat(width=width, height=height, format="rgba" if alpha else "rgb24", **options)
    return np.asarray(image.to_ndarray(), dtype=np.uint8)
