"""SynCamVideo (2024 and 2025), MultiCamVideo and ReCamMaster: out and in.

2024: `train/videos/sceneN/<key>.mp4` and `train/cameras/sceneN/cameras.json`, key -> matrix string, cameras
static. 2025 and MultiCamVideo: `train/f24_aperture5/sceneN/videos/cam01.mp4` and `cameras/
camera_extrinsics.json`, frame -> camera -> matrix string of six digits. ReCamMaster reads the latter through
`metadata.csv` (file_name below train/, text). What these files have no place for, the target and metres a
unit too, stands beside the cameras in `orbit4d.json`; axes and units stand in cameras/unreal.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Array, Camera
from orbit4d.datasets.cameras.unreal import (
    METRES_PER_UNIT,
    focal_of,
    from_c2w,
    lens_of,
    matrix_text,
    parse_matrix,
    target_of,
    to_c2w,
)
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.captions import captions_of
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.layouts.importing import BadFolder, Place, video_clip
from orbit4d.datasets.layouts.scenes import Scene, clip_record, is_static, recorded_cameras
from orbit4d.datasets.sources.asset import clean_uid
from orbit4d.datasets.store.clip import Clip, sample_name

#: Where what the files cannot say is kept, beside the cameras.
NEIGHBOUR = "orbit4d.json"
#: Apertures that the published folders name with each lens.
_APERTURES = {"18": "10", "24": "5", "35": "2.4", "50": "2.4"}
_MOST_2024 = 36
_LENS_KEY = re.compile(r"_(\d+(?:\.\d+)?)mm$")
_LENS_FOLDER = re.compile(r"f(\d+(?:\.\d+)?)_aperture[\d.]+")
#: The published lens where no name says one, mm.
_LENS_MM = 24.0

#: Rig of cameras that no record names.
_RIG = "syncam"

Video = Callable[[Clip], bytes]


# Out --------------------------------------------------------------------------------------------------------


def check_moving(scene: Scene, settings: ExportSettings) -> None:
    """A scene that the 2025 JSON can say: one size and lens."""
    first = scene.clips[0].cameras[0]
    for clip in scene.clips:
        camera = clip.cameras[0]
        if camera.intrinsics != first.intrinsics:
            raise InputError(f"{scene.name}: cameras differ in lens or size; the layout holds one a scene")
        if camera.fl_x != camera.fl_y or (camera.cx, camera.cy) != (camera.w / 2, camera.h / 2):
            raise InputError(f"{scene.name}: the layout holds square pixels and centred principal points")


def check_2025(scene: Scene, settings: ExportSettings) -> None:
    """SynCamVideo: static cameras."""
    check_moving(scene, settings)
    moving = next((clip for clip in scene.clips if not is_static(clip)), None)
    if moving is not None:
        raise InputError(
            f"{sample_name(moving.key)}: the camera moves, SynCamVideo holds static ones; use --format "
            "multicamvideo, or choose a rig by --where"
        )


def check_2024(scene: Scene, settings: ExportSettings) -> None:
    """At most 36 static cameras."""
    check_2025(scene, settings)
    if len(scene.clips) > _MOST_2024:
        raise InputError(
            f"{scene.name}: {len(scene.clips)} cameras, SynCamVideo of 2024 holds {_MOST_2024} of a scene"
        )


def _lens_name(scene: Scene) -> str:
    camera = scene.clips[0].cameras[0]
    return f"{round(lens_of(camera.fl_x, (camera.w, camera.h)), 4):g}"


def _folder_2025(scene: Scene) -> str:
    lens = _lens_name(scene)
    return f"train/f{lens}_aperture{_APERTURES.get(lens, '0')}/scene{scene.number}"


def key_2024(number: int, lens: str) -> str:
    """Key of camera `number` (from 0): C_01 .. C_12, A_01 .. A_12, B_01 .. B_12, the order of the files."""
    return f"{'CAB'[number // 12]}_{number % 12 + 1:02d}_{lens}mm"


def clip_2024(
    scene: Scene, place: int, clip: Clip, settings: ExportSettings, video: Video
) -> dict[str, bytes]:
    """The video of one camera."""
    return {f"train/videos/scene{scene.number}/{key_2024(place, _lens_name(scene))}.mp4": video(clip)}


def scene_2024(scene: Scene, settings: ExportSettings, measured: Sequence[Any]) -> Mapping[str, bytes]:
    """Cameras with all their digits."""
    keys = [key_2024(place, _lens_name(scene)) for place in range(len(scene.clips))]
    strings = {k: matrix_text(_unreal(clip.cameras[0])) for k, clip in zip(keys, scene.clips)}
    folder = f"train/cameras/scene{scene.number}"
    return {
        f"{folder}/cameras.json": json.dumps(strings, indent=1).encode(),
        f"{folder}/{NEIGHBOUR}": _neighbour(scene, dict(zip(keys, scene.clips))),
    }


def clip_2025(
    scene: Scene, place: int, clip: Clip, settings: ExportSettings, video: Video
) -> dict[str, bytes]:
    """The video of one camera."""
    return {f"{_folder_2025(scene)}/videos/{scene.labels[place]}.mp4": video(clip)}


def scene_2025(scene: Scene, settings: ExportSettings, measured: Sequence[Any]) -> Mapping[str, bytes]:
    """Cameras of each frame, six digits as published."""
    frames = {
        f"frame{i}": {
            label: matrix_text(_unreal(clip.cameras[i]), 6) for label, clip in zip(scene.labels, scene.clips)
        }
        for i in range(len(scene.clips[0].time))
    }
    folder = f"{_folder_2025(scene)}/cameras"
    return {
        f"{folder}/camera_extrinsics.json": json.dumps(frames, indent=1).encode(),
        f"{folder}/{NEIGHBOUR}": _neighbour(scene, dict(zip(scene.labels, scene.clips))),
    }


def recammaster_table(scenes: Sequence[Scene], settings: ExportSettings) -> Mapping[str, bytes]:
    """metadata.csv: the videos below train/, and their captions."""
    clips = [(scene, place, clip) for scene in scenes for place, clip in enumerate(scene.clips)]
    names = [sample_name(clip.key) for _, _, clip in clips]
    texts = captions_of([clip.caption for _, _, clip in clips], names, settings)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file_name", "text"])
    for (scene, place, _), text in zip(clips, texts):
        path = f"{_folder_2025(scene)}/videos/{scene.labels[place]}.mp4"
        writer.writerow([path.removeprefix("train/"), text])
    return {"metadata.csv": table.getvalue().encode()}


def _unreal(camera: Camera) -> Array:
    return from_c2w(camera.c2w, np.zeros(3))


def _neighbour(scene: Scene, clips: Mapping[str, Clip]) -> bytes:
    record = {
        "target_cm": [0.0, 0.0, 0.0],
        "metres_per_unit": METRES_PER_UNIT,
        "scene": scene.name,
        "clips": {label: clip_record(clip) for label, clip in clips.items()},
    }
    return json.dumps(record, indent=1).encode()


# In ---------------------------------------------------------------------------------------------------------


def locate(parts: Sequence[str]) -> tuple[str, str] | None:
    """(scene, file within it) of a path of one of the layouts, or None."""
    if len(parts) < 3:
        return None
    name, kind, above = parts[-1], parts[-2], parts[-3]
    if kind in ("videos", "cameras") and name.endswith((".mp4", ".json")):
        lens = parts[-4] if len(parts) > 3 and _LENS_FOLDER.fullmatch(parts[-4]) else ""
        return f"{lens}/{above}" if lens else above, f"{kind}/{name}"
    if above in ("videos", "cameras") and name.endswith((".mp4", ".json")):
        return kind, f"{above}/{name}"
    return None


def clips_of(scene: str, files: Mapping[str, bytes]) -> list[Clip]:
    """Clips of a scene's files. Raises BadFolder."""
    videos = {name[7:-4]: data for name, data in files.items() if name.startswith("videos/")}
    tables = {n: d for n, d in files.items() if n.startswith("cameras/") and not n.endswith(NEIGHBOUR)}
    if not videos:
        raise BadFolder("bad_file:missing_frames", f"{scene}: no videos")
    if len(tables) != 1:
        raise BadFolder("bad_file:missing_cameras", f"{scene}: {len(tables)} files of cameras instead of one")
    matrices, texts = matrices_of(scene, next(iter(tables.values())))
    if set(matrices) != set(videos):
        lacking = sorted(set(matrices) ^ set(videos))[0]
        raise BadFolder("bad_file:missing_cameras", f"{scene}: {lacking} has a video or a camera, not both")
    neighbour = _read_neighbour(scene, files)
    records = neighbour.get("clips", {})
    moving = any(len({str(row.tolist()) for row in rows}) > 1 for rows in matrices.values())
    target = neighbour.get("target_cm")
    if target is None:
        target = target_of([rows[0] for rows in matrices.values()], moving)
    metres = float(neighbour.get("metres_per_unit", METRES_PER_UNIT))
    clips = []
    for number, label in enumerate(matrices):
        record = records.get(label)
        lens = _LENS_KEY.search(label) or _LENS_FOLDER.match(scene)
        mm = float(lens[1]) if lens else _LENS_MM
        exact = record is not None and _agrees(record, matrices[label], texts[label], target, metres)
        c2w = to_c2w(matrices[label], target, metres)
        place = Place(_uid(scene), _RIG, number, "syncammaster")
        clips.append(video_clip(place, videos[label], c2w, partial(focal_of, mm), record, exact))
    return clips


