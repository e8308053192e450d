"""Video files in and out: what a browser plays, and what people bring as an orbit.

Writing gives H.264 in mp4 with yuv420p (the one pixel format every browser decodes), BT.709 colours that are
also tagged as such, even sizes (an odd edge is repeated once, and the true size stands in the file's comment,
by which `read_video` cuts it again) and the index at the front of the file.
Reading takes whatever FFmpeg's libraries decode (mp4, webm, gif, ...) and animated WebP and PNG, shows it as
a player does (`video_display.py`: display matrix, square pixels, no fields, sRGB), keeps transparency where
the file has it, and refuses what is broken in one line.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path
from orbit4d.datasets.videos.animated_image import animated_frames, is_animated_image
from orbit4d.datasets.videos.decode import Frames, Shown, pictures, true_size_comment

if TYPE_CHECKING:
    import av

#: More frames than this are refused: an orbit video has tens of them, and memory grows with each.
MAX_FRAMES = 1000
#: Frames whose gaps differ from the median gap by more than this share of it make a variable-rate video.
UNEVEN_GAP = 0.3
#: Gaps may also differ by this many seconds: gif counts hundredths, so honest constant rates wobble.
CLOCK_ROUNDING = 0.0105
#: FFmpeg's number for BT.709, the same for matrix, primaries and transfer.
_BT709 = 1
_MPEG_RANGE = 1


@dataclass(frozen=True)
class Video:
    """Decoded frames with their times."""

    frames: Frames
    """[F, H, W, 3], or [F, H, W, 4] straight RGBA where the file carries transparency."""
    seconds: npt.NDArray[np.float64]
    """Presentation time of each frame, [F], starting at 0."""
    rotation_deg: int = 0
    """Counter-clockwise turn that the metadata asked for; already applied to `frames`."""
    size: tuple[int, int] = (0, 0)
    """(width, height) of the images as shown, before they were reduced to `max_edge`."""
    stored_size: tuple[int, int] = (0, 0)
    """The same where pixels that are not square are left as they are."""
    notes: tuple[str, ...] = ()
    """What was done so that the images look as a player shows them."""

    @property
    def uneven(self) -> bool:
        """Whether the frame rate varies."""
        gaps = np.diff(self.seconds)
        if len(gaps) < 2:
            return False
        middle = float(np.median(gaps))
        return bool(np.abs(gaps - middle).max() > max(UNEVEN_GAP * middle, CLOCK_ROUNDING))


def write_video(path: str | os.PathLike[str], frames: Frames, fps: float = 8.0, crf: int | None = 12) -> None:
    """Write frames [F, H, W, 3] uint8 as an mp4 that browsers play.

    `crf` is x264's quality: 0 lossless but for the colours' conversion, 12 looks like the source, 23 is
    x264's own default; None stores RGB bit by bit, which browsers do not play. The file appears under its
    name only when it is complete. InputError for frames of another kind or an unwritable path.
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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing_file(target) as draft,
            av.open(
                os.path.abspath(draft), "w", format="mp4", options={"movflags": "+faststart"}
            ) as container,
        ):
            if frames.shape[1:3] != (height, width):
                container.metadata["comment"] = true_size_comment(width, height)
            _encode(container, frames, fps, crf)
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise InputError(f"{target}: {reason}; choose another place for the video") from error


def encode_mp4(frames: Frames, fps: float, crf: int | None) -> bytes:
    """The bytes of an mp4 as `write_video` makes it; `crf` None is RGB without loss, which browsers do not
    play. Equal frames give equal bytes, whatever the machine's cores."""
    with tempfile.TemporaryDirectory(prefix="orbit4d-mp4-") as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, fps, crf)
        return path.read_bytes()


def _steady() -> dict[str, str]:
    """Keeps libx264 off its AVX-512 code, which gave another image in about one file of forty (av 18.0).

    AVX2 is named only where the processor has AVX-512, and so AVX2 too: x264 takes such a name on trust.
    """
    try:
        wide = "avx512" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {"x264-params": "asm=avx2"} if wide else {}


