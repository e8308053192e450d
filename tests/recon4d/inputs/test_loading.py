"""What goes in: every kind of source gives the same frames, and what cannot be fitted is refused."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.transforms import cameras_record
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video
from orbit4d.recon4d.inputs.hull import carve
from orbit4d.recon4d.inputs.loading import MAX_FRAMES, Frames, OrbitSpec, load_frames, premultiply


def on_white(rgba: np.ndarray) -> np.ndarray:
    mixed = premultiply(rgba)
    return ((mixed[..., :3] + 1 - mixed[..., 3:]) * 255 + 0.5).astype(np.uint8)


def write_folder(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i:03d}.png")
    return folder


def test_rgba_folder_video_and_array_agree(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    rgba = moving_ball["dynamic_orbit"]
    array = load_frames(rgba)
    folder = load_frames(write_folder(tmp_path / "frames", rgba))
    np.testing.assert_array_equal(folder.rgba, array.rgba)
    assert folder.cameras == tuple(orbit(12, size=(48, 48)))
    assert folder.time == pytest.approx([i / 11 for i in range(12)])

    write_video(tmp_path / "orbit.mp4", on_white(rgba), crf=4)
    video = load_frames(tmp_path / "orbit.mp4")
    assert "background 255 255 255 removed" in video.notes[0]
    solid = rgba[..., 3] == 255
    clear = rgba[..., 3] == 0
    # The matte is right but for the soft edge, which a codec smears over two pixels.
    assert (video.rgba[..., 3][solid] > 0.8).mean() > 0.97
    assert (video.rgba[..., 3][clear] < 0.2).mean() > 0.97


def test_a_white_part_on_white_is_kept_where_the_object_encloses_it() -> None:
    frames = np.full((4, 40, 40, 3), 255, np.uint8)
    frames[:, 10:30, 10:30] = [90, 60, 200]
    frames[:, 16:24, 16:24] = 255
    alpha = load_frames(frames).rgba[..., 3]
    assert (alpha[:, 11:29, 11:29] == 1).all() and (alpha[:, :9] == 0).all()


def test_masks_win_over_the_background(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    rgba = moving_ball["dynamic_orbit"]
    busy = on_white(rgba)
    busy[rgba[..., 3] == 0] = np.random.default_rng(0).integers(0, 255, (int((rgba[..., 3] == 0).sum()), 3))
    with pytest.raises(InputError, match="not one flat colour"):
        load_frames(busy)
    masks = write_folder(tmp_path / "masks", rgba[..., 3])
    np.testing.assert_allclose(load_frames(busy, mask=masks).rgba[..., 3], rgba[..., 3] / 255, atol=1e-6)
    (masks / "000.png").unlink()
    with pytest.raises(InputError, match="11 images for 12 frames"):
        load_frames(busy, mask=masks)


def test_transforms_json_round_trip(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    cameras, times = orbit(12, 2.5, 20.0, 45.0, size=(96, 96)), [i / 20 for i in range(12)]
    (tmp_path / "transforms.json").write_text(json.dumps(cameras_record(cameras, times)))
    frames = load_frames(moving_ball["dynamic_orbit"], tmp_path / "transforms.json")
    assert frames.cameras == tuple(camera.resized(48, 48) for camera in cameras)
    assert frames.time == pytest.approx(times)
    with pytest.raises(InputError, match="10 frames but 12 cameras"):
        load_frames(moving_ball["dynamic_orbit"][:10], tmp_path / "transforms.json")
    (tmp_path / "broken.json").write_text('{"frames": [{"w": 3}]}')
    with pytest.raises(InputError, match=r"broken\.json: not a transforms\.json"):
        load_frames(moving_ball["dynamic_orbit"], tmp_path / "broken.json")


def test_transforms_beside_the_frames_are_found(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    cameras = orbit(12, 3.0, size=(48, 48))
    write_folder(tmp_path / "clip" / "frames", moving_ball["dynamic_orbit"])
    (tmp_path / "clip" / "transforms.json").write_text(json.dumps(cameras_record(cameras, [0.0] * 12)))
    assert load_frames(tmp_path / "clip").cameras == tuple(cameras)


def test_closed_orbits_and_variable_frame_rates() -> None:
    closed = OrbitSpec(closed=True).cameras(9, 32, 32)
    np.testing.assert_allclose(closed[0].c2w, closed[-1].c2w, atol=1e-12)
    even = np.arange(8) * 0.5
    spec = OrbitSpec(elevation_deg=10.0)
    for a, b in zip(spec.cameras(8, 32, 32), spec.cameras(8, 32, 32, even)):
        np.testing.assert_allclose(a.c2w, b.c2w, atol=1e-9)


def test_a_variable_rate_video_follows_its_time_stamps(
    tmp_path: Path, moving_ball: dict[str, np.ndarray]
) -> None:
    stamps = [0, 100, 200, 300, 700, 800, 900, 1000, 1100, 1200, 1300, 1400]
    with av.open(str(tmp_path / "vfr.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, pts in zip(on_white(moving_ball["dynamic_orbit"]), stamps):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = load_frames(tmp_path / "vfr.webm")
    assert any("variable frame rate" in note for note in frames.notes)
    assert frames.time == pytest.approx([t / 1400 for t in stamps], abs=2e-3)
    assert frames.cameras[4].c2w[0, 3] == pytest.approx(2 * np.sin(2 * np.pi * 700 / 1500), abs=0.01)


def bad_sources(rgba: np.ndarray) -> dict[str, Callable[[Path], Any]]:
    def sizes(path: Path) -> Path:
        write_folder(path / "f", rgba)
        Image.fromarray(rgba[0][:40]).save(path / "f" / "005.png")
        return path / "f"

    def damaged(path: Path) -> Path:
        write_folder(path / "f", rgba)
        (path / "f" / "003.png").write_bytes(b"\x89PNG\r\n")
        return path / "f"

    def empty(path: Path) -> Path:
        (path / "f").mkdir()
        return path / "f"

    return {
        "at least two": lambda path: rgba[:1],
        "different sizes": sizes,
        "not a readable image": damaged,
        "no image in this folder": empty,
        "every frame is black": lambda path: np.concatenate([rgba[..., :3] * 0, rgba[..., 3:]], -1),
        "no object found": lambda path: np.full((5, 32, 32, 3), 255, np.uint8),
        "object fills every frame": lambda path: np.concatenate(
            [rgba[..., :3], np.full_like(rgba[..., 3:], 249)], -1
        ),
        "no such video or folder": lambda path: path / "nothing.mp4",
        "must be uint8": lambda path: [frame.astype(np.float32) for frame in rgba],
    }


@pytest.mark.parametrize("expected", list(bad_sources(np.zeros((3, 8, 8, 4), np.uint8))))
def test_what_cannot_be_fitted_is_refused_in_one_line(
    tmp_path: Path, moving_ball: dict[str, np.ndarray], expected: str
) -> None:
    source = bad_sources(moving_ball["dynamic_orbit"])[expected](tmp_path)
    with pytest.raises(InputError, match=expected) as error:
        load_frames(source)
    assert "\n" not in str(error.value)


def test_many_frames_are_thinned() -> None:
    frames = np.zeros((MAX_FRAMES + 60, 16, 16, 4), np.uint8)
    frames[:, 4:12, 4:12] = [200, 100, 50, 255]
    loaded = load_frames(frames)
    assert len(loaded) == MAX_FRAMES == len(loaded.cameras) == len(loaded.time)
    assert loaded.time[0] == 0 and loaded.time[-1] == 1


def test_resizing_keeps_the_mean_and_the_rays(moving_ball: dict[str, np.ndarray]) -> None:
    frames = load_frames(moving_ball["dynamic_orbit"])
    small = frames.resized(24)
    assert small.rgba.shape == (12, 24, 24, 4)
    np.testing.assert_allclose(small.rgba.mean((1, 2)), frames.rgba.mean((1, 2)), atol=1e-5)
    point = np.array([0.1, -0.2, 0.15])
    np.testing.assert_allclose(
        small.cameras[3].project(point)[0] * 2, frames.cameras[3].project(point)[0], atol=1e-9
    )
    assert frames.resized(480) is frames


def seen_from(frames: Frames, spec: OrbitSpec) -> Frames:
    return Frames(frames.rgba, spec.cameras(len(frames), 48, 48), frames.time, "seen from elsewhere")


def test_the_hull_covers_a_still_object_and_tells_wrong_cameras(moving_ball: dict[str, np.ndarray]) -> None:
    right = load_frames(moving_ball["static_orbit"])
    hull = carve(right)
    assert hull.coverage > 0.97, "voxels of 1/64 leave a rim of a pixel at most"
    for camera, image in zip(right.cameras, right.rgba):
        pixels, _ = camera.project(hull.points)
        column, row = np.floor(pixels).astype(int).T
        assert (image[row, column, 3] > 0.3).all(), "the hull lies inside every silhouette"
    backwards = Frames(right.rgba[::-1].copy(), right.cameras, right.time, "backwards")
    assert carve(backwards).coverage < hull.coverage - 0.05
    assert carve(seen_from(right, OrbitSpec(elevation_deg=50))).coverage < hull.coverage - 0.05


@pytest.fixture
def busy() -> np.ndarray:
    """Footage before a background of noise, uint8 [4, 40, 40, 3]."""
    frames = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), dtype=np.uint8)
    frames[:, 10:30, 10:30] = [90, 60, 200]
    return frames


def test_rembg_is_asked_by_name_and_named_where_it_is_missing(
    busy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"not one flat colour.*--matte rembg"):
        load_frames(busy)
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(InputError, match=r"pip install 'orbit4d\[rembg\]'"):
        load_frames(busy, matte="rembg")


def test_mattes_of_rembg_are_taken(busy: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(frame: np.ndarray, session: Any, only_mask: bool) -> np.ndarray:
        assert session == "session" and only_mask and frame.shape == (40, 40, 3)
        return np.where((frame == [90, 60, 200]).all(-1), 255, 0).astype(np.uint8)

    fake = types.SimpleNamespace(new_session=lambda: "session", remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", fake)  # type: ignore[arg-type]
    frames = load_frames(busy, matte="rembg")
    assert frames.notes == ("matte made by rembg",)
    assert (frames.rgba[:, 10:30, 10:30, 3] == 1).all() and frames.rgba[..., 3].mean() < 0.26

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(fake, "remove", fail)
    with pytest.raises(InputError, match=r"made no matte \(no route to host\); give --mask"):
        load_frames(busy, matte="rembg")
