"""transforms.json: cameras, times, masks and lens of a set of images, read and written in one place.

One reader for nerfstudio, instant-ngp, Blender and NeRF-synthetic (camera_angle_x), D-NeRF, and what orbit4d
writes: camera-to-world with OpenGL axes (cameras.py). A key that changes the meaning is heeded or refused;
one that is not known is named in a note. Images, cameras and masks belong together by `file_path`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Array, Camera
from orbit4d.datasets.cameras.lens import Lens
from orbit4d.datasets.cameras.posed_frames import Transforms, lens_fault, pose_fault
from orbit4d.datasets.core.errors import InputError

#: Camera models of COLMAP and nerfstudio that are read, and whether each is a fisheye.
_MODELS = {
    "PINHOLE": False, "SIMPLE_PINHOLE": False, "PERSPECTIVE": False, "OPENCV": False, "FULL_OPENCV": False,
    "SIMPLE_RADIAL": False, "RADIAL": False,
    "OPENCV_FISHEYE": True, "SIMPLE_RADIAL_FISHEYE": True, "RADIAL_FISHEYE": True,
}  # fmt: skip
_INTRINSICS = ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y")
_LENS = ("camera_model", "is_fisheye", "k1", "k2", "k3", "k4", "p1", "p2")
#: Distortion that no reader here takes out: refused unless 0 or false.
_NO_PINHOLE = (
    "k5",
    "k6",
    "s1",
    "s2",
    "s3",
    "s4",
    "latlong",
    "rolling_shutter",
    *(f"ftheta_p{i}" for i in range(5)),
)
#: Keys that say nothing about how a frame is seen: settings of other programs, and how they came to cameras.
_HARMLESS = {
    "aabb_scale", "scale", "offset", "from_na", "sharpness", "colmap_im_id", "rotation", "ply_file_path",
    "applied_transform", "applied_scale", "orientation_override", "auto_scale_poses_override", "n_frames",
    "depth_file_path", "normal_file_path", "depth_unit_scale_factor", "enable_depth_loading",
    "integer_depth_scale", "near", "far", "camera_id", "frame_id", "image_id", "colmap_camera_id", "fps",
    "frame", "train_filenames", "val_filenames", "test_filenames",
}  # fmt: skip
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")
_TOP = {*_INTRINSICS, *_LENS, *_NO_PINHOLE, *_HARMLESS, *_SPLITS, "frames", "background", "orbit4d"}
_PER_FRAME = {
    *_INTRINSICS, *_LENS, *_NO_PINHOLE, *_HARMLESS,
    "file_path", "mask_path", "transform_matrix", "time", "seconds", "camera_label", "frame",
}  # fmt: skip


# Reading ----------------------------------------------------------------------------------------------------


def read_transforms(path: str | os.PathLike[str], any_pose: bool = False) -> Transforms:
    """Read a transforms.json; `any_pose` leaves it to the caller to refuse mirrored and sheared cameras.

    InputError, one line that names the file, for what is none or contradicts itself, and for cameras that
    are no pinholes with a distortion that can be taken out (lens.py).
    """
    file = Path(path)
    try:
        # A byte-order mark is no part of the text.
        record = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; give a transforms.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a transforms.json ({error})") from None
    return parse_transforms(record, file, any_pose)


def read_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What orbit4d noted in a transforms.json, whatever else it holds; {} where there is none."""
    try:
        extra = json.loads(Path(path).read_text(encoding="utf-8-sig")).get("orbit4d")
    except (OSError, ValueError, AttributeError):
        return {}
    return extra if isinstance(extra, dict) else {}


def parse_transforms(record: Any, path: str | os.PathLike[str], any_pose: bool = False) -> Transforms:
    """Inverse of `transforms_record` and `cameras_record`; `path` names the record in messages."""
    file = Path(path)
    frames = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{file}: not a transforms.json: it has no list `frames` with a camera each")
    names = [str(frame.get("file_path") or "") for frame in frames]
    labels = [name or f"frame {i}" for i, name in enumerate(names)]
    shared = {key: value for key, value in record.items() if key != "frames"}
    merged = [{**shared, **frame} for frame in frames]
    parsed = [_Frame(file, label, frame, any_pose) for label, frame in zip(labels, merged)]
    times = _all_or_none(file, labels, [frame.get("time") for frame in frames], "time")
    seconds = _all_or_none(file, labels, [frame.get("seconds") for frame in frames], "seconds")
    extra = record.get("orbit4d")
    return Transforms(
        path=file,
        c2w=tuple(frame.c2w() for frame in parsed),
        intrinsics=tuple(frame.intrinsics() for frame in parsed),
        lenses=tuple(frame.lens() for frame in parsed),
        files=tuple(_all_or_none(file, labels, [name or None for name in names], "file_path") or ()),
        masks=tuple(_texts(file, labels, [f.get("mask_path") for f in frames], "mask_path")),
        times=None if times is None else _in_unit(file, labels, times),
        seconds=None if seconds is None else tuple(_number(file, "seconds", value) for value in seconds),
        background=_background(file, record.get("background")),
        extra=extra if isinstance(extra, dict) else {},
        notes=_unknown(file, record, frames),
        labels=tuple(_texts(file, labels, [f.get("camera_label") for f in frames], "camera_label")),
    )


