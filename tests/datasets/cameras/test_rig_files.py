"""Cameras of a user's own file as a rig."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.cameras.rig_files import FileRig, column_of, read_rig
from orbit4d.datasets.cameras.transforms import cameras_record, transforms_record
from orbit4d.datasets.core.errors import InputError

AROUND = orbit(4, elevation_deg=15.0, size=(64, 48))


def written(folder: Path, record: dict[str, Any], name: str = "transforms.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(record))
    return path


def labelled(labels: list[str], times: list[float] | None = None) -> dict[str, Any]:
    record = cameras_record(AROUND[: len(labels)], times or [0.0] * len(labels))
    for frame, label in zip(record["frames"], labels):
        frame["camera_label"] = label
        if times is None:
            del frame["time"]
    return record


def test_frames_of_one_time_are_cameras_of_their_own(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, transforms_record(AROUND, list("abcd"), [0.5] * 4)))
    cameras = rig.rig_cameras(3, 64)
    assert [camera.label for camera in cameras] == ["cam01", "cam02", "cam03", "cam04"]
    assert [camera.cameras for camera in cameras] == [(view,) * 3 for view in AROUND]
    assert [camera.azimuth_deg % 360 for camera in cameras] == pytest.approx([0, 90, 180, 270])
    assert {round(camera.radius, 9) for camera in cameras} == {2.0}
    assert {round(camera.elevation_deg, 9) for camera in cameras} == {15.0}


def test_frames_of_several_times_are_one_moving_camera(tmp_path: Path) -> None:
    times = [0.0, 1.0, 0.25, 0.5]
    rig = read_rig(written(tmp_path, cameras_record(AROUND, times), "cameras.json"))
    (camera,) = rig.rig_cameras(4, 64)
    assert camera.cameras == tuple(AROUND[i] for i in (0, 2, 3, 1)), "in the order of their times"
    with pytest.raises(
        InputError, match=r"rig cameras: cam01 has 4 cameras per view, 24 frames: give 1 or 24"
    ):
        rig.check_frames(24)


def test_labels_tell_cameras_apart(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, labelled(["left", "right", "left", "right"], [0.0, 0.0, 1.0, 1.0])))
    assert {c.label: len(c.c2w) for c in rig.cameras} == {"left": 2, "right": 2}
    left = rig.rig_cameras(2, 64)[0]
    assert left.cameras == (AROUND[0], AROUND[2])


def test_it_goes_through_json_to_the_bit(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, labelled(["a", "b"])))
    again = FileRig.from_config(json.loads(json.dumps(asdict(rig))))
    assert again == rig
    for one, other in zip(rig.rig_cameras(2, 32), again.rig_cameras(2, 32)):
        assert one.cameras == other.cameras
        assert (one.cameras[0].w, one.cameras[0].h) == (32, 24)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("My Rig-2.json", "my_rig_2"),
        ("transforms.json", "transforms"),
        ("sync_10.json", "own_sync_10"),
        ("front_view.json", "own_front_view"),
        ("2025.json", "own_2025"),
    ],
)
def test_the_file_names_the_rig(name: str, column: str) -> None:
    assert column_of(Path(name)) == column


def test_what_cannot_be_rendered_is_refused_in_one_line(tmp_path: Path) -> None:
    mirrored = labelled(["a"])
    mirrored["frames"][0]["transform_matrix"] = (AROUND[0].c2w @ np.diag([-1.0, 1, 1, 1])).tolist()
    bent = labelled(["a"]) | {"k1": 0.1}
    sheared = labelled(["a"])
    sheared["frames"][0]["transform_matrix"] = (AROUND[0].c2w @ np.diag([1.01, 1, 1, 1])).tolist()
    zoomed = labelled(["a", "a"], [0.0, 1.0])
    zoomed["frames"][1]["fl_x"] = 10.0
    for record, words in (
        (mirrored, "a: a mirrored camera (determinant -1)"),
        (bent, "rendered cameras are pinholes"),
        (sheared, "a rotation that is not orthonormal to 0.001"),
        (zoomed, "intrinsics that change between frames"),
        ({"frames": []}, "not a transforms.json"),
    ):
        with pytest.raises(InputError) as caught:
            read_rig(written(tmp_path, record))
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_rig(tmp_path / "none.json")
