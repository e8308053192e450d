"""What a novel view starts from: images with cameras, times and depth, from any source that has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.compose.completion.dtu_cameras import is_dtu, read_dtu_cameras
from orbit4d.compose.completion.view import View, view_of
from orbit4d.datasets.cameras.transforms import find_transforms, read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import image_files, read_image
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.reference import is_reference, open_reference

VIDEOS = (".mp4", ".webm", ".gif", ".mov", ".avi", ".mkv", ".m4v")


@dataclass(frozen=True)
class Given:
    """All inputs of one call."""

    views: tuple[View, ...]
    video: bool
    """Whether they follow one another in time."""
    scene: bool = False
    """Whether they were filmed with a scene of recon4d."""


def read_inputs(sources: Sequence[str], cameras: Path | None, path: str) -> Given:
    """The views that `sources` name: images, one video, one folder of frames, DATASET:uid[:action], a SCENE.

    `path` decides what of a clip is taken: for a path on which time runs all frames of another camera, else
    one view. InputError for what is not there, and another number of cameras than of inputs.
    """
    first = sources[0]
    if len(sources) == 1 and is_reference(first) and not Path(first).exists():
        if cameras is not None:
            raise InputError("--cameras: the clips of a dataset bring their own")
        return _clip(first, path)
    if len(sources) == 1 and (Path(first) / "scene.json").is_file():
        if cameras is not None:
            raise InputError("--cameras: a scene brings its own")
        return _scene(Path(first), path)
    given, beside = _files(sources)
    record = cameras or (None if beside is None else find_transforms(beside))
    if record is None:
        if len(given.views) > 1 and not given.video:
            raise InputError(f"{len(given.views)} images need --cameras, a transforms.json with one for each")
        return given
    if is_dtu(record):
        in_order = read_dtu_cameras(record, len(given.views), given.views[0].size)
        views = tuple(replace(view, camera=own) for view, own in zip(given.views, in_order))
        return replace(given, views=views)
    transforms = read_transforms(record)
    if len(transforms) != len(given.views):
        raise InputError(
            f"{record}: {len(transforms)} cameras for {len(given.views)} images; give one for each"
        )
    posed = transforms.cameras_for(given.views[0].size)
    if given.video and transforms.times is not None:
        times = transforms.times
    else:
        times = tuple(view.time for view in given.views)
    views = tuple(
        replace(view, camera=camera, time=time) for view, camera, time in zip(given.views, posed, times)
    )
    return replace(given, views=views)


def _files(sources: Sequence[str]) -> tuple[Given, str | None]:
    """Images, a video or a folder; and what a transforms.json may lie beside."""
    for source in sources:
        if not os.path.exists(source):
            raise InputError(f"{source}: no such image, video, folder or scene")
    first = Path(sources[0])
    if len(sources) == 1 and first.is_dir():
        inside = first / "frames" if (first / "frames").is_dir() else first
        files = image_files(inside)
        if not files:
            raise InputError(f"{first}: no image in this folder")
        frames = [read_image(file) for file in files]
        return _moving(frames, str(first)), str(first)
    if len(sources) == 1 and first.suffix.lower() in VIDEOS:
        from orbit4d.datasets.videos.video import read_video

        return _moving(list(read_video(first).frames), str(first)), str(first)
    views = tuple(view_of(read_image(source), source) for source in sources)
    if len({view.size for view in views}) > 1:
        raise InputError(f"{sources[0]}: the images differ in size; give images of one size")
    return Given(views, video=False), None


def _moving(frames: Sequence[npt.NDArray[np.uint8]], name: str) -> Given:
    last = max(len(frames) - 1, 1)
    views = tuple(view_of(frame, f"{name} frame {i}", i / last) for i, frame in enumerate(frames))
    if len({view.size for view in views}) > 1:
        raise InputError(f"{name}: its images differ in size")
    return Given(views, video=len(frames) > 1)


def _clip(reference: str, path: str) -> Given:
    dataset, uid, action = open_reference(reference)
    rig = {"dynamic_orbit": "front_view", "front_view": "dynamic_orbit"}.get(path, "static_orbit")
    clip = read_clip(dataset, uid, action, rig)
    if "depth" not in clip.passes:
        raise InputError(
            f"{reference}: its {rig} has no depth pass; render it with --passes depth, or give --depth-model "
            "and its frames as images"
        )
    count = len(clip.frames) if rig != "static_orbit" else 1
    pixels, depth = clip.pixels(), clip.pass_arrays("depth")
    views = tuple(
        replace(
            view_of(pixels[i], f"{reference} {rig} frame {i}", clip.time[i]),
            camera=clip.cameras[i],
            depth=depth[i].reshape(depth[i].shape[:2]).astype(np.float32),
        )
        for i in range(count)
    )
    return Given(views, video=count > 1)


def _scene(folder: Path, path: str) -> Given:
    from orbit4d.compose.completion.filmed import filmed
    from orbit4d.recon4d.scene import load_scene

    scene = load_scene(folder)
    if not scene.cameras:
        raise InputError(f"{folder}: this scene keeps no cameras; give its video and cameras")
    moving = path in ("dynamic_orbit", "front_view")
    times = scene.time if moving else scene.time[:1]
    cameras = scene.cameras if path == "front_view" else scene.cameras[:1] * len(times)
    views = tuple(filmed(scene, camera, time, str(folder)) for camera, time in zip(cameras, times))
    return Given(views, video=moving, scene=True)