@dataclass(frozen=True)
class _Frame:
    """One frame with what all share."""

    file: Path
    label: str
    given: Mapping[str, Any]
    any_pose: bool = False

    def number(self, key: str) -> float:
        return _number(self.file, f"{self.label}: {key}", self.given[key])

    def refuse(self, why: str) -> InputError:
        return InputError(f"{self.file}: not a transforms.json that can be read: {self.label} {why}")

    def c2w(self) -> Array:
        try:
            matrix = np.array(self.given["transform_matrix"], dtype=np.float64)
        except KeyError:
            raise self.refuse("has no transform_matrix") from None
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
        if (why := pose_fault(matrix, self.any_pose)) is not None:
            raise self.refuse(f"has a transform_matrix that {why}")
        return matrix

    def intrinsics(self) -> dict[str, float]:
        values = {key: self.number(key) for key in _INTRINSICS if self.given.get(key) is not None}
        for key in ("w", "h", "fl_x", "fl_y"):
            if values.get(key, 1) <= 0:
                raise self.refuse(f"has {key} {values[key]:g}")
        for key in ("w", "h"):
            if values.get(key, 1) != int(values.get(key, 1)):
                raise self.refuse(f"has {key} {values[key]:g}, which is no number of pixels")
        for key in ("camera_angle_x", "camera_angle_y"):
            if not 0 < values.get(key, 1) < np.pi:
                raise self.refuse(f"has {key} {values[key]:g}: give radians between 0 and pi")
        if (why := lens_fault(values)) is not None:
            raise self.refuse(why)
        return values

    def lens(self) -> Lens:
        model = str(self.given.get("camera_model") or "PINHOLE").upper()
        if model not in _MODELS:
            raise InputError(
                f"{self.file}: camera_model {self.given['camera_model']} is not read (known are "
                f"{', '.join(_MODELS)}); undistort the images first"
            )
        for key in _NO_PINHOLE:
            value = self.given.get(key)
            if np.any(np.asarray(value if value is not None else 0, dtype=object).astype(bool)):
                raise InputError(
                    f"{self.file}: {key} {value} cannot be taken out; undistort the images first"
                )
        k1, k2, k3, k4, p1, p2 = (self.number(key) if self.given.get(key) else 0.0 for key in _LENS[2:])
        if model == "FULL_OPENCV" and k4:
            raise InputError(
                f"{self.file}: k4 of FULL_OPENCV cannot be taken out; undistort the images first"
            )
        fisheye = _MODELS[model] or bool(self.given.get("is_fisheye"))
        return Lens(fisheye, (k1, k2, k3, k4), (0.0, 0.0) if fisheye else (p1, p2))


