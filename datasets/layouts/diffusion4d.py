"""Bring the published Diffusion4D renders, and G-Objaverse views, into a dataset; pixels stay exact.

Diffusion4D (VITA-Group/Diffusion4D, rendering/blender.py): per folder `multi_frame<i>.png` (dynamic orbit),
`multi_static_frame<i>.png` (static orbit), `front_frame<i>.png`, and camera JSON `multi<i>.json`,
`static<i>.json`, `front.json`. Where a camera JSON is absent the published orbit stands in: closed (view 23
is view 0 again), distance 2, elevation and azimuth from the folder's suffix. Static orbits show scene frame
1, so their time is 1/23.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.images.codec import Pixels, encode_webp
from orbit4d.datasets.images.folders import UNREADABLE, rgba_of
from orbit4d.datasets.images.measures import coverage, motion_magnitude
from orbit4d.datasets.layouts.archives import Files, Locate, assets
from orbit4d.datasets.layouts.published_cameras import camera_from_json, parse_folder, polar
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import SHARD_BYTES, DatasetWriter

#: rig -> (name of its images, name of its camera files)
LAYOUT = {
    "dynamic_orbit": ("multi_frame{i}.png", "multi{i}.json"),
    "static_orbit": ("multi_static_frame{i}.png", "static{i}.json"),
    "front_view": ("front_frame{i}.png", "front.json"),
}
_KNOWN = re.compile(
    r"(multi_frame|multi_static_frame|front_frame)\d+\.png|(multi|static)\d+\.json|front\.json|metadata\.json"
)
#: Published clips are raw scene frames; Blender's start-up scene plays 24 of them a second.
_FRAMES_PER_SECOND = 24.0


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


def import_diffusion4d(
    folder_or_tar: str | os.PathLike[str] | Sequence[str],
    out: str | os.PathLike[str],
    azimuth0_deg: float | None = None,
    captions: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Imported:
    """Import published folders, or a tar or tar.gz of them (read as a stream), into a dataset at `out`.

    Cameras: their JSON, else `azimuth0_deg`, else the folder's `_az`/`_el` suffix, else 0. An asset rendered
    from several azimuths gets one orbit each, the one without a suffix first. Broken folders become
    rejections. Run again, it goes on. The three published archives hold one rig each: import each into a
    dataset of its own, then `orbit4d merge` joins them clip by clip.
    """
    config = {"imported": "diffusion4d", "azimuth0_deg": azimuth0_deg}

    def build(asset: str, files: Files) -> tuple[list[Clip], list[Rejection]]:
        return _diffusion4d_clips(asset, files, azimuth0_deg)

    return _run(_listed(folder_or_tar), out, config, _locate_diffusion4d, build, captions, shard_bytes)


def import_gobjaverse(
    folder_or_tar: str | os.PathLike[str] | Sequence[str],
    out: str | os.PathLike[str],
    captions: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Imported:
    """Import G-Objaverse views (`<id>/<view>/<view>.png` with camera JSON beside them) as clips of rig
    `view_set`.
    """
    config = {"imported": "gobjaverse"}
    return _run(
        _listed(folder_or_tar), out, config, _locate_gobjaverse, _gobjaverse_clips, captions, shard_bytes
    )


def _listed(source: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(s) for s in source]


def _run(
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


# Diffusion4D ------------------------------------------------------------------------------------------------


def _locate_diffusion4d(parts: Sequence[str]) -> tuple[str, str, str] | None:
    if len(parts) < 2 or not _KNOWN.fullmatch(parts[-1]):
        return None
    return parse_folder(parts[-2]).uid, parts[-2], parts[-1]


def _diffusion4d_clips(
    asset: str, files: Files, azimuth0_deg: float | None
) -> tuple[list[Clip], list[Rejection]]:
    clips: list[Clip] = []
    refused: list[Rejection] = []
    orbits: dict[int, int] = {}

    def order(folder: str) -> tuple[int, float, float]:
        name = parse_folder(folder)
        return (name.action_index, name.azimuth_fraction or 0.0, name.elevation_asked_deg or 0.0)

    for folder in sorted(files, key=order):
        action_index = parse_folder(folder).action_index
        number = orbits.get(action_index, 0)
        try:
            clips += _folder_clips(folder, files[folder], number, azimuth0_deg)
            orbits[action_index] = number + 1
        except BadFolder as error:
            refused.append(Rejection(asset, folder, "import", error.code, str(error)))
        except ValueError as error:
            # What Clip refuses: a uid of other characters, times outside [0, 1].
            refused.append(Rejection(asset, folder, "import", "bad_file:content", str(error)))
    return clips, refused


def _folder_clips(
    folder: str, files: dict[str, bytes], number: int, azimuth0_deg: float | None
) -> list[Clip]:
    name = parse_folder(folder)
    ours = _json(files, "metadata.json").get("orbit4d", {})
    pixels = {rig: _frames(files, images) for rig, (images, _) in LAYOUT.items()}
    pixels = {rig: frames for rig, frames in pixels.items() if len(frames)}
    if not pixels:
        raise BadFolder("bad_file:missing_frames", f"{folder}: no images")
    measures: dict[str, float] = {}
    if {"dynamic_orbit", "static_orbit"} <= set(pixels):
        dynamic, static = pixels["dynamic_orbit"], pixels["static_orbit"]
        if dynamic.shape == static.shape:
            measures["motion_magnitude"] = motion_magnitude(dynamic, static)
    clips = []
    for rig, frames in pixels.items():
        n, h, w, _ = frames.shape
        azimuth = azimuth0_deg if azimuth0_deg is not None else name.azimuth0_deg
        cameras = _cameras(files, rig, n, (w, h), azimuth, name.elevation_deg)
        kept = ours.get(rig, {})
        last = max(n - 1, 1)
        # A published static orbit stands at scene frame 1.
        time = [(min(1, n - 1) if rig == "static_orbit" else i) / last for i in range(n)]
        start = polar(cameras[0])
        clips.append(
            Clip(
                uid=name.uid,
                action=ours.get("action", ""),
                action_index=name.action_index,
                rig=rig,
                orbit=ours.get("orbit", number),
                frames=tuple(encode_webp(frame) for frame in frames),
                cameras=tuple(cameras),
                time=tuple(kept.get("time", time)),
                seconds=tuple(kept.get("seconds", [t * last / _FRAMES_PER_SECOND for t in time])),
                window=tuple(ours.get("window", (0.0, last / _FRAMES_PER_SECOND))),
                scale=ours.get("scale", 1.0),
                centre=tuple(ours.get("centre", (0.0, 0.0, 0.0))),
                azimuth0_deg=kept.get("azimuth0_deg", start[0]),
                elevation_deg=kept.get("elevation_deg", start[1]),
                radius=kept.get("radius", start[2]),
                measures=kept.get(
                    "measures", {**measures, "coverage": float(coverage(frames[..., 3]).mean())}
                ),
                license=ours.get("license", ""),
                author=ours.get("author", ""),
                source_url=ours.get("source_url", ""),
                caption=ours.get("caption", ""),
                asset_sha256=ours.get("asset_sha256", ""),
                renderer=ours.get("renderer", {"engine": "published", "layout": "diffusion4d"}),
            )
        )
    return clips


def _cameras(
    files: dict[str, bytes], rig: str, n: int, size: tuple[int, int], azimuth: float, elevation: float
) -> list[Camera]:
    pattern = LAYOUT[rig][1]
    names = [pattern.format(i=i) for i in range(n)]
    have = [file for file in names if file in files]
    if have and len(have) < n:
        raise BadFolder("bad_file:missing_cameras", f"{len(have)} of {n} camera files of {rig}")
    if have:
        try:
            return [camera_from_json(_json(files, file), size) for file in names]
        except (KeyError, TypeError, ValueError) as error:
            raise BadFolder("bad_file:camera", f"{rig}: not a camera ({error!r})") from error
    turning = orbit(n, 2.0, elevation, azimuth0_deg=azimuth, size=size, closed=n > 1)
    return [turning[0]] * n if rig == "front_view" else turning


def _json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        content = json.loads(files[name])
    except ValueError as error:
        raise BadFolder("bad_file:json", f"{name}: {error}") from error
    return content if isinstance(content, dict) else {}


def _frames(files: dict[str, bytes], pattern: str) -> Pixels:
    """uint8 [N, H, W, 4] of `pattern`'s images 0, 1, ...; empty when there are none."""
    before, after = pattern.split("{i}")
    numbers = sorted(
        int(name[len(before) : -len(after)])
        for name in files
        if name.startswith(before) and name.endswith(after) and name[len(before) : -len(after)].isdigit()
    )
    if not numbers:
        return np.empty((0, 0, 0, 4), np.uint8)
    if numbers != list(range(len(numbers))):
        gap = next(i for i, number in enumerate(numbers) if i != number)
        raise BadFolder("bad_file:missing_frames", f"{pattern.format(i=gap)} is missing")
    return _stack([(pattern.format(i=i), files[pattern.format(i=i)]) for i in numbers])


