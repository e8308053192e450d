"""D-NeRF, and Blender's synthetic scenes: `transforms_train/val/test.json` and the PNGs that they list.

`file_path` has no suffix (readers add `.png`), `transform_matrix` is camera-to-world with OpenGL axes, world
+Z up, as ours; `time` lies in [0, 1]. One `camera_angle_x` and a centred principal point for the whole file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.images.codec import encode_png, encode_webp
from orbit4d.datasets.layouts.importing import BadFolder, Place, made_clip, stack
from orbit4d.datasets.layouts.scenes import Scene, clip_record, recorded_cameras
from orbit4d.datasets.sources.asset import clean_uid
from orbit4d.datasets.store.clip import Clip

SPLITS = ("train", "val", "test")
NEIGHBOUR = "orbit4d.json"
#: Of one camera every frame of this number, counted from 1, is kept for testing: the first, at time 0, which
#: readers ask of the training set, is not among them.
EVERY = 8

Video = Callable[[Clip], bytes]


def check(scene: Scene, settings: ExportSettings) -> None:
    """Raise InputError for a scene that the layout cannot say."""
    first = scene.clips[0].cameras[0]
    if any(clip.cameras[0].intrinsics != first.intrinsics for clip in scene.clips):
        raise InputError(f"{scene.name}: cameras of different lens or size; D-NeRF holds one camera_angle_x")
    if first.fl_x != first.fl_y or (first.cx, first.cy) != (first.w / 2, first.h / 2):
        raise InputError(f"{scene.name}: D-NeRF holds square pixels and a centred principal point only")
    if settings.test_cameras and len(scene.pick(settings.test_cameras)) == len(scene.clips):
        raise InputError(f"{scene.name}: --test-cameras names every camera; leave one for training")


def places(scene: Scene, settings: ExportSettings) -> list[list[tuple[str, int]]]:
    """[camera][frame] -> (split, number within it)."""
    test = scene.pick(settings.test_cameras)
    total = sum(len(clip.time) for clip in scene.clips)
    counts = {"train": 0, "test": 0}
    found, number = [], 0
    for place, clip in enumerate(scene.clips):
        mine = []
        for _ in clip.time:
            every = min(EVERY, total) if total > 1 else EVERY
            kept = place in test if settings.test_cameras else number % every == every - 1
            split = "test" if kept else "train"
            mine.append((split, counts[split]))
            counts[split] += 1
            number += 1
        found.append(mine)
    return found


def clip_files(
    scene: Scene, place: int, clip: Clip, settings: ExportSettings, video: Video
) -> dict[str, bytes]:
    """PNGs of one camera, straight RGBA."""
    mine = places(scene, settings)[place]
    pixels = clip.pixels()
    return {
        f"{scene.name}/{split}/r_{number:03d}.png": encode_png(frame)
        for (split, number), frame in zip(mine, pixels)
    }


def scene_files(scene: Scene, settings: ExportSettings, measured: Sequence[Any]) -> Mapping[str, bytes]:
    """The three files; val is test."""
    where = places(scene, settings)
    first = scene.clips[0].cameras[0]
    angle = float(2 * np.arctan(first.w / (2 * first.fl_x)))
    files = {}
    for split, source in (("train", "train"), ("val", "test"), ("test", "test")):
        frames = [
            {
                "file_path": f"./{source}/r_{number:03d}",
                "time": time,
                "rotation": 0.0,
                "transform_matrix": camera.c2w.tolist(),
            }
            for clip, mine in zip(scene.clips, where)
            for (name, number), time, camera in zip(mine, clip.time, clip.cameras)
            if name == source
        ]
        record = {"camera_angle_x": angle, "frames": frames}
        files[f"{scene.name}/transforms_{split}.json"] = json.dumps(record, indent=1).encode()
    clips = [
        {"frames": [f"{split}/r_{number:03d}" for split, number in mine], "clip": clip_record(clip)}
        for clip, mine in zip(scene.clips, where)
    ]
    files[f"{scene.name}/{NEIGHBOUR}"] = json.dumps({"clips": clips}, indent=1).encode()
    return files


# In ---------------------------------------------------------------------------------------------------------


def locate(parts: Sequence[str]) -> tuple[str, str] | None:
    """(scene, file within it) of a path of the layout, or None."""
    name = parts[-1]
    if len(parts) > 1 and (name in {f"transforms_{s}.json" for s in SPLITS} or name == NEIGHBOUR):
        return parts[-2], name
    if len(parts) > 2 and parts[-2] in SPLITS and name.endswith(".png"):
        return parts[-3], f"{parts[-2]}/{name}"
    return None


def clips_of(scene: str, files: Mapping[str, bytes]) -> list[Clip]:
    """Clips of a scene: those that its neighbour records, else one a split (rig `dnerf`, orbit 0 train,
    1 val, 2 test). Raises BadFolder."""
    found: dict[str, tuple[Camera, float]] = {}
    listed: dict[str, list[str]] = {}
    for split in SPLITS:
        if f"transforms_{split}.json" in files:
            listed[split] = _read_split(scene, split, files, found)
    if not listed:
        raise BadFolder("bad_file:missing_cameras", f"{scene}: no transforms_train.json")
    if NEIGHBOUR in files:
        try:
            recorded = [(list(c["frames"]), dict(c["clip"])) for c in json.loads(files[NEIGHBOUR])["clips"]]
        except (ValueError, KeyError, TypeError) as error:
            raise BadFolder("bad_file:json", f"{scene}: {NEIGHBOUR}: {error!r}") from error
        return [_clip(scene, number, names, files, found, record)
                for number, (names, record) in enumerate(recorded)]  # fmt: skip
    return [
        _clip(scene, SPLITS.index(split), names, files, found, None)
        for split, names in listed.items()
        if names
    ]


def _read_split(
    scene: str, split: str, files: Mapping[str, bytes], found: dict[str, tuple[Camera, float]]
) -> list[str]:
    """Names of a split's images; their cameras and times go into `found`."""
    try:
        record = json.loads(files[f"transforms_{split}.json"])
        angle, names = float(record["camera_angle_x"]), []
        for i, frame in enumerate(record["frames"]):
            name = str(frame["file_path"]).removeprefix("./").removesuffix(".png")
            count = max(len(record["frames"]) - 1, 1)
            size = _size(scene, files, name)
            focal = 0.5 * size[0] / np.tan(0.5 * angle)
            c2w = np.array(frame["transform_matrix"], np.float64)
            camera = Camera(c2w, focal, focal, size[0] / 2, size[1] / 2, *size)
            found[name] = camera, float(frame.get("time", i / count))
            names.append(name)
    except (ValueError, KeyError, TypeError) as error:
        raise BadFolder("bad_file:camera", f"{scene}: transforms_{split}.json: {error!r}") from error
    return names


