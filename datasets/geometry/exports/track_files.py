"""TAP-Vid-3D npz and TAP-Vid pickles: points of the surface followed through a clip."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.geometry.exports.job import (
    LEFT_OUT,
    ExportAction,
    ExportClip,
    Files,
    Refused,
    each_clip,
    leave_out,
)
from orbit4d.datasets.geometry.tracks import Tracks

#: Points that are drawn on the surface of each clip; those that no frame shows are left out.
POINTS = 1024
#: Clips of one TAP-Vid pickle, which readers hold in memory as a whole.
CLIPS_A_FILE = 32


def seen_tracks(action: ExportAction, clip: ExportClip) -> Tracks:
    """Tracks of the points that at least one frame shows. Refused where there is none."""
    xyz, pixels, visible = clip.geometry.tracks(action.settings.points or POINTS, action.settings.seed)
    seen = visible.any(axis=1)
    if not seen.any():
        raise Refused("tracks:unseen", "no frame shows any of the points")
    return xyz[seen], pixels[seen], visible[seen]


def tapvid3d(action: ExportAction, clip: ExportClip) -> Files:
    """`<clip>.npz` with the keys that the published evaluation reads."""
    cameras = clip.geometry.cameras
    first = cameras[0]
    if any(camera.intrinsics != first.intrinsics for camera in cameras):
        raise Refused("tapvid3d:zoom", "its intrinsics change; the layout has one set for all frames")
    xyz, pixels, visible = seen_tracks(action, clip)
    w2c = np.stack([camera.w2c_opencv for camera in cameras])
    places = xyz.transpose(1, 0, 2).astype(np.float64)
    local = np.einsum("fij,fnj->fni", w2c[:, :3, :3], places) + w2c[:, None, :3, 3]
    start = visible.argmax(axis=1)
    queries = np.concatenate([pixels[np.arange(len(pixels)), start], start[:, None]], axis=1)
    images = np.empty(len(cameras), object)
    images[:] = [_jpeg(clip.rgb(i)) for i in range(len(cameras))]
    buffer = io.BytesIO()
    given: dict[str, Any] = {
        "images_jpeg_bytes": images,
        "tracks_XYZ": local.astype(np.float32),
        "visibility": np.ascontiguousarray(visible.T),
        "queries_xyt": queries.astype(np.float32),
        "fx_fy_cx_cy": np.array([first.fl_x, first.fl_y, first.cx, first.cy], np.float32),
        "extrinsics_w2c": w2c.astype(np.float32),
        "meta": np.array("1 unit of the dataset's world is written as 1 metre"),
    }
    np.savez(buffer, **given)
    yield f"{clip.name}.npz", buffer.getvalue()


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def tapvid(actions: Iterable[ExportAction]) -> Files:
    """`tapvid_XXXX.pkl`: dicts of clip name -> video, points, occluded."""
    held: dict[str, dict[str, Any]] = {}
    number = 0
    for action in actions:
        for clip in action.clips:
            try:
                held[clip.name] = _tapvid_entry(action, clip)
            except LEFT_OUT as error:
                leave_out(clip.name, error, action.notes)
            if len(held) == CLIPS_A_FILE:
                yield f"tapvid_{number:04d}.pkl", pickle.dumps(held, protocol=4)
                held, number = {}, number + 1
    if held:
        yield f"tapvid_{number:04d}.pkl", pickle.dumps(held, protocol=4)


def _tapvid_entry(action: ExportAction, clip: ExportClip) -> dict[str, Any]:
    _, pixels, visible = seen_tracks(action, clip)
    camera = clip.geometry.cameras[0]
    points = np.nan_to_num(pixels / np.array([camera.w, camera.h], np.float32)).astype(np.float32)
    video = np.stack([clip.rgb(i) for i in range(len(clip.geometry))])
    return {"video": video, "points": points, "occluded": ~visible}


FORMATS = {"tapvid3d": each_clip(tapvid3d), "tapvid": tapvid}
