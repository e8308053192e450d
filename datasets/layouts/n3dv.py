"""N3DV (Neural 3D Video): `cam00.mp4, cam01.mp4, ...` and `poses_bounds.npy` beside them; cam00 is the test
view.

A row is a 3x5 matrix, row-major, and near and far depth. Its columns: camera down, right and backwards in the
world, centre, and (H, W, f). Static cameras with one focal length and a centred principal point only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Array
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.layouts.importing import BadFolder, Place, video_clip
from orbit4d.datasets.layouts.scenes import Scene, clip_record, is_static, recorded_cameras
from orbit4d.datasets.sources.asset import clean_uid
from orbit4d.datasets.store.clip import Clip, sample_name

POSES, NEIGHBOUR = "poses_bounds.npy", "orbit4d.json"
#: Radius of the ball around a normalised object (longest edge 1), for bounds without a depth pass.
_BALL = float(np.sqrt(3.0) / 2.0)
#: Room beyond the depths seen.
_NEARER, _FARTHER = 0.9, 1.1

Video = Callable[[Clip], bytes]


def check(scene: Scene, settings: ExportSettings) -> None:
    """Raise InputError for a scene that the layout cannot say."""
    for clip in scene.clips:
        camera = clip.cameras[0]
        if not is_static(clip):
            raise InputError(
                f"{sample_name(clip.key)}: the camera moves, N3DV holds static ones; choose a rig by --where"
            )
        if camera.fl_x != camera.fl_y or (camera.cx, camera.cy) != (camera.w / 2, camera.h / 2):
            raise InputError(
                f"{sample_name(clip.key)}: N3DV holds one focal length and a centred principal point"
            )
    if len(scene.pick(settings.test_cameras)) > 1:
        raise InputError("--test-cameras: N3DV has one test camera, cam00; name one")


def order(scene: Scene, settings: ExportSettings) -> list[int]:
    """Places of the cameras as the files count them: the test camera first."""
    test = scene.pick(settings.test_cameras)
    return [*test, *(place for place in range(len(scene.clips)) if place not in test)]


def clip_files(
    scene: Scene, place: int, clip: Clip, settings: ExportSettings, video: Video
) -> dict[str, bytes]:
    """The video of one camera."""
    number = order(scene, settings).index(place)
    return {f"{scene.name}/cam{number:02d}.mp4": video(clip)}


def depths(clip: Clip) -> tuple[float, float]:
    """(smallest, largest) depth: of the depth pass, else of the ball around a normalised object."""
    if "depth" in clip.passes:
        seen = clip.pass_arrays("depth")
        seen = seen[np.isfinite(seen) & (seen > 0)]
        if seen.size:
            return float(seen.min()), float(seen.max())
    distance = float(np.linalg.norm(clip.cameras[0].position))
    return max(distance - _BALL, 0.01), distance + _BALL


def scene_files(
    scene: Scene, settings: ExportSettings, measured: Sequence[tuple[float, float]]
) -> Mapping[str, bytes]:
    """Poses with bounds, and what they have no place for."""
    numbers = order(scene, settings)
    clips = [scene.clips[place] for place in numbers]
    rows = np.stack([_row(scene.clips[place], *measured[place]) for place in numbers])
    buffer = io.BytesIO()
    np.save(buffer, rows)
    records = {f"cam{number:02d}": clip_record(clip) for number, clip in enumerate(clips)}
    return {
        f"{scene.name}/{POSES}": buffer.getvalue(),
        f"{scene.name}/{NEIGHBOUR}": json.dumps({"clips": records}, indent=1).encode(),
    }


def _row(clip: Clip, near: float, far: float) -> Array:
    camera = clip.cameras[0]
    c2w = camera.c2w
    columns = [-c2w[:3, 1], c2w[:3, 0], c2w[:3, 2], c2w[:3, 3], np.array([camera.h, camera.w, camera.fl_x])]
    return np.concatenate([np.stack(columns, 1).reshape(15), [near * _NEARER, far * _FARTHER]])


# In ---------------------------------------------------------------------------------------------------------


def locate(parts: Sequence[str]) -> tuple[str, str] | None:
    """(scene, file) of a path of the layout, or None."""
    name = parts[-1]
    known = name in (POSES, NEIGHBOUR) or (name.startswith("cam") and name.endswith(".mp4"))
    return (parts[-2], name) if known and len(parts) > 1 else None


def clips_of(scene: str, files: Mapping[str, bytes]) -> list[Clip]:
    """Clips of a scene's files; row k belongs to the k-th video in sorted order. Raises BadFolder."""
    videos = sorted(name for name in files if name.endswith(".mp4"))
    if not videos or POSES not in files:
        raise BadFolder("bad_file:missing_cameras", f"{scene}: needs {POSES} and cam00.mp4, cam01.mp4, ...")
    rows = read_rows(scene, files[POSES])
    if len(rows) != len(videos):
        raise BadFolder("bad_file:missing_cameras", f"{scene}: {len(rows)} rows for {len(videos)} videos")
    try:
        records: dict[str, Any] = json.loads(files.get(NEIGHBOUR, b"{}")).get("clips", {})
    except (ValueError, AttributeError) as error:
        raise BadFolder("bad_file:json", f"{scene}: {NEIGHBOUR}: {error}") from error
    clips = []
    for number, (name, row) in enumerate(zip(videos, rows)):
        c2w, _, width, focal = pose_of(row)
        record = records.get(name[:-4])
        place = Place(clean_uid(scene), "n3dv", number, "n3dv")
        # The focal length is that of the full size; files are often read smaller.
        scaled = _scaled(float(focal), float(width))
        clips.append(video_clip(place, files[name], c2w[None], scaled, record, _agrees(record, c2w, focal)))
    return clips


def _scaled(focal: float, width: float) -> Callable[[tuple[int, int]], float]:
    return lambda size: focal * size[0] / width


def _agrees(record: Mapping[str, Any] | None, c2w: Array, focal: float) -> bool:
    try:
        cameras = recorded_cameras(record) if record is not None else []
    except (KeyError, TypeError, ValueError):
        return False
    return bool(cameras) and all(np.array_equal(c.c2w, c2w) and c.fl_x == focal for c in cameras)


def pose_of(row: npt.NDArray[np.float64]) -> tuple[Array, float, float, float]:
    """c2w [4, 4] with OpenGL axes, height, width and focal length in pixels of a row of `POSES`, [17]."""
    matrix, (height, width, focal) = row[:15].reshape(3, 5)[:, :4], row[:15].reshape(3, 5)[:, 4]
    c2w = np.eye(4)
    c2w[:3] = np.stack([matrix[:, 1], -matrix[:, 0], matrix[:, 2], matrix[:, 3]], 1)
    return c2w, float(height), float(width), float(focal)


def read_rows(scene: str, data: bytes) -> npt.NDArray[np.float64]:
    """Rows [cameras, 17] of the file's bytes. Raises BadFolder."""
    try:
        rows = np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise BadFolder("bad_file:camera", f"{scene}: {POSES} cannot be read ({error})") from error
    if rows.ndim != 2 or rows.shape[1] != 17 or not np.isfinite(rows).all() or (rows[:, 9] <= 0).any():
        raise BadFolder("bad_file:camera", f"{scene}: {POSES} is {rows.shape}, not [cameras, 17]")
    return rows
