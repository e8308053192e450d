"""Camera paths of novel views by name, with a time for each frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orbit4d.compose.completion.inputs import Given
from orbit4d.datasets.cameras.camera import (
    DEFAULT_FOV_X_DEG,
    DEFAULT_RADIUS,
    Array,
    Camera,
    focal_from_fov,
    orbit_c2w,
    w2c_opencv_to_c2w,
)
from orbit4d.datasets.cameras.published_paths import between, ellipse_path, line_path
from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import InputError

AROUND = ("orbit", "dynamic_orbit", "bullet_time", "front_view")
#: On these paths time stands still.
STILL = ("orbit", "bullet_time", "between", "between:centres")


@dataclass(frozen=True)
class Route:
    """The target cameras of F frames."""

    cameras: tuple[Camera, ...]
    times: tuple[float, ...]
    distance: float
    """Of the first camera from what the path goes around: where an object is expected."""


@dataclass(frozen=True)
class Asked:
    """Options of a path."""

    path: str
    frames: int
    size: tuple[int, int]
    elevation_deg: float | None = None
    radius: float | None = None
    fov_x_deg: float | None = None


def start_camera(asked: Asked, size: tuple[int, int]) -> Camera:
    """Where an image without camera is taken from: the front, at the path's elevation and radius."""
    focal = focal_from_fov(asked.fov_x_deg or DEFAULT_FOV_X_DEG, size[0])
    radius, elevation = asked.radius or DEFAULT_RADIUS, asked.elevation_deg or 0.0
    kind, _, values = asked.path.partition(":")
    if kind == "ellipse" and asked.radius is None:
        radius = numbers(asked.path, values, 3)[1]
    return Camera(orbit_c2w(0.0, elevation, radius), focal, focal, size[0] / 2, size[1] / 2, *size)


def route(asked: Asked, given: Given) -> Route:
    """The cameras of a path from the first input on. InputError for options that make none."""
    first = given.views[0].camera
    assert first is not None
    lens = covering(first, asked.size)
    if asked.fov_x_deg is not None:
        focal = focal_from_fov(asked.fov_x_deg, asked.size[0])
        lens = replace(lens, fl_x=focal, fl_y=focal)
    kind, _, values = asked.path.partition(":")
    if kind in AROUND:
        poses, distance = _around(asked, first)
    elif kind in ("ellipse", "line"):
        poses, distance = _published(asked, first, kind, values)
    elif kind == "between":
        poses, distance = _between(asked, given), float(np.linalg.norm(first.position))
    else:
        return _file(asked, given)
    cameras = tuple(replace(lens, c2w=pose) for pose in poses)
    return Route(cameras, _times(asked, given, kind), distance)


def covering(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same view on a frame of another size and shape, which it fills: what is too much is cut off."""
    zoom = max(size[0] / camera.w, size[1] / camera.h)
    cx, cy = (camera.cx - camera.w / 2) * zoom + size[0] / 2, (camera.cy - camera.h / 2) * zoom + size[1] / 2
    return replace(
        camera, fl_x=camera.fl_x * zoom, fl_y=camera.fl_y * zoom, cx=cx, cy=cy, w=size[0], h=size[1]
    )


def numbers(path: str, text: str, count: int) -> list[float]:
    """Numbers with commas between. InputError for others."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(
            f"--path {path}: write {count} numbers, as in ellipse:60,70,1 or line:30,2,-10 (in scene units)"
        )
    return found


def _around(asked: Asked, first: Camera) -> tuple[list[Array], float]:
    x, y, z = first.position
    own = float(np.linalg.norm(first.position))
    radius = own if asked.radius is None else asked.radius
    elevation = asked.elevation_deg
    if elevation is None:
        elevation = float(np.degrees(np.arcsin(np.clip(z / max(own, 1e-9), -1, 1))))
    azimuth = float(np.degrees(np.arctan2(x, -y)))
    step = 0.0 if asked.path == "front_view" else 360.0 / asked.frames
    poses = [orbit_c2w(azimuth + step * i, elevation, radius) for i in range(asked.frames)]
    if np.allclose(poses[0], first.c2w, atol=1e-6):
        poses[0] = first.c2w
    return poses, radius


def _published(asked: Asked, first: Camera, kind: str, values: str) -> tuple[list[Array], float]:
    """A released path, moved so that it starts at the first input: its centre lies before that camera."""
    try:
        if kind == "ellipse":
            a, b, step = numbers(asked.path, values, 3)
            poses, distance = ellipse_path(a, b, step, asked.frames), b
        else:
            distance = asked.radius or float(np.linalg.norm(first.position))
            poses = line_path(distance, numbers(asked.path, values, 3), asked.frames)
    except ValueError as error:
        raise InputError(f"--path {asked.path}: {error}") from None
    moved = poses @ np.linalg.inv(poses[0]) @ first.w2c_opencv
    moved[0] = first.w2c_opencv
    return [w2c_opencv_to_c2w(pose) for pose in moved], distance


def _between(asked: Asked, given: Given) -> list[Array]:
    if len(given.views) < 2:
        raise InputError("--path between: needs two inputs at least, with --cameras")
    ends = [given.views[0].camera, given.views[-1].camera]
    assert ends[0] is not None and ends[1] is not None
    poses = between(
        ends[0].w2c_opencv, ends[1].w2c_opencv, asked.frames, centres=asked.path == "between:centres"
    )
    c2w = [w2c_opencv_to_c2w(pose) for pose in poses]
    return [ends[0].c2w, *c2w[1:-1], ends[1].c2w]


def _file(asked: Asked, given: Given) -> Route:
    if not asked.path.lower().endswith(".json"):
        known = ", ".join((*AROUND, "ellipse:A,B,DEG", "line:X,Y,Z", "between"))
        raise InputError(f"--path {asked.path}: give {known}, or a transforms.json")
    found = read_transforms(Path(asked.path))
    if len(found) != asked.frames:
        raise InputError(f"--path {asked.path}: {len(found)} cameras for {asked.frames} frames")
    cameras = tuple(covering(camera, asked.size) for camera in found.cameras)
    times = found.times or _times(asked, given, "file")
    return Route(cameras, times, float(np.linalg.norm(cameras[0].position)))


def _times(asked: Asked, given: Given, kind: str) -> tuple[float, ...]:
    if not given.video or kind in STILL:
        return (given.views[0].time,) * asked.frames
    return tuple(view.time for view in given.views)[: asked.frames]
