"""Video files: what is written comes back, and what is broken is refused in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import ndimage

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video, write_video


def smooth_clip(n: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with one hard-edged red square that moves: [n, height, width, 3] uint8."""
    noise = np.random.default_rng(0).random((n, height, width, 3))
    frames = np.clip((ndimage.gaussian_filter(noise, (1, 6, 6, 0)) - 0.5) * 8 + 0.5, 0, 1)
    frames = (frames * 255).astype(np.uint8)
    for i in range(n):
        frames[i, 8:24, 8 + i : 24 + i] = [200, 30, 30]
    return frames


def encode(path: Path, frames: np.ndarray, codec: str, pix_fmt: str, source: str = "rgb24", pts=None) -> None:
    """Write with any codec and any time stamps (in thousandths), straight through FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_mp4_round_trip_keeps_colours_times_and_the_first_frame(tmp_path: Path) -> None:
    frames = smooth_clip()
    write_video(tmp_path / "a.mp4", frames, fps=8)
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == frames.shape and video.frames.dtype == np.uint8
    np.testing.assert_allclose(video.seconds, np.arange(12) / 8, atol=1e-9)
    assert not video.uneven and video.rotation_deg == 0
    error = np.abs(video.frames.astype(int) - frames)
    assert error.mean() < 3, "4:2:0 chroma and crf 12 cost about 2 levels on this clip"
    # A wrong matrix (BT.601 against BT.709) moves saturated red by more than 10 levels.
    assert np.abs(video.frames[:, 12:20, 20:24].astype(int) - [200, 30, 30]).max() <= 6


def test_written_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth_clip())
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.colorspace == context.color_primaries == context.color_trc == 1
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index stands first, so playing starts at once"
    write_video(tmp_path / "b.mp4", smooth_clip())
    assert (tmp_path / "b.mp4").read_bytes() == data, "the same frames give the same file"


@pytest.mark.parametrize("size", [(47, 61), (48, 61), (47, 62)])
def test_odd_sizes_are_padded_by_their_edge_and_cut_again(tmp_path: Path, size: tuple[int, int]) -> None:
    h, w = size
    frames = smooth_clip()[:, :h, :w]
    write_video(tmp_path / "odd.mp4", frames, fps=29.97)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (h + h % 2, w + w % 2)
    video = read_video(tmp_path / "odd.mp4")
    assert video.frames.shape == (12, h, w, 3) and video.size == (w, h)
    assert np.abs(video.frames.astype(int) - frames).mean() < 3
    assert video.seconds[1] == pytest.approx(1 / 29.97, rel=1e-4)
    assert read_video(tmp_path / "odd.mp4", max_edge=32).frames.shape[2] == 32


def test_a_size_in_the_comment_counts_only_while_it_fits(tmp_path: Path) -> None:
    """Another program keeps the comment when it scales the pictures."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["comment"] = "orbit4d size 31x31"
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in smooth_clip():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert read_video(tmp_path / "a.mp4").frames.shape == (12, 48, 64, 3)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", smooth_clip(1))
    video = read_video(tmp_path / "one.mp4")
    assert len(video.frames) == 1 and not video.uneven


def test_webm_with_alpha_keeps_it(tmp_path: Path) -> None:
    rgba = np.zeros((6, 48, 64, 4), np.uint8)
    rgba[:, 10:30, 10:40] = [40, 200, 60, 255]
    encode(tmp_path / "a.webm", rgba, "libvpx-vp9", "yuva420p", source="rgba")
    video = read_video(tmp_path / "a.webm")
    assert video.frames.shape == (6, 48, 64, 4)
    assert (video.frames[:, 14:26, 14:36, 3] > 250).all() and (video.frames[:, 36:, :, 3] < 5).all()


