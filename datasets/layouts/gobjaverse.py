"""G-Objaverse views (`<id>/<view>/<view>.png`, camera JSON beside each) into a dataset; pixels stay exact."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.images.codec import encode_webp
from orbit4d.datasets.images.measures import coverage
from orbit4d.datasets.layouts.archives import Files
from orbit4d.datasets.layouts.importing import BadFolder, Imported, listed, read_json, run_import, stack
from orbit4d.datasets.layouts.published_cameras import camera_from_json, polar
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import SHARD_BYTES


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
    return run_import(
        listed(folder_or_tar), out, config, _locate_gobjaverse, _gobjaverse_clips, captions, shard_bytes
    )


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
        frames = stack([(f"{view}.png", content[f"{view}.png"]) for view in views])
        size = (frames.shape[2], frames.shape[1])
        try:
            cameras = [camera_from_json(read_json(content, f"{view}.json"), size) for view in views]
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
