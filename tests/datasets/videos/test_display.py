"""A video looks as a player shows it: display matrix, pixel aspect, fields, HDR; and animated WebP."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.display import square_size, to_srgb
from orbit4d.datasets.videos.video import read_video, write_video


def marked(n: int = 6, h: int = 40, w: int = 64) -> np.ndarray:
    """Red above left, blue below right, on grey: no turn or mirror leaves it as it is. [n, h, w, 3] uint8."""
    frames = np.full((n, h, w, 3), 180, np.uint8)
    frames[:, : h // 2, : w // 4], frames[:, 3 * h // 4 :, w // 2 :] = [210, 20, 20], [20, 30, 220]
    return frames


#: (a, b, c, d) of the display matrix and what a player makes of the picture with it.
MATRICES = {
    (1, 0, 0, 1): lambda f: f,
    (-1, 0, 0, 1): lambda f: f[:, :, ::-1],
    (1, 0, 0, -1): lambda f: f[:, ::-1],
    (-1, 0, 0, -1): lambda f: f[:, ::-1, ::-1],
    (0, 1, -1, 0): lambda f: np.rot90(f, -1, axes=(1, 2)),
    (0, -1, 1, 0): lambda f: np.rot90(f, 1, axes=(1, 2)),
    (0, 1, 1, 0): lambda f: f.transpose(0, 2, 1, 3),
    (0, -1, -1, 0): lambda f: f.transpose(0, 2, 1, 3)[:, ::-1, ::-1],
}


def with_matrix(path: Path, matrix: tuple[float, float, float, float]) -> None:
    """Write the display matrix into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(v * 0x10000).to_bytes(4, "big", signed=True) for v in matrix)
    data[at : at + 20] = a + b + bytes(4) + c + d
    path.write_bytes(data)