def _stack(images: Sequence[tuple[str, bytes]]) -> Pixels:
    frames = []
    for name, data in images:
        try:
            frames.append(rgba_of(io.BytesIO(data)))
        except UNREADABLE as error:
            raise BadFolder("bad_file:truncated", f"{name}: {error}") from error
    if len({frame.shape for frame in frames}) > 1:
        raise BadFolder("bad_file:image", "images of different sizes")
    return np.stack(frames)


# G-Objaverse ------------------------------------------------------------------------------------------------


def _locate_gobjaverse(parts: Sequence[str]) -> tuple[str, str, str] | None:
    stem, _, ending = parts[-1].rpartition(".")
    if len(parts) < 3 or ending not in ("png", "json") or not stem.isdigit() or parts[-2] != stem:
        return None
    owner = parts[-4] if parts[-3].startswith("campos") and len(parts) > 3 else parts[-3]
    return owner, "views", parts[-1]


def _gobjaverse_clips(asset: str, files: Files) -> tuple[list[Clip], list[Rejection]]:
    content = files["views"]
    try:
        views = naturally(name[:-4] for name in content if name.endswith(".png"))
        if not views:
            raise BadFolder("bad_file:missing_frames", "no images")
        missing = [view for view in views if f"{view}.json" not in content]
        if missing:
            raise BadFolder("bad_file:missing_cameras", f"{missing[0]}.json is missing")
        frames = _stack([(f"{view}.png", content[f"{view}.png"]) for view in views])
        size = (frames.shape[2], frames.shape[1])
        try:
            cameras = [camera_from_json(_json(content, f"{view}.json"), size) for view in views]
        except (KeyError, TypeError, ValueError) as error:
            raise BadFolder("bad_file:camera", f"not a camera ({error!r})") from error
        azimuth, elevation, radius = polar(cameras[0])
        clip = Clip(
            uid=asset,
            action="",
            action_index=0,
            rig="view_set",
            orbit=0,
            frames=tuple(encode_webp(frame) for frame in frames),
            cameras=tuple(cameras),
            time=(0.0,) * len(frames),
            seconds=(0.0,) * len(frames),
            window=(0.0, 0.0),
            scale=1.0,
            centre=(0.0, 0.0, 0.0),
            azimuth0_deg=azimuth,
            elevation_deg=elevation,
            radius=radius,
            measures={"coverage": float(coverage(frames[..., 3]).mean())},
            renderer={"engine": "published", "layout": "gobjaverse"},
        )
    except (BadFolder, ValueError) as error:
        code = error.code if isinstance(error, BadFolder) else "bad_file:content"
        return [], [Rejection(asset, "", "import", code, str(error))]
    return [clip], []
