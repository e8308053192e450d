"""Bring the published Diffusion4D renders into a dataset; pixels stay exact.

Diffusion4D (VITA-Group/Diffusion4D, rendering/blender.py): per folder `multi_frame<i>.png` (dynamic orbit),
`multi_static_frame<i>.png` (static orbit), `front_frame<i>.png`, and camera JSON `multi<i>.json`,
`static<i>.json`, `front.json`. Where a camera JSON is absent the published orbit stands in: closed (view 23
is view 0 again), distance 2, elevation and azimuth from the folder's suffix. Static orbits show scene frame
1, so their time is 1/23.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.images.codec import Pixels, encode_webp
from orbit4d.datasets.images.measures import coverage, motion_magnitude
from orbit4d.datasets.layouts.archives import Files
from orbit4d.datasets.layouts.importing import BadFolder, Imported, listed, read_json, run_import, stack
from orbit4d.datasets.layouts.published_cameras import camera_from_json, parse_folder, polar
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import SHARD_BYTES

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
    rejections. Run again, it resumes. The three published archives hold one rig each: import each into a
    dataset of its own, then `orbit4d merge` joins them clip by clip.
    """
    config = {"imported": "diffusion4d", "azimuth0_deg": azimuth0_deg}

    def build(asset: str, files: Files) -> tuple[list[Clip], list[Rejection]]:
        return _diffusion4d_clips(asset, files, azimuth0_deg)

    return run_import(listed(folder_or_tar), out, config, _locate_diffusion4d, build, captions, shard_bytes)


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
    ours = read_json(files, "metadata.json").get("orbit4d", {})
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
            return [camera_from_json(read_json(files, file), size) for file in names]
        except (KeyError, TypeError, ValueError) as error:
            raise BadFolder("bad_file:camera", f"{rig}: not a camera ({error!r})") from error
    turning = orbit(n, 2.0, elevation, azimuth0_deg=azimuth, size=size, closed=n > 1)
    return [turning[0]] * n if rig == "front_view" else turning


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
    return stack([(pattern.format(i=i), files[pattern.format(i=i)]) for i in numbers])