def test_webm_without_alpha_and_gif(tmp_path: Path) -> None:
    frames = smooth_clip()
    encode(tmp_path / "a.webm", frames, "libvpx-vp9", "yuv420p")
    assert read_video(tmp_path / "a.webm").frames.shape == frames.shape
    from PIL import Image

    pictures = [Image.fromarray(f) for f in frames]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=70)
    video = read_video(tmp_path / "a.gif")
    assert video.frames.shape[:3] == frames.shape[:3] and not video.uneven
    assert np.abs(video.frames[..., :3].astype(int) - frames).mean() < 12, "a palette of 256 colours"
    assert video.seconds[-1] == pytest.approx(11 * 0.07, abs=0.02)


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    frames = smooth_clip()
    write_video(tmp_path / "a.mp4", frames)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    # The display matrix lies 40 bytes into a version-0 track header: 16.16 fixed point, here a quarter turn.
    at = data.index(b"tkhd") + 4 + 40
    one, minus = (0x10000).to_bytes(4, "big"), (-0x10000).to_bytes(4, "big", signed=True)
    data[at : at + 16] = bytes(4) + one + bytes(4) + minus
    (tmp_path / "r.mp4").write_bytes(data)
    turned = read_video(tmp_path / "r.mp4")
    assert turned.rotation_deg in (90, 270)
    assert turned.frames.shape == (12, 64, 48, 3)
    upright = read_video(tmp_path / "a.mp4").frames
    # (a, b, c, d) = (0, 1, -1, 0) shows the picture turned clockwise by a quarter.
    np.testing.assert_array_equal(turned.frames, np.rot90(upright, -1, axes=(1, 2)))


def test_variable_frame_rate_is_noticed(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 400, 440, 480, 900, 940, 980, 1020, 1400, 1440]
    encode(tmp_path / "vfr.webm", smooth_clip(), "libvpx-vp9", "yuv420p", pts=stamps)
    video = read_video(tmp_path / "vfr.webm")
    assert video.uneven
    np.testing.assert_allclose(video.seconds, np.array(stamps) / 1000, atol=2e-3)


@pytest.mark.parametrize("kind", ["cut", "flipped", "junk", "empty", "absent", "text", "sound"])
def test_broken_files_are_refused_in_one_line_that_names_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.mp4"
    write_video(path, smooth_clip())
    data = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif kind == "flipped":
        for i in range(len(data) // 2, len(data) // 2 + 200):
            data[i] ^= 0x5A
        path.write_bytes(data)
    elif kind == "junk":
        path.write_bytes(bytes(1000))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "absent":
        path.unlink()
    elif kind == "text":
        path.write_text("a clip of a fox\n" * 50)
    elif kind == "sound":
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with pytest.raises(InputError) as error:
        read_video(path)
    assert "bad.mp4" in str(error.value) and "\n" not in str(error.value)


def test_flipped_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Of the index and the head of an mp4: letters that are no text, a codec that does not exist."""
    write_video(tmp_path / "good.mp4", smooth_clip(3, 32, 32), 8)
    good, rng, path = (tmp_path / "good.mp4").read_bytes(), np.random.default_rng(0), tmp_path / "bad.mp4"
    index = good.rfind(b"moov") - 4
    spoilt = [
        good.replace(b"avc1\x00\x00\x00", b"zzz1\x00\x00\x00"),
        good.replace(b"VideoHandler", b"Video\xffandler"),
    ]
    for _ in range(60):
        broken = bytearray(good)
        for at in rng.integers(index, len(good), 2):
            broken[at] = rng.integers(256)
        spoilt.append(bytes(broken))
    for data in spoilt:
        path.write_bytes(data)
        try:
            assert read_video(path).frames.shape[3] == 3
        except InputError as error:
            assert "bad.mp4" in str(error) and "\n" not in str(error)


def test_too_many_frames_are_refused_before_they_fill_memory(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", np.zeros((10_000, 16, 16, 3), np.uint8), fps=30)
    with pytest.raises(InputError, match="more than 1000 frames"):
        read_video(tmp_path / "long.mp4")
    encode(tmp_path / "long.webm", np.zeros((60, 16, 16, 3), np.uint8), "libvpx-vp9", "yuv420p")
    with pytest.raises(InputError, match="more than 50 frames"):
        read_video(tmp_path / "long.webm", max_frames=50)


def test_large_frames_are_shrunk_on_request(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth_clip())
    assert read_video(tmp_path / "a.mp4", max_edge=32).frames.shape == (12, 24, 32, 3)


def test_nothing_is_left_where_writing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="uint8"):
        write_video(tmp_path / "a.mp4", np.zeros((3, 8, 8, 3), np.float32))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="choose another place"):
        write_video(tmp_path / "file" / "a.mp4", smooth_clip())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
