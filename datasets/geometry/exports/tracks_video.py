"""Tracking videos: points keep the colour of their place in the first frame (Diffusion as Shader)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.geometry.clip import ClipGeometry
from orbit4d.datasets.geometry.exports.job import (
    LEFT_OUT,
    ExportAction,
    ExportClip,
    Files,
    Refused,
    leave_out,
    png,
)
from orbit4d.datasets.videos.video import write_video

#: Points of `points` videos, and the edge of the square that stands for each.
POINTS, SQUARE = 4096, 5
FPS = 8.0
#: What the published weights were trained on: width, height, frames.
PUBLISHED = (720, 480, 49)
#: Percentiles of 1 / depth in the first frame that become blue 0 and 1.
_LOW, _HIGH = 2.0, 98.0

Pixels = npt.NDArray[np.uint8]


def first_frame_colours(
    places: npt.NDArray[np.floating], camera: Camera, limits: tuple[float, float]
) -> Pixels:
    """[N, 3] uint8 colours of points [N, 3] as they lie in the first frame's world and camera.

    Red is the column, green the row, blue 1 / depth between `limits`; places outside the image are clipped.
    """
    pixels, depth = camera.project(places)
    low, high = limits
    inverse = np.divide(1.0, depth, out=np.full(depth.shape, np.finfo(float).max), where=depth > 0.0)
    blue = np.clip((inverse - low) / (high - low), 0.0, 1.0)
    plane = np.nan_to_num(pixels / [camera.w, camera.h], nan=0.0, posinf=1.0, neginf=0.0)
    # 255 times the share, truncated, as the published code does it.
    return (255.0 * np.clip(np.concatenate([plane, blue[:, None]], axis=1), 0.0, 1.0)).astype(np.uint8)


def depth_limits(places: npt.NDArray[np.floating], camera: Camera) -> tuple[float, float]:
    """2nd and 98th percentile of 1 / depth of points [N, 3]; inf for the latter where they agree."""
    depth = camera.project(places)[1]
    low, high = np.percentile(1.0 / depth[depth > 0.0], [_LOW, _HIGH])
    # A plane across the view has one depth but for rounding, which is not to be stretched into colours.
    return float(low), float(high if high - low > 1e-5 * high else np.inf)


def dense_frames(clip: ClipGeometry) -> Pixels:
    """[F, H, W, 3]: every covered pixel with the colour that its surface point has in the first frame."""
    camera = clip.cameras[0]
    covered = clip.triangles(0) >= 0
    if not covered.any():
        raise Refused("tracks-video:unseen", "its first frame shows nothing")
    limits = depth_limits(clip.points(0)[covered], camera)
    frames = np.zeros((len(clip), camera.h, camera.w, 3), np.uint8)
    for f in range(len(clip)):
        seen = clip.triangles(f) >= 0
        places = clip.points(f).astype(np.float64) + clip.scene_flow(f, 0)
        frames[f][seen] = first_frame_colours(places[seen], camera, limits)
    return frames


def point_frames(clip: ClipGeometry, n: int, seed: int) -> Pixels:
    """[F, H, W, 3]: squares around the visible of `n` points of the first frame, far ones first."""
    camera = clip.cameras[0]
    if not (clip.triangles(0) >= 0).any():
        raise Refused("tracks-video:unseen", "its first frame shows nothing")
    n = min(n, int((clip.triangles(0) >= 0).sum()))
    xyz, pixels, visible = clip.tracks(n, seed, on="pixels", frame=0)
    colours = first_frame_colours(xyz[:, 0], camera, depth_limits(xyz[:, 0], camera))
    frames = np.zeros((len(clip), camera.h, camera.w, 3), np.uint8)
    reach = SQUARE // 2
    for f in range(len(clip)):
        depth = clip.cameras[f].project(xyz[:, f])[1]
        for i in np.argsort(-depth, kind="stable"):
            if visible[i, f]:
                x, y = int(pixels[i, f, 0]), int(pixels[i, f, 1])
                frames[f, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = colours[i]
    return frames


def tracks_video(actions: Iterable[ExportAction]) -> Files:
    """`videos/`, `tracking/` and `images/`, and the four lists that name them in one order."""
    lists: dict[str, list[str]] = {"prompt": [], "videos": [], "trackings": [], "images": []}
    for action in actions:
        for clip in action.clips:
            try:
                frames = _tracking(action, clip)
            except LEFT_OUT as error:
                leave_out(clip.name, error, action.notes)
                continue
            stem = f"{len(lists['videos']):05d}"
            names = (f"videos/{stem}.mp4", f"tracking/{stem}_tracking.mp4", f"images/{stem}.png")
            images = np.stack([clip.rgb(i) for i in range(len(frames))])
            yield names[0], _mp4(images)
            yield names[1], _mp4(frames)
            yield names[2], png(images[0])
            caption = " ".join((clip.row.get("caption") or clip.row["uid"]).split())
            for given, line in zip(lists.values(), (caption, *names)):
                given.append(line)
            _say_size(action, clip, frames)
    for name, lines in lists.items():
        yield f"{name}.txt", "".join(f"{line}\n" for line in lines).encode()


def _tracking(action: ExportAction, clip: ExportClip) -> Pixels:
    settings = action.settings
    if settings.tracks_video == "points":
        return point_frames(clip.geometry, settings.points or POINTS, settings.seed)
    return dense_frames(clip.geometry)


def _say_size(action: ExportAction, clip: ExportClip, frames: Pixels) -> None:
    n, height, width = frames.shape[:3]
    if (width, height, n) != PUBLISHED:
        note = (
            f"tracks-video: {width}x{height}, {n} frames; the weights of Diffusion as Shader "
            "take 720x480, 49 frames, and training asks for as many frames as it is given"
        )
        if note not in action.notes:
            action.notes.append(note)


def _mp4(frames: Pixels) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "video.mp4")
        write_video(path, frames, FPS)
        with open(path, "rb") as file:
            return file.read()


FORMATS = {"tracks-video": tracks_video}
