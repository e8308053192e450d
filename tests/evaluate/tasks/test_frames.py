"""Frames to compare are read by the readers that everything else uses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.transforms import transforms_record
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video
from orbit4d.evaluate.tasks.cases import videos_in
from orbit4d.evaluate.tasks.frames import background_of, images_in, load_frames


def greys(n: int = 11, h: int = 21, w: int = 35) -> np.ndarray:
    """Frame i has grey 20 i, [n, h, w, 3] uint8."""
    return np.full((n, h, w, 3), 1, np.uint8) * (20 * np.arange(n, dtype=np.uint8))[:, None, None, None]


def test_folders_go_by_numbers_and_an_odd_video_fits_them(tmp_path: Path) -> None:
    frames = greys()
    (tmp_path / "x").mkdir()
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame[..., 0].astype(np.uint16) * 257 if i % 2 else frame)
        image.save(tmp_path / "x" / f"frame{i}.png")
    (tmp_path / "x" / "._frame0.png").write_bytes(b"\0\5\x16\7")
    real = load_frames(str(tmp_path / "x"))
    np.testing.assert_allclose(real.rgb.mean((1, 2, 3)), 20 * np.arange(11) / 255, atol=1e-6)
    write_video(tmp_path / "x.mp4", frames)
    made = load_frames(str(tmp_path / "x.mp4"))
    assert made.rgb.shape == real.rgb.shape == (11, 3, 21, 35)
    np.testing.assert_allclose(made.rgb, real.rgb, atol=0.02)


def test_a_broken_image_or_another_size_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i, size in enumerate(((8, 6), (8, 6), (6, 8))):
        Image.new("RGB", size).save(tmp_path / "x" / f"{i}.png")
    with pytest.raises(InputError, match=r"different sizes \(0\.png 8x6, 2\.png 6x8\)"):
        load_frames(str(tmp_path / "x"))
    (tmp_path / "x" / "2.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"2\.png: not a readable image"):
        load_frames(str(tmp_path / "x"))


def test_the_background_is_found_from_folder_frames_and_video(tmp_path: Path) -> None:
    (tmp_path / "a" / "frames").mkdir(parents=True)
    files = [f"frames/{i}.png" for i in range(3)]
    for i in range(3):
        Image.fromarray(greys()[i]).save(tmp_path / "a" / files[i])
    record = transforms_record(orbit(3), files, [0, 0.5, 1], background=[128, 0, 255])
    (tmp_path / "a" / "transforms.json").write_text(json.dumps(record))
    write_video(tmp_path / "a.mp4", greys())
    for source in (tmp_path / "a", tmp_path / "a" / "frames", tmp_path / "a.mp4"):
        assert background_of(source) == pytest.approx([128 / 255, 0, 1])
    assert tuple(background_of(tmp_path / "b")) == (1, 1, 1)


def test_videos_of_a_folder_go_by_numbers(tmp_path: Path) -> None:
    for name in ("clip10.mp4", "clip9.mp4", "._clip9.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in videos_in(str(tmp_path))] == ["clip9.mp4", "clip10.mp4"]
    assert images_in(tmp_path) == []