def _encode(container: av.container.OutputContainer, frames: Frames, fps: float, crf: int | None) -> None:
    import av
    from av.video.reformatter import Colorspace

    rate = fps if isinstance(fps, int) else _fraction(fps)
    options = {"crf": str(crf or 0), "preset": "medium", **_steady()}
    codec = "libx264" if crf is not None else "libx264rgb"
    stream: Any = container.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height = frames.shape[2], frames.shape[1]
    stream.pix_fmt = "yuv420p" if crf is not None else "rgb24"
    context = stream.codec_context
    if crf is not None:
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _MPEG_RANGE
    # One thread: x264 divides the rate control by threads, and the file should not depend on the machine.
    context.thread_count = 1
    for index, rgb in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if crf is not None:
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts = index
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _fraction(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def read_video(
    path: str | os.PathLike[str], max_frames: int = MAX_FRAMES, max_edge: int | None = None
) -> Video:
    """Decode a whole video, as a player shows it.

    `max_edge` shrinks frames whose longer edge is larger (area filter), so that large footage fits in memory.
    InputError, one line: no such file, not a video, damaged, no frames, more than `max_frames`.
    """
    import av

    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source}: no such file; give an mp4, webm or gif")
    if source.stat().st_size == 0:
        raise InputError(f"{source}: the file is empty; give an mp4, webm or gif")
    if is_animated_image(source):
        return _gather(source, animated_frames(source, max_edge), max_frames, Shown())
    try:
        # Names within a file may be in any letters, or damaged.
        with av.open(os.path.abspath(source), mode="r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{source}: holds no frames; give an mp4, webm or gif")
            return _decode(source, container, max_frames, max_edge)
    except av.FFmpegError as error:
        raise InputError(
            f"{source}: damaged or not a video ({error.strerror}); write it again, or give a folder of frames"
        ) from error


def _decode(
    source: Path, container: av.container.InputContainer, max_frames: int, max_edge: int | None
) -> Video:
    stream = container.streams.video[0]
    if stream.frames > max_frames:
        raise _too_many(source, max_frames)
    if stream.codec_context is None:
        raise InputError(
            f"{source}: a codec that is not known here, or damaged; write the video again as H.264"
        )
    # Damage is reported instead of painted over with grey blocks.
    stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    shown = Shown()
    video = _gather(source, pictures(source, container, stream, max_edge, shown), max_frames, shown)
    if stream.frames and len(video.frames) < stream.frames:
        raise InputError(
            f"{source}: damaged: {len(video.frames)} of {stream.frames} frames can be read; "
            "write the video again"
        )
    return video


def _gather(
    source: Path, found: Iterable[tuple[Frames, float | None]], max_frames: int, shown: Shown
) -> Video:
    """The video of images and their times."""
    frames: list[Frames] = []
    seconds: list[float] = []
    for image, time in found:
        if len(frames) == max_frames:
            raise _too_many(source, max_frames)
        if frames and image.shape != frames[0].shape:
            sizes = f"{frames[0].shape[1]}x{frames[0].shape[0]} and {image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{source}: frames of different sizes ({sizes}); write it with one size")
        frames.append(image)
        seconds.append(float(len(frames) - 1) if time is None else time)
    if not frames:
        raise InputError(f"{source}: holds no frames; write the video again")
    times = np.asarray(seconds) - seconds[0]
    if np.any(np.diff(times) < 0):
        raise InputError(f"{source}: its frames are out of order; write the video again")
    own = (frames[0].shape[1], frames[0].shape[0])
    size, stored = shown.size if any(shown.size) else own, shown.stored_size if any(shown.size) else own
    return Video(np.stack(frames), times, shown.rotation, size, stored, tuple(shown.notes))


def _too_many(source: Path, max_frames: int) -> InputError:
    return InputError(
        f"{source}: holds more than {max_frames} frames; cut it to one orbit, or keep every k-th frame"
    )