def _size(scene: str, files: Mapping[str, bytes], name: str) -> tuple[int, int]:
    """(width, height) of a PNG, from its header."""
    data = files.get(f"{name}.png")
    if data is None:
        raise BadFolder("bad_file:missing_frames", f"{scene}: {name}.png is listed and not there")
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        raise BadFolder("bad_file:truncated", f"{scene}: {name}.png is no PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _clip(
    scene: str,
    number: int,
    names: Sequence[str],
    files: Mapping[str, bytes],
    found: Mapping[str, tuple[Camera, float]],
    record: Mapping[str, Any] | None,
) -> Clip:
    lacking = [name for name in names if name not in found]
    if lacking:
        raise BadFolder("bad_file:missing_cameras", f"{scene}: {lacking[0]} is in no transforms file")
    pixels = stack([(name, files[f"{name}.png"]) for name in names])
    cameras, times = [found[name][0] for name in names], [found[name][1] for name in names]
    exact = False
    if record is not None:
        try:
            own = recorded_cameras(record)
            exact = len(own) == len(cameras) and all(
                np.array_equal(a.c2w, b.c2w) and np.isclose(a.fl_x, b.fl_x, rtol=1e-9)
                for a, b in zip(own, cameras)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadFolder("bad_file:json", f"{scene}: {NEIGHBOUR}: {error!r}") from error
    place = Place(clean_uid(scene), "dnerf", number, "dnerf")
    frames = [encode_webp(frame) for frame in pixels]
    return made_clip(place, frames, cameras, times, record, exact, times)
