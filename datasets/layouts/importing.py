"""The import of published folders: a loop over assets that stages their clips and counts what became of each.

A layout gives `run_import` two functions: where a file belongs, and what clips an asset's files make.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.images.codec import Pixels, encode_webp
from orbit4d.datasets.images.folders import UNREADABLE, rgba_of
from orbit4d.datasets.layouts.archives import Files, Locate, assets
from orbit4d.datasets.layouts.published_cameras import polar
from orbit4d.datasets.layouts.scenes import recorded_cameras, recorded_clip
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.datasets.videos.video import read_video


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    assets: int
    clips: int
    rejected: int
    already: int
    """Assets that the dataset held before."""
    without_caption: int = 0
    """New assets that a captions table was given for and does not name."""


class BadFolder(Exception):
    """A folder that cannot become clips: (reason code, detail)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def listed(source: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(s) for s in source]


def run_import(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    config: Mapping[str, Any],
    locate: Locate,
    build: Callable[[str, Files], tuple[list[Clip], list[Rejection]]],
    captions: str | None,
    shard_bytes: int,
) -> Imported:
    from orbit4d.datasets.sources.captions import read_captions

    texts = read_captions(captions) if captions else {}
    found = assets(sources, locate)
    first = next(found)  # Bad input is said before anything is written.
    writer = DatasetWriter(out, config, shard_bytes=shard_bytes)
    done, waiting, counts = writer.finished(), 0, [0, 0, 0, 0, 0]
    with Progress("import", None, "asset") as progress:
        for asset, files in (item for part in ([first], found) for item in part):
            progress.update()
            if asset in done:
                counts[3] += 1
                continue
            clips, refused = build(asset, files)
            writer.reject(refused)
            counts[2] += len(refused)
            if not clips:
                continue
            record = texts.get(asset, {})
            counts[4] += captions is not None and not record
            fields = {
                key: record[key] for key in ("caption", "license", "author", "source_url") if record.get(key)
            }
            clips = [Clip(**{**clip.__dict__, **fields}) for clip in clips]
            writer.stage(asset, clips)
            counts[0], counts[1] = counts[0] + 1, counts[1] + len(clips)
            waiting += sum(len(member) for clip in clips for member in clip.members)
            if waiting >= writer.shard_bytes:
                writer.roll()
                waiting = 0
    writer.roll(final=True)
    return Imported(*counts)


def read_json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        content = json.loads(files[name])
    except ValueError as error:
        raise BadFolder("bad_file:json", f"{name}: {error}") from error
    return content if isinstance(content, dict) else {}


def stack(images: Sequence[tuple[str, bytes]]) -> Pixels:
    frames = []
    for name, data in images:
        try:
            frames.append(rgba_of(io.BytesIO(data)))
        except UNREADABLE as error:
            raise BadFolder("bad_file:truncated", f"{name}: {error}") from error
    if len({frame.shape for frame in frames}) > 1:
        raise BadFolder("bad_file:image", "images of different sizes")
    return np.stack(frames)


@dataclass(frozen=True)
class Place:
    """Where a clip of an outside layout stands that says nothing of itself."""

    uid: str
    rig: str
    orbit: int
    layout: str


def video_clip(
    place: Place,
    video: bytes,
    c2w: npt.NDArray[np.float64],
    focal: Callable[[tuple[int, int]], float],
    record: Mapping[str, Any] | None = None,
    exact: bool = False,
) -> Clip:
    """The clip of one camera's mp4: `c2w` [F, 4, 4], or [1, 4, 4] of a static camera; `focal` gives pixels
    for (width, height). A `record` of ours says the rest, its cameras too where they are `exact`."""
    rgb, seconds = _decoded(video, f"{place.uid} {place.orbit}")
    n, h, w, _ = rgb.shape
    if len(c2w) not in (1, n):
        raise BadFolder("bad_file:missing_cameras", f"{place.uid}: {len(c2w)} cameras of {n} frames")
    fl = focal((w, h))
    poses = np.broadcast_to(c2w, (n, 4, 4))
    cameras = [Camera(pose, fl, fl, w / 2, h / 2, w, h) for pose in poses]
    alpha = np.full((n, h, w, 1), 255, np.uint8)
    frames = [encode_webp(frame) for frame in np.concatenate([rgb, alpha], -1)]
    return made_clip(place, frames, cameras, seconds, record, exact)


def made_clip(
    place: Place,
    frames: Sequence[bytes],
    cameras: Sequence[Camera],
    seconds: Sequence[float],
    record: Mapping[str, Any] | None = None,
    exact: bool = False,
    times: Sequence[float] | None = None,
    passes: Mapping[str, tuple[bytes, ...]] | None = None,
) -> Clip:
    """A clip by its record, else by its place with what cameras and times say. Raises BadFolder."""
    try:
        if record is not None:
            own = recorded_cameras(record)
            if exact:
                cameras = own
            elif own[0].intrinsics[4:] == cameras[0].intrinsics[4:]:
                cameras = [Camera(camera.c2w, *own[0].intrinsics) for camera in cameras]
            return recorded_clip(record, frames, cameras, passes)
        last = max(len(frames) - 1, 1)
        azimuth, elevation, radius = polar(cameras[0])
        return Clip(
            uid=place.uid,
            action="",
            action_index=0,
            rig=place.rig,
            orbit=place.orbit,
            frames=tuple(frames),
            cameras=tuple(cameras),
            time=tuple(times if times is not None else (i / last for i in range(len(frames)))),
            seconds=tuple(seconds),
            window=(float(min(seconds)), float(max(seconds))),
            scale=1.0,
            centre=(0.0, 0.0, 0.0),
            azimuth0_deg=azimuth,
            elevation_deg=elevation,
            radius=radius,
            passes=dict(passes or {}),
            renderer={"engine": "published", "layout": place.layout},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadFolder("bad_file:content", f"{place.uid}: {error}") from error


def _decoded(video: bytes, name: str) -> tuple[Pixels, list[float]]:
    """(RGB [F, H, W, 3], seconds [F]) of an mp4."""
    with tempfile.TemporaryDirectory(prefix="orbit4d-mp4-") as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(video)
        try:
            found = read_video(path)
        except InputError as error:
            raise BadFolder("bad_file:video", f"{name}: {str(error).partition(': ')[2]}") from error
    return found.frames[..., :3], found.seconds.tolist()
