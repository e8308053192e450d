"""Video files in and out: what a browser plays, and what people bring as an orbit.

Writing gives H.264 in mp4 with yuv420p (the one pixel format every browser decodes), BT.709 colours that are
also tagged as such, even sizes (an odd edge is repeated once) and the index at the front of the file.
Reading takes whatever FFmpeg's libraries decode (mp4, webm, gif, ...), turns the picture by the rotation its
metadata asks for, keeps transparency where the file has it, and refuses what is broken in one line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.errors import InputError
from orbit4d.datasets.remote import local_path

if TYPE_CHECKING:
    import av

Frames = npt.NDArray[np.uint8]

#: More frames than this are refused: an orbit video has tens of them, and memory grows with each.
MAX_FRAMES = 1000
#: Frames whose gaps differ from the median gap by more than this share of it make a variable-rate video.
UNEVEN_GAP = 0.3
#: Gaps may also differ by this many seconds: gif counts hundredths, so honest constant rates wobble.
CLOCK_ROUNDING = 0.0105
#: FFmpeg's number for BT.709, the same for matrix, primaries and transfer.
_BT709 = 1
_MPEG_RANGE = 1
_UNSPECIFIED = 2


@dataclass(frozen=True)
class Video:
    """Decoded frames with their times."""

    frames: Frames
    """[F, H, W, 3], or [F, H, W, 4] straight RGBA where the file carries transparency."""
    seconds: npt.NDArray[np.float64]
    """Presentation time of each frame, [F], starting at 0."""
    rotation_deg: int = 0
    """Counter-clockwise turn that the metadata asked for; already applied to `frames`."""

    @property
    def uneven(self) -> bool:
        """Whether the frame rate varies."""
        gaps = np.diff(self.seconds)
        if len(gaps) < 2:
            return False
        middle = float(np.median(gaps))
        return bool(np.abs(gaps - middle).max() > max(UNEVEN_GAP * middle, CLOCK_ROUNDING))


def write_video(path: str | os.PathLike[str], frames: Frames, fps: float = 8.0, crf: int = 12) -> None:
    """Write frames [F, H, W, 3] uint8 as an mp4 that browsers play.

    `crf` is x264's quality: 0 lossless, 12 looks like the source, 23 is x264's own default. The file appears
    under its name only when it is complete. InputError for frames of another kind or an unwritable path.
    """
    import av

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"{path}: frames must be uint8 [F, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    if not fps > 0:
        raise InputError(f"{path}: the frame rate must be positive, got {fps}")
    height, width = frames.shape[1:3]
    if width % 2 or height % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    target = local_path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with av.open(
            os.path.abspath(partial), "w", format="mp4", options={"movflags": "+faststart"}
        ) as container:
            _encode(container, frames, fps, crf)
        os.replace(partial, target)
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise InputError(f"{target}: {reason}; choose another place for the video") from error
    finally:
        if partial.exists():
            partial.unlink()


def _steady() -> dict[str, str]:
    """Keeps libx264 off its AVX-512 code, which gave another picture in about one file of forty (av 18.0).

    AVX2 is named only where the processor has AVX-512, and so AVX2 too: x264 takes such a name on trust.
    """
    try:
        wide = "avx512" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {"x264-params": "asm=avx2"} if wide else {}


def _encode(container: av.container.OutputContainer, frames: Frames, fps: float, crf: int) -> None:
    import av
    from av.video.reformatter import Colorspace

    rate = fps if isinstance(fps, int) else _fraction(fps)
    options = {"crf": str(crf), "preset": "medium", **_steady()}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _MPEG_RANGE
    # One thread: x264 divides the rate control by threads, and the file should not depend on the machine.
    context.thread_count = 1
    for index, rgb in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts = index
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _fraction(fps: float):
    from fractions import Fraction

    return Fraction(fps).limit_denominator(1001)


def read_video(
    path: str | os.PathLike[str], max_frames: int = MAX_FRAMES, max_edge: int | None = None
) -> Video:
    """Decode a whole video.

    `max_edge` shrinks frames whose longer edge is larger (area filter), so that large footage fits in memory.
    InputError, one line: no such file, not a video, damaged, no frames, more than `max_frames`.
    """
    import av

    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source}: no such file; give an mp4, webm or gif")
    if source.stat().st_size == 0:
        raise InputError(f"{source}: the file is empty; give an mp4, webm or gif")
    try:
        with av.open(os.path.abspath(source), mode="r") as container:
            if not container.streams.video:
                raise InputError(f"{source}: holds no pictures; give an mp4, webm or gif")
            return _decode(source, container, max_frames, max_edge)
    except av.FFmpegError as error:
        raise InputError(
            f"{source}: damaged or not a video ({error.strerror}); write it again, or give a folder of frames"
        ) from error


def _decode(
    source: Path, container: av.container.InputContainer, max_frames: int, max_edge: int | None
) -> Video:
    stream = container.streams.video[0]
    too_many = InputError(
        f"{source}: holds more than {max_frames} frames; cut it to one orbit, or keep every k-th frame"
    )
    if stream.frames > max_frames:
        raise too_many
    # Damage is reported instead of painted over with grey blocks.
    stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    frames: list[Frames] = []
    seconds: list[float] = []
    rotation = 0
    for frame in _frames(container, stream):
        if len(frames) == max_frames:
            raise too_many
        if frame.is_corrupt:
            raise InputError(f"{source}: frame {len(frames)} is damaged; write the video again")
        if not frames:
            rotation = round(frame.rotation) % 360
        picture = _to_rgb(frame, max_edge)
        if rotation:
            if rotation % 90:
                raise InputError(f"{source}: rotated by {rotation} degrees; write it upright")
            picture = np.ascontiguousarray(np.rot90(picture, rotation // 90))
        if frames and picture.shape != frames[0].shape:
            sizes = f"{frames[0].shape[1]}x{frames[0].shape[0]} and {picture.shape[1]}x{picture.shape[0]}"
            raise InputError(f"{source}: frames of different sizes ({sizes}); write it with one size")
        frames.append(picture)
        seconds.append(float(frame.time) if frame.time is not None else float(len(frames) - 1))
    if not frames:
        raise InputError(f"{source}: holds no frames; write the video again")
    expected = stream.frames
    if expected and len(frames) < expected:
        raise InputError(
            f"{source}: damaged: {len(frames)} of {expected} frames can be read; write the video again"
        )
    times = np.asarray(seconds) - seconds[0]
    if np.any(np.diff(times) < 0):
        raise InputError(f"{source}: its frames are out of order; write the video again")
    return Video(np.stack(frames), times, rotation)


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


def _to_rgb(frame: av.VideoFrame, max_edge: int | None) -> Frames:
    from av.video.reformatter import Colorspace, Interpolation

    # Palettes decode to bgra; of the rest, formats with a fourth component carry alpha.
    alpha = len(frame.format.components) in (2, 4) or frame.format.name == "pal8"
    width, height = frame.width, frame.height
    options: dict[str, Any] = {}
    if max_edge is not None and max(width, height) > max_edge:
        shrink = max_edge / max(width, height)
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        options["interpolation"] = Interpolation.AREA
    if not frame.format.is_rgb and int(frame.colorspace) in (0, _UNSPECIFIED):
        # Untagged files follow the old habit: standard definition is BT.601, larger is BT.709.
        options["src_colorspace"] = Colorspace.ITU601 if frame.height <= 576 else Colorspace.ITU709
    picture = frame.reformat(width=width, height=height, format="rgba" if alpha else "rgb24", **options)
    return np.asarray(picture.to_ndarray(), dtype=np.uint8)
