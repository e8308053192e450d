"""transforms.json of every program: each key is heeded, refused, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.lens import Lens
from orbit4d.datasets.cameras.posed_frames import same_shape
from orbit4d.datasets.cameras.transforms import (
    cameras_record,
    find_transforms,
    read_extra,
    read_transforms,
    transforms_record,
)
from orbit4d.datasets.core.errors import InputError


def matrices(n: int = 4) -> list[list[list[float]]]:
    return [camera.c2w.tolist() for camera in orbit(n, 2.2, 12.0)]


def record(n: int = 4, **top: Any) -> dict[str, Any]:
    """A bare record of n frames, to be filled by the test."""
    return {
        **top,
        "frames": [
            {"file_path": f"images/{i:03d}.png", "transform_matrix": m} for i, m in enumerate(matrices(n))
        ],
    }


def write(folder: Path, content: Any, name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    cameras, times = orbit(5, 1.7, 20.0, 47.0, size=(60, 44)), [0.0, 0.1, 0.2, 0.7, 1.0]
    files = [f"frames/{i}.png" for i in range(5)]
    made = transforms_record(cameras, files, times, [2 * t for t in times], background=[0, 128, 255])
    read = read_transforms(write(tmp_path, made))
    assert read.cameras == tuple(cameras) and read.cameras_for((60, 44)) == tuple(cameras)
    assert read.times == tuple(times) and read.seconds == tuple(2 * t for t in times)
    assert read.files == tuple(files) and read.notes == () and not any(read.lenses)
    assert read.background is not None and read.background == pytest.approx([0, 128 / 255, 1])
    own = read_transforms(write(tmp_path, cameras_record(cameras, times)))
    assert own.cameras == tuple(cameras) and own.files == ()
    assert read.taken([3, 1]).files == ("frames/3.png", "frames/1.png")
    assert read.taken([3, 1]).times == (0.7, 0.1) and read.taken([3, 1]).c2w[0] is read.c2w[3]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record(w=32, h=24, fl_x=40)).encode())
    assert len(read_transforms(path)) == 4 and find_transforms(tmp_path) == path


def test_angles_stand_in_for_focal_lengths(tmp_path: Path) -> None:
    """Blender and NeRF-synthetic name camera_angle_x and no size; camera_angle_y makes oblong pixels."""
    read = read_transforms(write(tmp_path, record(camera_angle_x=0.6)))
    camera = read.cameras_for((80, 50))[0]
    assert camera.fl_x == pytest.approx(40 / np.tan(0.3)) == camera.fl_y
    assert (camera.cx, camera.cy) == (40, 25)
    with pytest.raises(InputError, match=r"images/000\.png has no w and h"):
        _ = read.cameras
    both = read_transforms(
        write(tmp_path, record(camera_angle_x=0.6, camera_angle_y=0.9, w=90, h=30))
    ).cameras
    assert both[2].fl_x == pytest.approx(45 / np.tan(0.3)) and both[2].fl_y == pytest.approx(
        15 / np.tan(0.45)
    )
    high = read_transforms(write(tmp_path, record(camera_angle_y=0.9, w=90, h=30))).cameras[0]
    assert high.fl_x == high.fl_y == pytest.approx(15 / np.tan(0.45))


def test_frames_may_have_intrinsics_of_their_own(tmp_path: Path) -> None:
    made = record(w=64, h=48, fl_x=70, cx=30.0)
    made["frames"][2] |= {"fl_x": 90, "fl_y": 95, "k1": 0.1}
    read = read_transforms(write(tmp_path, made))
    assert [camera.fl_x for camera in read.cameras] == [70, 70, 90, 70]
    assert read.cameras[2].fl_y == 95 and read.cameras[1].cx == 30 and read.cameras[1].cy == 24
    assert [bool(lens) for lens in read.lenses] == [False, False, True, False]
    half = read.cameras_for((32, 24))[2]
    assert (half.fl_x, half.cx, half.w, half.h) == (45, 15, 32, 24)


def test_lens_keys(tmp_path: Path) -> None:
    base = {"w": 64, "h": 48, "fl_x": 70}

    def lens(**keys: Any) -> Lens:
        return read_transforms(write(tmp_path, record(**base, **keys))).lenses[0]

    assert lens(camera_model="OPENCV", k1=0.0, p2=0) == Lens()
    assert lens(camera_model="OPENCV", k1=-0.2, k2=0.03, p1=0.001) == Lens(
        False, (-0.2, 0.03, 0, 0), (0.001, 0)
    )
    assert lens(k3=0.1) == Lens(False, (0, 0, 0.1, 0))
    assert (
        lens(camera_model="OPENCV_FISHEYE", k1=0.02)
        == Lens(True, (0.02, 0, 0, 0))
        == lens(is_fisheye=True, k1=0.02)
    )
    for bad in ({"camera_model": "EQUIRECTANGULAR"}, {"k5": 0.2}, {"k4": 1, "camera_model": "FULL_OPENCV"}):
        with pytest.raises(InputError, match=next(iter(bad))) as error:
            lens(**bad)
        assert "undistort the images first" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="rolling_shutter"):
        lens(rolling_shutter=[0, 0, 0.1])
    assert not lens(rolling_shutter=[0, 0, 0])


def test_unknown_keys_are_listed_once_and_harmless_ones_are_not(tmp_path: Path) -> None:
    made = record(w=64, h=48, fl_x=70, aabb_scale=4, applied_scale=1.0, exposure_map="x.exr", crop={"a": 1})
    for i, frame in enumerate(made["frames"]):
        frame |= {"sharpness": 20.0, "colmap_im_id": i, "focus": 1}
    notes = read_transforms(write(tmp_path, made)).notes
    assert notes == ("transforms.json: keys that are not read: exposure_map, crop, focus (of frames)",)
    said = read_transforms(write(tmp_path, record(w=64, h=48, fl_x=70, camera_angle_x=1.2))).notes
    assert len(said) == 1 and "fl_x 70 counts, camera_angle_x says 46.77" in said[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"time": 0.5}, r"images/000\.png has no time, 1 of 4 frames have one"),
        ({"time": 7}, "1 of 4"),
        ({"mask_path": "m/1.png"}, r"images/000\.png has no mask_path"),
        ({"file_path": None}, "frame 1 has no file_path, 3 of 4"),
        ({"transform_matrix": [[1, 0], [0, 1]]}, r"images/001\.png has a transform_matrix that is no 4x4"),
        ({"transform_matrix": None}, "no 4x4"),
        ({"fl_x": "wide"}, r"images/001\.png: fl_x is 'wide', no number"),
        ({"fl_x": -3}, r"images/001\.png has fl_x -3"),
        ({"w": 32.5}, r"w 32\.5, which is no number of pixels"),
        ({"camera_angle_x": 40}, "give radians between 0 and pi"),
    ],
)
def test_what_contradicts_itself_is_refused_by_the_frames_name(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    made = record(w=64, h=48, fl_x=70)
    made["frames"][1] |= change
    with pytest.raises(InputError, match=says) as error:
        read_transforms(write(tmp_path, made))
    assert "transforms.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"frames": []}', '{"frames": [3]}', "no json", '{"frames": {"a": 1}}', "\xff"]
)
def test_what_is_no_transforms_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.json: not a transforms\.json"):
        read_transforms(tmp_path / "t.json")


def test_sizes_that_cannot_belong_together_are_refused_with_both(tmp_path: Path) -> None:
    read = read_transforms(write(tmp_path, record(w=120, h=80, fl_x=100)))
    assert read.cameras_for((60, 40))[0].fl_x == 50, "the same, reduced"
    assert read.cameras_for((61, 40))[0].w == 61, "a pixel of rounding"
    for size in ((80, 120), (120, 120), (120, 84)):
        with pytest.raises(InputError, match=f"120x80 pixels, its image has {size[0]}x{size[1]}"):
            read.cameras_for(size)
    assert read.cameras_for((160, 80), (120, 80))[0].fl_x == pytest.approx(100 * 160 / 120)
    assert same_shape((1920, 1080), (480, 270)) and not same_shape((640, 480), (640, 460))


def test_times_outside_the_unit_are_refused_by_name(tmp_path: Path) -> None:
    made = record(w=64, h=48, fl_x=70)
    for i, frame in enumerate(made["frames"]):
        frame["time"] = i / 2
    with pytest.raises(InputError, match=r"times must lie in \[0, 1\], images/003\.png has 1\.5"):
        read_transforms(write(tmp_path, made))


def test_the_record_of_a_video_or_folder_is_found(tmp_path: Path) -> None:
    made = record(w=64, h=48, fl_x=70)
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"")
    assert find_transforms(video) is None
    (tmp_path / "clip.json").write_text('{"streams": [], "frames": [{"pts": 3}]}')
    assert find_transforms(video) is None, "another program's notes"
    plain = write(tmp_path, made, "clip.json")
    assert find_transforms(video) == plain
    beside = write(tmp_path / "clip", made)
    assert find_transforms(video) == beside, "what generate writes comes first"
    assert find_transforms(tmp_path / "clip") == beside
    (tmp_path / "clip" / "images").mkdir()
    assert find_transforms(tmp_path / "clip" / "images") == beside.absolute()
    (tmp_path / "clip" / "depth").mkdir()
    assert find_transforms(tmp_path / "clip" / "depth") is None, "it lists nothing of this folder"
    synthetic = write(tmp_path / "lego", record(camera_angle_x=0.7), "transforms_train.json")
    assert find_transforms(tmp_path / "lego") == synthetic


def test_what_orbit4d_noted_is_read_even_without_frames(tmp_path: Path) -> None:
    assert read_extra(write(tmp_path, {"orbit4d": {"motion": 0.01}})) == {"motion": 0.01}
    assert read_extra(tmp_path / "absent.json") == {} == read_extra(write(tmp_path, [1]))
