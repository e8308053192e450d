"""The files of one clip: its video, control videos, camera text and Pluecker maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.exports.camera_text import camera_text, pluecker_file
from orbit4d.datasets.exports.controls import control_frames
from orbit4d.datasets.exports.fitting import Fit, background_of, shortened
from orbit4d.datasets.exports.settings import CRF, FPS, ExportSettings
from orbit4d.datasets.images.over import over_bytes
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import row_clip
from orbit4d.datasets.trainers.targets import Made, Target
from orbit4d.datasets.videos.video import encode_mp4


@dataclass(frozen=True)
class Item:
    """A clip that is to be exported, as the index knows it."""

    row: int
    """Its number in the index."""
    name: str
    caption: str
    frames: int
    """Frames kept, of `of_frames`."""
    of_frames: int
    takes: int
    """Frames that the trainer takes of those."""
    fit: Fit
    folder: str = ""
    """What stands behind the folders' names, for trainers that keep buckets apart."""

    @property
    def bucket(self) -> str:
        """TAKENxWIDTHxHEIGHT."""
        return f"{self.takes}x{self.fit.target[0]}x{self.fit.target[1]}"


def clip_files(
    index: Index, item: Item, target: Target, settings: ExportSettings
) -> tuple[dict[str, bytes], Made]:
    """name -> content of a clip's files, and what is known of it. Holds the interpreter lock little."""
    row = index.row(item.row)
    clip = shortened(row_clip(row, read_members(index.shard_store, row)), item.frames)
    colour = background_of(settings, item.name)
    crf, fps = None if settings.exact else CRF, settings.fps or FPS
    video = f"{target.video_folder}{item.folder}/{item.name}.mp4"
    files = {video: encode_mp4(item.fit.smooth(over_bytes(clip.pixels(), colour)), fps, crf)}
    controls, facts = {}, {}
    for kind in settings.controls:
        frames, numbers = control_frames(kind, index, clip, item.fit, settings.depth)
        path = f"{target.control_folder(kind)}{item.folder}/{item.name}.mp4"
        files[path] = encode_mp4(frames, fps, crf)
        controls[kind], facts[kind] = path, numbers
    cameras = [item.fit.camera(camera) for camera in clip.cameras]
    camera = pluecker = None
    if convention := settings.camera_text or target.camera_text:
        camera = f"cameras/{item.name}.txt"
        files[camera] = camera_text(cameras, clip.seconds, convention, clip.source_url).encode()
    if settings.pluecker:
        pluecker = f"plucker/{item.name}.npz"
        files[pluecker] = pluecker_file(cameras, settings.pluecker)
    about = _row(clip, cameras, settings, colour, {k: v for each in facts.values() for k, v in each.items()})
    made = Made(
        item.name,
        item.caption,
        video,
        item.fit.target,
        item.frames,
        item.takes,
        controls,
        camera,
        pluecker,
        about,
    )
    return files, made


def _row(
    clip: Clip,
    cameras: Sequence[Camera],
    settings: ExportSettings,
    colour: tuple[int, int, int],
    facts: dict[str, Any],
) -> dict[str, Any]:
    first = cameras[0]
    return {
        "uid": clip.uid,
        "action": clip.action,
        "action_index": clip.action_index,
        "rig": clip.rig,
        "orbit": clip.orbit,
        "light": int(getattr(clip, "light", 0)),
        "fps": settings.fps or FPS,
        "width": first.w,
        "height": first.h,
        "time": list(clip.time),
        "seconds": list(clip.seconds),
        "c2w": [camera.c2w.reshape(16).tolist() for camera in cameras],
        **{name: getattr(first, name) for name in ("fl_x", "fl_y", "cx", "cy")},
        "background": list(colour),
        "license": clip.license,
        "author": clip.author,
        "source_url": clip.source_url,
        **facts,
    }
