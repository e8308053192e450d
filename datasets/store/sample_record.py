"""What a clip's sample in a shard says of itself: the member `<sample>.json`, for readers without the index.

Written beside the frames since it was asked for; shards without it are as good. The index stays the truth:
nothing of ours reads this member, it enters neither a row's `sha256` nor the digest, and the shard's checksum
holds it to its bytes.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from orbit4d.datasets.store.clip import Clip, sample_name
from orbit4d.datasets.store.passes import PASSES
from orbit4d.datasets.store.schema import split_of

_RIG = ("light", "camera_label", "metres_per_unit", "lens_mm", "sensor_mm", "camera_draw", "lighting")
_TEXTS = ("license", "author", "source_url", "caption", "asset_sha256")


def record_name(clip: Clip) -> str:
    """Name of the member in the tar: of one WebDataset sample with the clip's frames."""
    return f"{sample_name(clip.key)}.json"


def sample_record(clip: Clip) -> bytes:
    """JSON object of a clip: who it is, its cameras and times, licence and caption; equal clips give equal
    bytes."""
    return json.dumps(_sayable(_record(clip)), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _record(clip: Clip) -> dict[str, Any]:
    camera = clip.cameras[0]
    return {
        "uid": clip.uid,
        "action": clip.action,
        "action_index": clip.action_index,
        "rig": clip.rig,
        "orbit": clip.orbit,
        "split": clip.split or split_of(clip.uid),
        "n_frames": len(clip.frames),
        "w": camera.w,
        "h": camera.h,
        "fl_x": camera.fl_x,
        "fl_y": camera.fl_y,
        "cx": camera.cx,
        "cy": camera.cy,
        "c2w": [c.c2w.tolist() for c in clip.cameras],
        "camera_axes": "OpenGL: +X right, +Y up, looks along -Z; world +Z up, front seen from -Y",
        "time": list(clip.time),
        "seconds": list(clip.seconds),
        "window": list(clip.window),
        "scale": clip.scale,
        "centre": list(clip.centre),
        "azimuth0_deg": clip.azimuth0_deg,
        "elevation_deg": clip.elevation_deg,
        "radius": clip.radius,
        "measures": dict(clip.measures),
        "passes": {name: PASSES[name].meaning if name in PASSES else "" for name in clip.passes},
        **{name: getattr(clip, name) for name in _TEXTS},
        # Said where there is something to say, so that older clips have the bytes they always had.
        **{name: getattr(clip, name) for name in _RIG if getattr(clip, name) not in (None, 0, {})},
        **({"rig_draw": clip.rig_draw} if clip.rig_draw is not None else {}),
    }


def _sayable(value: Any) -> Any:
    """The value with null for the numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _sayable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_sayable(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