@pytest.mark.parametrize("matrix", list(MATRICES))
def test_display_matrices_turn_and_mirror(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    write_video(tmp_path / "a.mp4", marked(), crf=4)
    with_matrix(tmp_path / "a.mp4", matrix)
    wanted = MATRICES[matrix](marked())
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == wanted.shape and video.size == (wanted.shape[2], wanted.shape[1])
    assert np.abs(video.frames.astype(int) - wanted).mean() < 4


def test_a_picture_turned_by_no_quarter_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", marked())
    with_matrix(tmp_path / "a.mp4", (0.9397, 0.3420, -0.3420, 0.9397))
    with pytest.raises(InputError, match="write it upright"):
        read_video(tmp_path / "a.mp4")


def encode(path: Path, frames: list[av.VideoFrame], codec: str = "libx264", **context: Any) -> None:
    options = context.pop("options", {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "6", **options})
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for i, frame in enumerate(frames):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 11), (93, 40)), (Fraction(5, 8), (64, 64)), (Fraction(1), (64, 40))]
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    frames = [av.VideoFrame.from_ndarray(f, format="rgb24").reformat(format="yuv420p") for f in marked()]
    encode(tmp_path / "a.mp4", frames, sample_aspect_ratio=aspect)
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == (6, size[1], size[0], 3)
    assert video.size == size and video.stored_size == (64, 40)
    assert ("pixel aspect" in " ".join(video.notes)) == (aspect != 1)
    assert tuple(video.frames[0, size[1] // 4, size[0] // 8] // 100) == (2, 0, 0), "red above left"
    small = read_video(tmp_path / "a.mp4", max_edge=32)
    assert max(small.frames.shape[1:3]) == 32 and small.size == size
    assert square_size(720, 576, None) == (720, 576)


def test_interlaced_frames_are_deinterlaced(tmp_path: Path) -> None:
    """Fields of two moments: rows of a bar that moves by 4 pixels between them."""
    moments = np.full((16, 48, 64, 3), 235, np.uint8)
    for i in range(16):
        moments[i, 8:40, 2 + 3 * i : 14 + 3 * i] = [30, 60, 120]
    woven = moments[::2].copy()
    woven[:, 1::2] = moments[1::2, 1::2]

    def combing(frames: np.ndarray) -> float:
        grey = frames.astype(float).mean(-1)
        return float(np.abs(grey[:, 1:-1] - (grey[:, :-2] + grey[:, 2:]) / 2).mean())

    frames = [av.VideoFrame.from_ndarray(f, format="rgb24").reformat(format="yuv420p") for f in woven]
    encode(tmp_path / "a.mp4", frames, options={"x264-params": "tff=1:interlaced=1"})
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == woven.shape and not video.uneven
    assert "interlaced: 8 of 8 frames deinterlaced (bwdif)" in video.notes
    assert combing(woven) > 8 and combing(video.frames) < 0.4 * combing(woven)
    progressive = [av.VideoFrame.from_ndarray(f, format="rgb24").reformat(format="yuv420p") for f in woven]
    encode(tmp_path / "p.mp4", progressive)
    assert combing(read_video(tmp_path / "p.mp4").frames) > 0.9 * combing(woven), "not asked for"


def pq(nits: np.ndarray) -> np.ndarray:
    y = (nits / 10_000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    """Grey alone: display light of 1,000 cd/m² to values."""
    scene = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize(("transfer", "code"), [(16, pq), (18, hlg)])
def test_hdr_greys_become_those_of_sdr(transfer: int, code: Any) -> None:
    srgb = np.array([0, 40, 118, 200, 255]) / 255
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    coded = code(203 * light[None, :, None].repeat(3, -1)).astype(np.float32)
    np.testing.assert_allclose(to_srgb(coded, transfer, 9)[0, :, 1], srgb, atol=0.01)
    bright = code(np.full((1, 1, 3), 800.0)).astype(np.float32)
    np.testing.assert_allclose(to_srgb(bright, transfer, 9), 1.0, atol=1e-3)


def test_an_hdr_video_has_the_colours_of_its_sdr_twin(tmp_path: Path) -> None:
    wanted = marked()
    linear = np.where(wanted / 255 <= 0.04045, wanted / 255 / 12.92, ((wanted / 255 + 0.055) / 1.055) ** 2.4)
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    coded = (pq(203 * linear @ to_2020.T) * 65535).round().astype(np.uint16)
    frames = []
    for picture in coded:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb48le")
        frames.append(frame.reformat(format="yuv420p10le", dst_colorspace=9))
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
    encode(tmp_path / "a.mp4", frames, **tags)
    video = read_video(tmp_path / "a.mp4")
    assert any("HDR (PQ)" in note for note in video.notes)
    for y, x in ((10, 8), (36, 50), (20, 40)):
        assert np.abs(video.frames[0, y, x].astype(int) - wanted[0, y, x]).max() < 14


def test_animated_webp_keeps_alpha_and_times(tmp_path: Path) -> None:
    frames = np.zeros((5, 30, 50, 4), np.uint8)
    for i in range(5):
        frames[i, 8:20, 4 + 6 * i : 16 + 6 * i] = [200, 60, 40, 255]
    images = [Image.fromarray(f) for f in frames]
    lengths = [100, 100, 400, 100, 100]
    # libwebp forgets the flag of transparency in files of lossless frames with few colours.
    options = {"save_all": True, "append_images": images[1:], "duration": lengths, "allow_mixed": True}
    for name in ("a.webp", "a.mp4"):
        images[0].save(tmp_path / name, "WEBP", lossless=True, **options)
        video = read_video(tmp_path / name)
        assert video.frames.shape == frames.shape
        np.testing.assert_array_equal(video.frames[..., 3], frames[..., 3])
        np.testing.assert_allclose(video.seconds, [0, 0.1, 0.2, 0.6, 0.7])
    assert read_video(tmp_path / "a.webp", max_edge=25).frames.shape == (5, 15, 25, 4)
    with pytest.raises(InputError, match="more than 4 frames"):
        read_video(tmp_path / "a.webp", max_frames=4)
    (tmp_path / "cut.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:60])
    with pytest.raises(InputError, match="damaged or not a video"):
        read_video(tmp_path / "cut.webp")


def test_animated_png(tmp_path: Path) -> None:
    frames = marked()
    for i, frame in enumerate(frames):
        frame[20:30, 5 * i : 5 * i + 10] = [30, 160, 40]
    images = [Image.fromarray(f) for f in frames]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=80)
    video = read_video(tmp_path / "a.png")
    np.testing.assert_array_equal(video.frames[..., :3], frames)
    np.testing.assert_allclose(video.seconds, 0.08 * np.arange(6))
