"""The cameras of one orbit, and what their lens keeps sharp."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit
from orbit4d.datasets.cameras.paths import CameraPath
from orbit4d.datasets.cameras.rigs import RigCamera
from orbit4d.datasets.core.errors import InputError
from orbit4d.render.planning.camera_settings import CameraSettings
from orbit4d.render.planning.framing import FramedFor
from orbit4d.render.planning.settings import RenderSettings

#: Width in mm of the sensor that the cameras of orbits stand for.
SENSOR_MM = 36.0


@dataclass(frozen=True)
class Optics:
    """A lens with an aperture, focused on the centre of the normalised scene."""

    f_number: float
    """As written on the lens, whose sensor is `sensor_mm` wide."""
    sensor_mm: float = SENSOR_MM
    metres_per_unit: float = 1.0


def focus_distance(camera: Camera) -> float:
    """Distance in units of the plane that is in focus: that of the centre of the scene."""
    return float(np.linalg.norm(camera.position))


def opening(camera: Camera, optics: Optics) -> float:
    """Diameter in units of the lens's opening: focal length / f-number."""
    lens_mm = optics.sensor_mm * camera.fl_x / camera.w
    return lens_mm / 1000.0 / optics.metres_per_unit / optics.f_number


def largest_blur(camera: Camera, optics: Optics, points: npt.NDArray[np.floating]) -> float:
    """Radius in pixels of the largest disc that a point of `points` [V, 3] in front of the camera becomes.

    A point at depth d before a lens of opening A focused at s covers a disc of the diameter
    fl A |d - s| / (d s) in pixels.
    """
    depth = camera.project(points)[1]
    depth = depth[depth > 1e-3]
    if len(depth) == 0:
        return 0.0
    s = focus_distance(camera)
    ends = np.array([depth.min(), depth.max()])
    return float((camera.fl_x * opening(camera, optics) * np.abs(ends - s) / (ends * s)).max() / 2.0)


@dataclass(frozen=True)
class OrbitCameras:
    """Cameras of one orbit, one for each frame."""

    azimuth0_deg: float
    elevation_deg: float
    radius: float
    cameras: list[Camera]
    frames_for: FramedFor
    optics: Optics | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """How they were chosen; {} where nothing was drawn."""


def orbit_cameras(settings: RenderSettings, uid: str, k: int) -> OrbitCameras:
    """Cameras of orbit `k` of an asset. InputError, naming the asset, for a path that cannot be."""
    drawn = settings.cameras
    elevation, radius = settings.elevation_of(uid, k), settings.radius_of(uid, k)
    fov, azimuth0 = settings.fov_of(uid, k), settings.azimuth0_of(uid, k)
    size = (settings.resolution, settings.resolution)
    path = drawn.path_of(settings.seed, uid, k)
    is_plain = path == CameraPath()
    circle = FramedFor(radius, fov, elevation)
    if is_plain:
        cameras = orbit(settings.frames, radius, elevation, fov, azimuth0, size, settings.closed)
    else:
        cameras = _along(path, settings, uid, (azimuth0, elevation, radius), fov)
        if path.kind == "spline":
            radius, elevation = _start_of(path)
            azimuth0 += path.key_poses[0][0]
        if path.kind != "circle" or path.roll_deg:
            circle = FramedFor(radius, fov, elevation, tuple(cameras))
    if settings.closed and is_plain:
        # Written as the same numbers and not as an angle of 360 degrees, so that the pair is seen as equal.
        cameras[-1] = cameras[0]
    f_number = drawn.value("aperture", settings.seed, uid, k)
    optics = None if f_number is None else Optics(f_number)
    facts = _facts(settings, path, fov, f_number)
    return OrbitCameras(azimuth0, elevation, radius, cameras, circle, optics, facts)


def _along(
    path: CameraPath, settings: RenderSettings, uid: str, start: tuple[float, float, float], fov: float
) -> list[Camera]:
    top = start[1] + path.rise_deg
    if path.kind == "spiral" and abs(top) > 89.0:
        raise InputError(
            f"{uid}: a spiral from {start[1]:.1f} degrees that rises by {path.rise_deg:.1f} passes a pole; "
            "keep elevation and elevation + rise within -89 to 89"
        )
    w = settings.resolution
    focal = focal_from_fov(fov, w)
    poses = path.c2w(start, settings.frames, settings.closed)
    return [Camera(c2w, focal, focal, w / 2, w / 2, w, w) for c2w in poses]


def _start_of(path: CameraPath) -> tuple[float, float]:
    """(radius, elevation) of a spline's first pose."""
    return path.key_poses[0][2], path.key_poses[0][1]


def _facts(settings: RenderSettings, path: CameraPath, fov: float, f_number: float | None) -> dict[str, Any]:
    if settings.cameras == CameraSettings():
        return {}
    facts: dict[str, Any] = {"path": path.kind, "turns": path.turns, "fov_x_deg": fov}
    if path.kind == "spiral":
        facts["rise_deg"] = path.rise_deg
    if path.kind == "spline":
        facts["key_poses"] = [list(pose) for pose in path.key_poses]
        del facts["turns"]
    facts |= {"roll_deg": path.roll_deg} if path.roll_deg else {}
    facts |= {"easing": path.easing} if path.easing else {}
    facts |= {"f_number": f_number, "focus": "centre"} if f_number is not None else {}
    return facts


def rig_optics(settings: RenderSettings, uid: str, name: str, camera: RigCamera) -> Optics | None:
    """The lens of a rig's camera, where depth of field was asked for; one draw for all of its cameras."""
    drawn = settings.cameras
    if drawn.rig_aperture and camera.f_number is not None:
        f_number: float | None = camera.f_number
    elif drawn.rig_aperture:
        return None
    else:
        f_number = drawn.value("aperture", settings.seed, f"{uid}/{name}", 0)
    if f_number is None:
        return None
    return Optics(f_number, camera.sensor_mm or SENSOR_MM, settings.metres_per_unit)
