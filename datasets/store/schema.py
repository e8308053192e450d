"""The index: one documented, versioned Arrow schema, and the way between its rows and clips.

The descriptions stand in the Parquet files too (field metadata "description"). A published version never
changes; `SCHEMA_VERSION` grows instead, and every older version stays readable (parts.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.store.clip import Clip

SCHEMA_VERSION = 2

SPLITS = ("train", "validation", "test")
#: Shares of the splits, in the order of SPLITS.
SPLIT_SHARES = (0.9, 0.05, 0.05)

#: Measures with a column of their own; others go to `measures_more`.
MEASURES = {
    "motion_geometry": "largest RMS vertex displacement in the window over twice the object's extent",
    "motion_magnitude": "raw m: mean squared difference of dynamic and static orbit, on white",
    "ssim_quarter": "SSIM of the front view at the window's start and at a quarter of it",
    "ssim_half": "SSIM of the front view at the window's start and at half of it",
    "boundary_touch": "largest share of the frame's border pixels that the object covers",
    "coverage": "mean share of the frame that the object covers",
    "union_growth": "size of the box over all rendered times over the size of the first box",
}


def _described(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


_SPANS = pa.struct([pa.field("offsets", pa.list_(pa.int64())), pa.field("lengths", pa.list_(pa.int64()))])

INDEX_SCHEMA = pa.schema(
    [
        _described("uid", pa.string(), "asset id; an asset's rows are adjacent"),
        _described("action", pa.string(), "name of the action as read from the asset, '' for a still asset"),
        _described("action_index", pa.int32(), "order of the action in its file, from 0"),
        _described("rig", pa.string(), "static_orbit, dynamic_orbit, front_view, or a later rig"),
        _described("orbit", pa.int32(), "0 starts at the front, further ones at other azimuths"),
        _described("split", pa.string(), "train, validation or test, from a hash of uid"),
        _described("n_frames", pa.int32(), "frames of the clip"),
        _described("width", pa.int32(), "pixels"),
        _described("height", pa.int32(), "pixels"),
        _described("shard", pa.string(), "tar file with the frames, relative to the dataset"),
        _described("offsets", pa.list_(pa.int64()), "first byte of each frame in the shard"),
        _described("lengths", pa.list_(pa.int64()), "bytes of each frame"),
        _described(
            "sha256", pa.string(), "hex SHA-256 of the frames' bytes in order, then of each pass by name"
        ),
        _described("passes", pa.map_(pa.string(), _SPANS), "further images per frame (depth, ...)"),
        _described(
            "c2w", pa.list_(pa.list_(pa.float64(), 16)), "camera-to-world per frame, row-major, OpenGL axes"
        ),
        _described("fl_x", pa.float64(), "horizontal focal length, pixels"),
        _described("fl_y", pa.float64(), "vertical focal length, pixels"),
        _described("cx", pa.float64(), "principal point, column, pixels (pixel centres at +0.5)"),
        _described("cy", pa.float64(), "principal point, row, pixels (pixel centres at +0.5)"),
        _described("azimuth0_deg", pa.float64(), "azimuth of view 0, degrees, counter-clockwise from -Y"),
        _described("elevation_deg", pa.float64(), "angle above the horizon, degrees"),
        _described("radius", pa.float64(), "distance of the cameras from the origin"),
        _described("time", pa.list_(pa.float64()), "time of each frame on the clip's window, in [0,1]"),
        _described("seconds", pa.list_(pa.float64()), "time of each frame on the asset's clock, seconds"),
        _described("window_start", pa.float64(), "first moment that moves, seconds"),
        _described("window_end", pa.float64(), "last moment that moves, seconds"),
        _described("scale", pa.float64(), "world units of the clip per asset unit"),
        _described(
            "centre", pa.list_(pa.float64(), 3), "point of the asset at the clip's origin, asset units"
        ),
        _described(
            "measures",
            pa.struct([_described(name, pa.float64(), text) for name, text in MEASURES.items()]),
            "numbers measured on the clip or its asset; null where not measured",
        ),
        _described(
            "measures_more", pa.map_(pa.string(), pa.float64()), "measures without a field in `measures`"
        ),
        _described("license", pa.string(), "licence of the asset as declared, '' when unknown"),
        _described("author", pa.string(), "author of the asset"),
        _described("source_url", pa.string(), "where the asset came from"),
        _described("caption", pa.string(), "text that describes the asset"),
        _described("asset_sha256", pa.string(), "hex SHA-256 of the asset file"),
        _described("renderer", pa.string(), "JSON object: engine, samples, versions"),
        _described(
            "render_seconds", pa.float64(), "wall time the clip took to render; not part of the digest"
        ),
        _described("shard_bytes", pa.int64(), "bytes of the whole shard"),
        _described("shard_sha256", pa.string(), "hex SHA-256 of the whole shard"),
        _described("light", pa.int32(), "number of the lighting, from 0; part of a clip's key"),
        _described("camera_label", pa.string(), "name of the rig's camera (cam01), null outside such rigs"),
        _described("rig_draw", pa.int32(), "which draw of the rig's cameras, from 0; null outside such rigs"),
        _described("metres_per_unit", pa.float64(), "metres that a unit stands for; null where not said"),
        _described("lens_mm", pa.float64(), "focal length in mm; null where only pixels are known"),
        _described("sensor_mm", pa.float64(), "width of the sensor in mm that lens_mm belongs to"),
        _described("camera_draw", pa.string(), "JSON object: how the cameras were chosen; null: as always"),
        _described("lighting", pa.string(), "JSON object: what lit the clip; null: the lights of the preset"),
    ],
    metadata={"orbit4d.schema_version": str(SCHEMA_VERSION)},
)

REJECTED_SCHEMA = pa.schema(
    [
        _described("uid", pa.string(), "asset id"),
        _described("action", pa.string(), "action, '' for the whole asset"),
        _described("stage", pa.string(), "stage that gave it up: curate, render, import"),
        _described("reason", pa.string(), "reason code, such as bad_file:truncated or quarantined:timeout"),
        _described("detail", pa.string(), "one line for a person"),
        _described("attempts", pa.int32(), "tries that counted"),
        _described("preemptions", pa.int32(), "tries lost to a lost actor or node"),
        _described("log_tail", pa.string(), "last lines of the child's log"),
    ],
    metadata={"orbit4d.schema_version": str(SCHEMA_VERSION)},
)


def split_of(uid: str) -> str:
    """train (90 %), validation (5 %) or test (5 %), from a hash of the uid: the same in every dataset."""
    draw = int.from_bytes(hashlib.sha256(b"orbit4d split " + uid.encode()).digest()[:8], "big") / 2**64
    for split, share in zip(SPLITS, SPLIT_SHARES):
        if draw < share:
            return split
        draw -= share
    return SPLITS[-1]


def clip_row(
    clip: Clip, size: tuple[int, int], offsets: Sequence[int], shard: str, shard_bytes: int, shard_sha256: str
) -> dict[str, Any]:
    """Index row of a clip whose members (frames, then passes by name) start at `offsets`; size is (w, h)."""
    first = clip.cameras[0]
    if any(camera.intrinsics != first.intrinsics for camera in clip.cameras):
        raise InputError(f"{clip.uid} {clip.rig}: a clip's cameras must share their intrinsics")
    if (first.w, first.h) != size:
        raise InputError(
            f"{clip.uid} {clip.rig}: cameras of {first.w}x{first.h} for frames of {size[0]}x{size[1]}"
        )
    n = len(clip.frames)
    lengths = [len(member) for member in clip.members]
    passes = {
        name: {"offsets": list(offsets[n * k : n * (k + 1)]), "lengths": lengths[n * k : n * (k + 1)]}
        for k, name in enumerate(sorted(clip.passes), start=1)
    }
    return {
        "uid": clip.uid,
        "action": clip.action,
        "action_index": clip.action_index,
        "rig": clip.rig,
        "orbit": clip.orbit,
        "split": clip.split or split_of(clip.uid),
        "n_frames": n,
        "width": size[0],
        "height": size[1],
        "shard": shard,
        "offsets": list(offsets[:n]),
        "lengths": lengths[:n],
        "sha256": clip.sha256,
        "passes": list(passes.items()),
        "c2w": [camera.c2w.reshape(16).tolist() for camera in clip.cameras],
        "fl_x": first.fl_x,
        "fl_y": first.fl_y,
        "cx": first.cx,
        "cy": first.cy,
        "azimuth0_deg": clip.azimuth0_deg,
        "elevation_deg": clip.elevation_deg,
        "radius": clip.radius,
        "time": list(clip.time),
        "seconds": list(clip.seconds),
        "window_start": clip.window[0],
        "window_end": clip.window[1],
        "scale": clip.scale,
        "centre": list(clip.centre),
        "measures": {name: _number(clip.measures.get(name)) for name in MEASURES},
        "measures_more": [(k, float(v)) for k, v in sorted(clip.measures.items()) if k not in MEASURES],
        "license": clip.license,
        "author": clip.author,
        "source_url": clip.source_url,
        "caption": clip.caption,
        "asset_sha256": clip.asset_sha256,
        "renderer": json.dumps(dict(clip.renderer), sort_keys=True),
        "render_seconds": clip.render_seconds,
        "shard_bytes": shard_bytes,
        "shard_sha256": shard_sha256,
        **_columns_of_version_2(clip),
    }


def _columns_of_version_2(clip: Clip) -> dict[str, Any]:
    return {
        "light": clip.light,
        "camera_label": clip.camera_label,
        "rig_draw": clip.rig_draw,
        "metres_per_unit": clip.metres_per_unit,
        "lens_mm": clip.lens_mm,
        "sensor_mm": clip.sensor_mm,
        "camera_draw": _json_or_none(clip.camera_draw),
        "lighting": _json_or_none(clip.lighting),
    }


def _json_or_none(value: Mapping[str, Any]) -> str | None:
    return json.dumps(dict(value), sort_keys=True) if value else None


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def row_cameras(row: Mapping[str, Any]) -> list[Camera]:
    """Cameras of an index row."""
    return [
        Camera(
            np.reshape(c2w, (4, 4)),
            row["fl_x"],
            row["fl_y"],
            row["cx"],
            row["cy"],
            row["width"],
            row["height"],
        )
        for c2w in row["c2w"]
    ]


def row_spans(row: Mapping[str, Any], passes: bool = True) -> list[tuple[int, int]]:
    """(offset, length) of each member in stored order: frames, then passes by name."""
    spans = list(zip(row["offsets"], row["lengths"]))
    if passes:
        for _, span in sorted(row["passes"] or []):
            spans += list(zip(span["offsets"], span["lengths"]))
    return spans


def row_clip(row: Mapping[str, Any], members: Sequence[bytes]) -> Clip:
    """Clip of an index row and its members (as `row_spans` orders them)."""
    n = row["n_frames"]
    names = sorted(name for name, _ in row["passes"] or [])
    measures = {name: value for name, value in row["measures"].items() if value is not None}
    return Clip(
        uid=row["uid"],
        action=row["action"],
        action_index=row["action_index"],
        rig=row["rig"],
        orbit=row["orbit"],
        frames=tuple(members[:n]),
        cameras=tuple(row_cameras(row)),
        time=tuple(row["time"]),
        seconds=tuple(row["seconds"]),
        window=(row["window_start"], row["window_end"]),
        scale=row["scale"],
        centre=tuple(row["centre"]),
        azimuth0_deg=row["azimuth0_deg"],
        elevation_deg=row["elevation_deg"],
        radius=row["radius"],
        passes={name: tuple(members[n * k : n * (k + 1)]) for k, name in enumerate(names, start=1)},
        measures={**measures, **dict(row["measures_more"] or [])},
        license=row["license"],
        author=row["author"],
        source_url=row["source_url"],
        caption=row["caption"],
        split="" if row["split"] == split_of(row["uid"]) else row["split"],
        asset_sha256=row["asset_sha256"],
        renderer=json.loads(row["renderer"] or "{}"),
        render_seconds=row["render_seconds"],
        light=row.get("light") or 0,
        camera_label=row.get("camera_label"),
        rig_draw=row.get("rig_draw"),
        metres_per_unit=row.get("metres_per_unit"),
        lens_mm=row.get("lens_mm"),
        sensor_mm=row.get("sensor_mm"),
        camera_draw=json.loads(row.get("camera_draw") or "{}"),
        lighting=json.loads(row.get("lighting") or "{}"),
    )
