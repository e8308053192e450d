"""Video and static orbit of one capture: the one without cameras is on those of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec

Image = npt.NDArray[np.float32]
#: Longer side in pixels at which images are compared: outlines that are off by less are of the drawing.
GLANCE = 128
#: PSNR in dB, on white, from which two images show the same.
AS_AT_REST = 34.5
#: Overlap (IoU) of the silhouettes of an object that stays in its place: 0.47 to 0.66 for what runs,
#: walks and fights, 0.17 for a fish that tumbles.
STAYS = 1 / 3
#: Distance of two cameras in one place, of the orbit's radius, sine of the angle between their axes, and
#: share of the focal length: less than half of a step of 48 views.
NEAR = 0.06
#: Share of a video's median squared difference from the static orbit below which a frame shows no motion.
OF_MOTION = 0.02


def with_shared_cameras(dynamic: Frames, static: Frames, spec: OrbitSpec | None) -> tuple[Frames, Frames]:
    """Video and static orbit, the one without cameras of its own with those of the other.

    Where neither has any, both are on the orbit of `spec`. Raises InputError for a static orbit without
    cameras beside a video of another length that has some: no orbit can be guessed for it.
    """
    if dynamic.posed == static.posed:
        return dynamic, static
    counts = [frames.given or len(frames) for frames in (dynamic, static)]
    if dynamic.posed:
        if counts[0] != counts[1]:
            raise InputError(
                f"{static.name}: {counts[1]} frames of a static orbit without cameras beside a video of "
                f"{counts[0]} with cameras; give --static-cameras"
            )
        return dynamic, _posed_like(static, dynamic, "cameras of the video")
    if spec not in (None, OrbitSpec()):
        return dynamic, static
    if counts[0] == counts[1]:
        return _posed_like(dynamic, static, "cameras of the static orbit"), static
    note = "the default orbit was taken, though the static orbit has cameras; give --cameras or --orbit"
    return replace(dynamic, notes=(*dynamic.notes, note)), static


def _posed_like(frames: Frames, other: Frames, note: str) -> Frames:
    h, w = frames.rgba.shape[1:3]
    cameras = tuple(c if (c.w, c.h) == (w, h) else c.resized(w, h) for c in other.cameras)
    return replace(frames, cameras=cameras, posed=True, notes=(*frames.notes, note))


def rest_times(dynamic: Frames, static: Frames) -> list[float]:
    """Times at which the object stands as the static orbit shows it, rising.

    They are the static orbit's own time, and those of a video's frame that equals the static one of the same
    camera: by `AS_AT_REST`, and far more than the video's frames do in the median, or else small motion would
    be taken for none. Most animations end where they began: 219 of 256 actions of CC0 characters do.
    """
    return sorted({static.time[0]} | set(_same(_pairs(dynamic, static))))


def on_static_orbit(dynamic: Frames, static: Frames) -> Frames:
    """The video on the very cameras of the static orbit, where it was filmed from them.

    That is so where a search put it next to each of them in turn, and a frame equals the static one there.
    Cameras that were given stay.
    """
    if dynamic.posed or not static.posed or len(dynamic) != len(static):
        return dynamic
    far = _far(static.cameras)
    beside = all(_is_near(one, other, far) for one, other in zip(dynamic.cameras, static.cameras))
    now, then = dynamic.resized(GLANCE), static.resized(GLANCE)
    if not beside or not _same(list(zip(now.time, now.rgba, then.rgba))):
        return dynamic
    return _posed_like(dynamic, static, "its images show it on the cameras of the static orbit")


def _same(pairs: list[tuple[float, Image, Image]]) -> list[float]:
    """Times of the video's frames that equal the static one of the same camera, of `_pairs`."""
    apart = [(time, float(np.square(_on_white(now) - _on_white(then)).mean())) for time, now, then in pairs]
    limit = min(10 ** (-AS_AT_REST / 10), OF_MOTION * float(np.median([d for _, d in apart] or [0.0])))
    return [time for time, difference in apart if difference < limit]


def stays(dynamic: Frames, static: Frames) -> bool:
    """Whether an object stays about where the static orbit shows it: in the median of the cameras that both
    share, its silhouettes overlap by `STAYS`. True where no camera is shared.
    """
    solid = [(now[..., 3] > 0.5, then[..., 3] > 0.5) for _, now, then in _pairs(dynamic, static)]
    overlaps = [float((now & then).sum() / max(int((now | then).sum()), 1)) for now, then in solid]
    return not overlaps or float(np.median(overlaps)) >= STAYS


def _pairs(dynamic: Frames, static: Frames) -> list[tuple[float, Image, Image]]:
    """Times of the video's frames whose camera the static orbit has too, and both images, at `GLANCE`.

    A camera that is only near counts too, since an orbit that was searched for is not met to the digit:
    images that show the same are of one place.
    """
    dynamic, static = dynamic.resized(GLANCE), static.resized(GLANCE)
    places, far = np.stack([camera.position for camera in static.cameras]), _far(static.cameras)
    found = []
    for image, camera, time in zip(dynamic.rgba, dynamic.cameras, dynamic.time):
        i = int(np.linalg.norm(places - camera.position, axis=1).argmin())
        if _is_near(camera, static.cameras[i], far):
            found.append((time, image, static.rgba[i]))
    return found


def _far(cameras: Sequence[Camera]) -> float:
    """Distance up to which another camera stands in the place of one of these."""
    places = np.stack([camera.position for camera in cameras])
    return NEAR * float(np.linalg.norm(places - places.mean(0), axis=1).mean()) + 1e-6


def _is_near(one: Camera, other: Camera, far: float) -> bool:
    """Whether two cameras stand in one place, look the same way and have one lens, but for `NEAR`."""
    # Both look along -Z.
    alike = float(one.c2w[:3, 2] @ other.c2w[:3, 2]) > 1 - NEAR**2 / 2
    lens = max(abs(one.fl_x / other.fl_x - 1), abs(one.fl_y / other.fl_y - 1)) < NEAR
    near = float(np.linalg.norm(one.position - other.position)) <= far
    return near and alike and lens and (one.w, one.h) == (other.w, other.h)


def _on_white(rgba: Image) -> Image:
    return over_premultiplied(rgba[..., :3], rgba[..., 3:], np.float32(1.0))
