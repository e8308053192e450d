"""nerfstudio's transforms.json with `time`, `seconds`, `camera_label` and `frame` a frame: out and in.

A clip is a folder with `images/000.png`; the cameras of a synchronised rig share one, `images/cam01/000.png`,
so that names in text order are cameras and frames in order. Axes are ours (c2w, OpenGL); intrinsics stand at
the top where all cameras share them, else in each frame.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.cameras.transforms import intrinsics_record, parse_transforms, transforms_record
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.codec import encode_png, encode_webp, suffix
from orbit4d.datasets.layouts.importing import BadFolder, Place, made_clip, stack
from orbit4d.datasets.layouts.scenes import camera_label, clip_record, recorded_cameras, scene_name
from orbit4d.datasets.sources.asset import clean_uid
from orbit4d.datasets.store.clip import RIGS, Clip, sample_name
from orbit4d.datasets.store.passes import PASSES, decode_pass

NAME = "transforms.json"


# Out --------------------------------------------------------------------------------------------------------


def transforms(clip: Clip, pattern: str = "images/{i:03d}.png") -> dict[str, Any]:
    """The transforms.json of a clip, with `time` per frame; same axes as ours (cameras.py)."""
    files = [pattern.format(i=i) for i in range(len(clip.cameras))]
    record = transforms_record(clip.cameras, files, clip.time, clip.seconds)
    for i, frame in enumerate(record["frames"]):
        frame |= {"camera_label": camera_label(clip), "frame": i}
    return {**record, "orbit4d": _about(clip)}


def _about(clip: Clip) -> dict[str, Any]:
    names = ("uid", "action", "action_index", "rig", "orbit", "caption", "license")
    # What an old file has no word for is left out where it says nothing.
    more = {name: getattr(clip, name, None) for name in ("light", "camera_label")}
    return {name: getattr(clip, name) for name in names} | {k: v for k, v in more.items() if v}


def asset_files(asset: Sequence[Clip]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of an asset's clips: a folder each, and one for the cameras of a synchronised rig."""
    rigs: dict[str, list[Clip]] = {}
    for clip in asset:
        alone = clip.rig in RIGS or clip.rig == "view_set"
        rigs.setdefault(sample_name(clip.key) if alone else scene_name(clip), []).append(clip)
    for name, clips in rigs.items():
        if len(clips) == 1:
            name = sample_name(clips[0].key)
        yield from _folder_files(name, sorted(clips, key=lambda clip: clip.orbit))


def _folder_files(folder: str, clips: Sequence[Clip]) -> Iterator[tuple[str, bytes]]:
    several = len(clips) > 1
    shared = all(clip.cameras[0].intrinsics == clips[0].cameras[0].intrinsics for clip in clips)
    record: dict[str, Any] = {}
    frames = []
    for clip in clips:
        inner = f"{camera_label(clip)}/" if several else ""
        for i, pixels in enumerate(clip.pixels()):
            yield f"{folder}/images/{inner}{i:03d}.png", encode_png(pixels)
        for name in sorted(clip.passes):
            for i, data in enumerate(clip.passes[name]):
                shown = _finite_depth(data) if name == "depth" else data
                yield f"{folder}/{name}/{inner}{i:03d}.{suffix(data)}", shown
        mine = transforms(clip, f"images/{inner}{{i:03d}}.png")
        for i, frame in enumerate(mine["frames"]):
            if "depth" in clip.passes:
                # In the cameras' units: to be read with nerfstudio's depth-unit-scale-factor 1.
                frame["depth_file_path"] = f"depth/{inner}{i:03d}.npy"
            frames.append(frame if shared else {**frame, **intrinsics_record(clip.cameras[i])})
        record = record or mine
    if not shared:
        record = {key: value for key, value in record.items() if key not in _INTRINSICS}
    record |= {"frames": frames}
    stored = sorted({name for clip in clips for name in clip.passes})
    if stored:
        record["orbit4d"]["passes"] = {n: PASSES[n].meaning if n in PASSES else "" for n in stored}
    record["orbit4d"]["clips"] = {camera_label(clip): clip_record(clip) for clip in clips}
    yield f"{folder}/{NAME}", json.dumps(record, indent=1).encode()