def _number(file: Path, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{file}: not a transforms.json that can be read: {what} is {value!r}, no number")
    return float(value)


def _all_or_none(file: Path, labels: Sequence[str], values: list[Any], key: str) -> list[Any] | None:
    """The values where all frames have one, None where none has."""
    have = [value is not None for value in values]
    if not any(have):
        return None
    if not all(have):
        without = labels[have.index(False)]
        raise InputError(
            f"{file}: {without} has no {key}, {sum(have)} of {len(have)} frames have one; "
            "give it to all or none"
        )
    return values


def _texts(file: Path, labels: Sequence[str], values: list[Any], key: str) -> list[str]:
    for label, value in zip(labels, values):
        if value is not None and (not isinstance(value, str) or not value):
            raise InputError(f"{file}: {label}: {key} is {value!r}, no text")
    return _all_or_none(file, labels, values, key) or []


def _in_unit(file: Path, labels: Sequence[str], values: list[Any]) -> tuple[float, ...]:
    times = tuple(_number(file, f"{label}: time", value) for label, value in zip(labels, values))
    for label, time in zip(labels, times):
        if not 0 <= time <= 1:
            raise InputError(f"{file}: times must lie in [0, 1], {label} has {time:g}")
    return times


def _background(file: Path, named: Any) -> npt.NDArray[np.float32] | None:
    if named is None:
        return None
    try:
        colour = np.asarray(named, dtype=np.float32).reshape(3) / 255
    except (TypeError, ValueError):
        colour = np.full(3, np.nan, np.float32)
    if not ((colour >= 0) & (colour <= 1)).all():
        raise InputError(f"{file}: background {named}: give [red, green, blue] of 0 to 255, or leave it out")
    return colour


def _unknown(file: Path, record: Mapping[str, Any], frames: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    keys = [key for key in record if key not in _TOP]
    inside = dict.fromkeys(key for frame in frames for key in frame if key not in _PER_FRAME)
    keys += [f"{key} (of frames)" for key in inside]
    notes = [f"{file.name}: keys that are not read: {', '.join(keys)}"] if keys else []
    first = {**record, **next(iter(frames))}
    if None not in (first.get("fl_x"), first.get("camera_angle_x"), first.get("w")):
        implied = first["w"] / (2 * np.tan(first["camera_angle_x"] / 2))
        if abs(implied / first["fl_x"] - 1) > 0.02:
            notes.append(f"{file.name}: fl_x {first['fl_x']:g} counts, camera_angle_x says {implied:g}")
    return tuple(notes)


def find_transforms(source: str | os.PathLike[str]) -> Path | None:
    """The transforms.json that belongs to a video or to a folder of images; None where there is none.

    Of x.mp4: x/transforms.json (as `orbit4d generate` writes it), x.json, x_transforms.json. Of a folder: the
    one in it, else transforms_train.json (NeRF-synthetic, D-NeRF). Of a folder of images alone, such as
    x/images or x/train: x/transforms.json or x/transforms_train.json, where that lists images of the folder.
    """
    path = Path(source)
    if path.is_dir():
        for inside in (path / "transforms.json", path / "transforms_train.json"):
            if inside.is_file():
                return inside
        above = path.absolute().parent
        around = (above / f"transforms_{path.name}.json", above / "transforms.json")
        return next((file for file in around if file.is_file() and _lists_images_of(file, path)), None)
    stem = path.with_suffix("")
    if (stem / "transforms.json").is_file():
        return stem / "transforms.json"
    beside = (path.with_suffix(".json"), path.with_name(f"{path.stem}_transforms.json"))
    return next((file for file in beside if file != path and file.is_file() and _entries(file)), None)


def _entries(file: Path) -> list[Mapping[str, Any]]:
    """Frames of a file with cameras, [] for any other JSON."""
    try:
        frames = json.loads(file.read_text(encoding="utf-8-sig"))["frames"]
        return [frame for frame in frames if "transform_matrix" in frame]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _lists_images_of(file: Path, folder: Path) -> bool:
    inside = folder.absolute()
    names = [str(frame.get("file_path", "")) for frame in _entries(file)]
    return any((file.absolute().parent / name).parent.resolve() == inside.resolve() for name in names if name)


# Writing ----------------------------------------------------------------------------------------------------


def intrinsics_record(camera: Camera) -> dict[str, float]:
    """fl_x, fl_y, cx, cy, w, h of a camera."""
    return {name: getattr(camera, name) for name in ("fl_x", "fl_y", "cx", "cy", "w", "h")}


def transforms_record(
    cameras: Sequence[Camera],
    files: Sequence[str],
    times: Sequence[float],
    seconds: Sequence[float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """nerfstudio's transforms.json of frames that share the first camera's intrinsics, with a time each.

    `more` stands before `frames` at the top.
    """
    frames = [
        {"file_path": name, "transform_matrix": camera.c2w.tolist(), "time": time}
        for name, camera, time in zip(files, cameras, times)
    ]
    if seconds is not None:
        frames = [{**frame, "seconds": second} for frame, second in zip(frames, seconds)]
    return {"camera_model": "OPENCV", **intrinsics_record(cameras[0]), **more, "frames": frames}


def frame_record(camera: Camera, time: float, **names: Any) -> dict[str, Any]:
    """One frame with intrinsics of its own; `names`, such as its file, stand first."""
    return {**names, "transform_matrix": camera.c2w.tolist(), **intrinsics_record(camera), "time": time}


def cameras_record(cameras: Sequence[Camera], times: Sequence[float]) -> dict[str, Any]:
    """A record of cameras with intrinsics of their own, and their times."""
    return {"frames": [frame_record(camera, time) for camera, time in zip(cameras, times)]}