def _uid(scene: str) -> str:
    return clean_uid(scene.replace("/", "_"))


def matrices_of(scene: str, data: bytes) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """(camera -> [F or 1, 4, 4], camera -> its strings) of a file of either layout, in its order; BadFolder
    for anything else."""
    try:
        table = json.loads(data)
        first = next(iter(table.values()))
        if isinstance(first, str):
            texts = {key: [text] for key, text in table.items()}
        else:
            frames = sorted(table, key=lambda name: int(name.removeprefix("frame")))
            texts = {label: [table[frame][label] for frame in frames] for label in first}
        return {
            label: np.stack([parse_matrix(t) for t in strings]) for label, strings in texts.items()
        }, texts
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise BadFolder("bad_file:camera", f"{scene}: no camera file of this layout ({error!r})") from error


def _read_neighbour(scene: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    data = files.get(f"cameras/{NEIGHBOUR}")
    try:
        found = json.loads(data) if data is not None else {}
    except ValueError as error:
        raise BadFolder("bad_file:json", f"{scene}: {NEIGHBOUR}: {error}") from error
    return found if isinstance(found, dict) else {}


def _agrees(
    record: Mapping[str, Any], matrices: Array, texts: Sequence[str], target: Any, metres: float
) -> bool:
    """Whether a record's cameras are those of the file: whoever changed the file means the file."""
    try:
        own = [from_c2w(camera.c2w, target, metres) for camera in recorded_cameras(record)]
    except (KeyError, TypeError, ValueError):
        return False
    if len(own) != len(texts):
        # Static cameras stand once in the 2024 files, with all their digits.
        return len(texts) == 1 and all(np.array_equal(matrix, matrices[0]) for matrix in own)
    six = [matrix_text(matrix, 6).split() == text.split() for matrix, text in zip(own, texts)]
    return all(six) or all(map(np.array_equal, own, matrices))