_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


def _finite_depth(data: bytes) -> bytes:
    """A stored depth with 0, nerfstudio's mark, where nothing is hit."""
    depth = decode_pass(data, "depth")
    return _npy(np.where(np.isfinite(depth), depth, 0).astype(np.float32))


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


# In ---------------------------------------------------------------------------------------------------------


def locate(parts: Sequence[str]) -> tuple[str, str] | None:
    """(folder, file within it) of a path: transforms.json, or an image or array at most two folders below."""
    name = parts[-1]
    if name == NAME and len(parts) > 1:
        return parts[-2], name
    if not name.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".npy")):
        return None
    kinds = ("images", *PASSES)
    for back in (2, 3):
        if len(parts) > back and parts[-back] in kinds:
            return parts[-back - 1], "/".join(parts[-back:])
    return None


def clips_of(folder: str, files: Mapping[str, bytes]) -> list[Clip]:
    """A clip a camera label of a folder's transforms.json. Raises BadFolder."""
    if NAME not in files:
        raise BadFolder("bad_file:missing_cameras", f"{folder}: no {NAME} beside images/")
    try:
        content = json.loads(files[NAME])
        read = parse_transforms(content, f"{folder}/{NAME}")
        records = dict(read.extra.get("clips") or {})
        labels = [str(frame.get("camera_label", "")) for frame in content["frames"]]
    except InputError as error:
        raise BadFolder("bad_file:camera", str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFolder("bad_file:json", f"{folder}/{NAME}: {error!r}") from error
    if any(read.lenses):
        raise BadFolder("bad_file:camera", f"{folder}: its lens is distorted; undistort the images first")
    cameras: dict[str, list[int]] = {}
    for i in sorted(range(len(labels)), key=lambda i: read.files[i] if read.files else i):
        cameras.setdefault(labels[i], []).append(i)
    return [
        _clip(
            Place(clean_uid(folder), "nerfstudio", number, "nerfstudio"),
            read,
            rows,
            files,
            records.get(label),
        )
        for number, (label, rows) in enumerate(sorted(cameras.items()))
    ]


def _clip(
    place: Place,
    read: Transforms,
    rows: Sequence[int],
    files: Mapping[str, bytes],
    record: Mapping[str, Any] | None,
) -> Clip:
    names = [read.files[i].removeprefix("./") for i in rows]
    lacking = [name for name in names if name not in files]
    if lacking:
        raise BadFolder("bad_file:missing_frames", f"{place.uid}: {lacking[0]} is listed and not there")
    pixels = stack([(name, files[name]) for name in names])
    size = (pixels.shape[2], pixels.shape[1])
    try:
        every = read.cameras_for(size)
    except InputError as error:
        raise BadFolder("bad_file:camera", str(error)) from error
    cameras = [every[i] for i in rows]
    times = [read.times[i] for i in rows] if read.times else [0.0] * len(rows)
    seconds = [read.seconds[i] for i in rows] if read.seconds else times
    exact = False
    if record is not None:
        try:
            exact = recorded_cameras(record) == cameras
        except (KeyError, TypeError, ValueError) as error:
            raise BadFolder("bad_file:json", f"{place.uid}: orbit4d: {error!r}") from error
    frames = [encode_webp(frame) for frame in pixels]
    return made_clip(place, frames, cameras, seconds, record, exact, times, _passes(names, files))


def _passes(names: Sequence[str], files: Mapping[str, bytes]) -> dict[str, tuple[bytes, ...]]:
    """Passes that lie beside the images under the same names."""
    found = {}
    for kind in PASSES:
        members = [f"{kind}{name.removeprefix('images').rpartition('.')[0]}.npy" for name in names]
        if all(member in files for member in members):
            data = [files[member] for member in members]
            found[kind] = tuple(map(_infinite_depth, data) if kind == "depth" else data)
    return found


def _infinite_depth(data: bytes) -> bytes:
    depth = decode_pass(data, "depth")
    return _npy(np.where(depth > 0, depth, np.inf).astype(np.float32))
