"""Cameras of a capture with values of a wrong kind: one line that names the file, never a traceback."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.cli import _azimuths
from orbit4d.recon4d.inputs.loading import OrbitSpec, load_frames
from orbit4d.recon4d.inputs.open_views import ViewOptions, open_views

NAN = float("nan")
#: Values that no key of a camera may have.
WRONG: tuple[Any, ...] = ({}, [], [None], [["a"]], {"a": 1}, NAN)


def read(folder: Path, **options: Any) -> None:
    """As `recon4d FOLDER` reads it."""
    if open_views(str(folder), None, None, None, "flat", 64, ViewOptions(**options)) is None:
        load_frames(folder)


def refused(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def labelled(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = rig.folders(tmp_path_factory.mktemp("labelled") / "capture")
    path = rig.transforms(folder / "transforms.json")
    return folder, json.loads(path.read_text())


@pytest.mark.parametrize("key", ["transform_matrix", "fl_x", "w", "time", "camera_label", "mask_path"])
def test_a_frame_of_transforms(labelled: tuple[Path, dict[str, Any]], key: str) -> None:
    folder, good = labelled
    for value in WRONG:
        record = copy.deepcopy(good)
        record["frames"][1][key] = value
        (folder / "transforms.json").write_text(json.dumps(record))
        refused(folder, r"transforms\.json")


NO_RECORDS = (
    "[]", "3", "null", '"frames"', '{"frames": 5}', '{"frames": ["transform_matrix"]}',
    '{"frames": {"a": 1}}', '{"frames": [', "[" * 100_000,
)  # fmt: skip


@pytest.mark.parametrize("text", NO_RECORDS, ids=lambda text: text[:20])
def test_a_file_that_is_no_record(labelled: tuple[Path, dict[str, Any]], text: str) -> None:
    (labelled[0] / "transforms.json").write_text(text)
    refused(labelled[0], r"transforms\.json")


def skewed(matrix: list[list[float]], kind: str) -> list[list[float]]:
    m = np.array(matrix)
    if kind == "transposed":
        return m.T.tolist()
    if kind == "mirrored":
        m[:3, 0] *= -1
    elif kind == "one number":
        m[0, 0] = 1e30
    else:
        m[:3, 2] *= 1.2
    return m.tolist()


@pytest.mark.parametrize("kind", ["transposed", "mirrored", "one number", "stretched"])
def test_a_matrix_that_is_no_pose(labelled: tuple[Path, dict[str, Any]], kind: str) -> None:
    folder, good = labelled
    record = copy.deepcopy(good)
    frame = record["frames"][1]
    frame["transform_matrix"] = skewed(frame["transform_matrix"], kind)
    (folder / "transforms.json").write_text(json.dumps(record))
    refused(folder, f"transform_matrix that (has a|is m).*{'' if kind != 'mirrored' else 'left-handed'}")


@pytest.mark.parametrize(("key", "value"), [("cx", 1e30), ("cy", -9999), ("fl_y", 1e30), ("fl_x", 1e-9)])
def test_a_lens_that_no_image_has(labelled: tuple[Path, dict[str, Any]], key: str, value: float) -> None:
    folder, good = labelled
    record = copy.deepcopy(good)
    record["frames"][0][key] = value
    (folder / "transforms.json").write_text(json.dumps(record))
    refused(folder, f"has {key} ")


@pytest.mark.parametrize("names", [5, {"a": 1}, [3], [["000.png"]], "cam01/000.png"])
def test_a_split_that_is_no_list(labelled: tuple[Path, dict[str, Any]], names: Any) -> None:
    folder, good = labelled
    (folder / "transforms.json").write_text(json.dumps({**good, "val_filenames": names}))
    refused(folder, "val_filenames is no list")


def test_cameras_of_4danyone(rig: Any, tmp_path: Path) -> None:
    entries = rig.fourdanyone(tmp_path)
    for key in ("K", "camera_to_world", "image_width"):
        for value in (*WRONG, 0, [[NAN] * 4] * 4, [[0.0] * 4] * 4, [[0.0] * 3] * 3):
            spoilt = [entries[0], {**entries[1], key: value}, *entries[2:]]
            record = {"camera_model": "OPENCV", "cameras": spoilt}
            (tmp_path / "cameras.json").write_text(json.dumps(record))
            refused(tmp_path, r"cameras\.json")

    entries[1]["camera_id"] = entries[0]["camera_id"]
    (tmp_path / "cameras.json").write_text(json.dumps({"camera_model": "OPENCV", "cameras": entries}))
    refused(tmp_path, "two cameras are called 0")


def test_poses_of_n3dv(rig: Any, tmp_path: Path) -> None:
    rig.videos(tmp_path)
    columns = [np.array([0.0, 0, 0]), *np.eye(3), np.array([40, 40, 40.0])]
    good = np.tile([*np.stack(columns, 1).reshape(15), 1.0, 4.0], (4, 1))
    for spoilt in (good, good * NAN, good[:, :15], good[0], good * 0, np.array(["a"] * 4)):
        np.save(tmp_path / "poses_bounds.npy", spoilt)
        refused(tmp_path, r"poses_bounds\.npy")


def test_rings_and_orbits_of_numbers_that_are_none() -> None:
    for text in ("nan,0", "inf,0", "1e9,0", "a", ""):
        with pytest.raises(InputError, match="--ring"):
            _azimuths(text)
    for options in ({"radius": NAN}, {"radius": float("inf")}, {"fov_x_deg": NAN}, {"elevation_deg": NAN}):
        with pytest.raises(InputError, match="--radius"):
            OrbitSpec(**options)


def test_two_videos_of_one_camera(rig: Any, tmp_path: Path) -> None:
    rig.videos(tmp_path)
    (tmp_path / "cam01.mov").write_bytes((tmp_path / "cam01.mp4").read_bytes())
    refused(tmp_path, "two videos are called cam01")
    with pytest.raises(InputError, match="two videos are called cam01"):
        open_views([str(tmp_path / name) for name in ("cam01.mp4", "cam01.mov")], None, None, None)
