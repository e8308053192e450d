"""Camera JSON and folder names of the published Diffusion4D renders (and of G-Objaverse).

Camera JSON gives world axes of the camera: x right, y down, z forward, and its origin; so c2w = [x, -y, -z,
origin] (VideoMV, tools/datasets/video_dataset.py). Folders may end in `_az<fraction of a turn>` and
`_el<asked degrees>`; cameras.py says what those really mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import (
    DEFAULT_FOV_X_DEG,
    Camera,
    focal_from_fov,
    published_azimuth0_deg,
    published_elevation_deg,
)

_FOLDER = re.compile(
    r"(?P<uid>.+?)(?:__a(?P<action>\d+))?(?:_az(?P<az>-?\d+(?:\.\d+)?))?(?:_el(?P<el>-?\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class FolderName:
    """What the name of a published folder says."""

    uid: str
    action_index: int = 0
    azimuth_fraction: float | None = None
    elevation_asked_deg: float | None = None

    @property
    def azimuth0_deg(self) -> float:
        """Azimuth of view 0, degrees."""
        return published_azimuth0_deg(self.azimuth_fraction or 0.0)

    @property
    def elevation_deg(self) -> float:
        """Real elevation, degrees."""
        return published_elevation_deg(self.elevation_asked_deg or 0.0)


def parse_folder(name: str) -> FolderName:
    """Split a folder's name; `__a<k>` (ours, for further actions of one asset) is known too."""
    match = _FOLDER.fullmatch(name)
    assert match is not None, name
    az, el = match["az"], match["el"]
    return FolderName(
        match["uid"],
        int(match["action"] or 0),
        None if az is None else float(az),
        None if el is None else float(el),
    )


def folder_name(uid: str, action_index: int, azimuth0_deg: float, elevation_deg: float) -> str:
    """Name under which `parse_folder` finds the same uid, action and (to its digits) the same angles."""
    name = uid + (f"__a{action_index}" if action_index else "")
    fraction = (-azimuth0_deg / 360.0) % 1.0
    if fraction:
        name += f"_az{fraction:.6f}".rstrip("0")
    if elevation_deg:
        name += f"_el{180.0 * np.tan(np.radians(elevation_deg)):.2f}"
    return name


def camera_from_json(content: Mapping[str, Any], size: tuple[int, int]) -> Camera:
    """Camera of a JSON file for images of `size` = (width, height). KeyError or ValueError when it is no
    camera.

    `x_fov`, `y_fov` are radians; without them the lens is Blender's start-up camera. `cx`, `cy` (ours)
    name a principal point that is not the image centre, in pixels.
    """
    w, h = size
    c2w = np.eye(4)
    for column, (name, sign) in enumerate((("x", 1.0), ("y", -1.0), ("z", -1.0), ("origin", 1.0))):
        c2w[:3, column] = sign * np.array([float(value) for value in content[name]])
    fov_x_deg = np.degrees(content["x_fov"]) if "x_fov" in content else DEFAULT_FOV_X_DEG
    fl_x = focal_from_fov(fov_x_deg, w)
    fl_y = focal_from_fov(float(np.degrees(content["y_fov"])), h) if "y_fov" in content else fl_x
    cx, cy = float(content.get("cx", w / 2)), float(content.get("cy", h / 2))
    return Camera(c2w, fl_x, fl_y, cx, cy, w, h)


def camera_to_json(camera: Camera) -> dict[str, Any]:
    """The published fields of a camera, and where the principal point is not the image centre `cx`, `cy`."""
    centred = (camera.cx, camera.cy) == (camera.w / 2, camera.h / 2)
    return ({} if centred else {"cx": camera.cx, "cy": camera.cy}) | {
        "matrix_world": camera.c2w.tolist(),
        "format_version": 6,
        "max_depth": 5.0,
        "origin": camera.c2w[:3, 3].tolist(),
        "x_fov": float(2 * np.arctan(camera.w / (2 * camera.fl_x))),
        "y_fov": float(2 * np.arctan(camera.h / (2 * camera.fl_y))),
        "x": camera.c2w[:3, 0].tolist(),
        "y": (-camera.c2w[:3, 1]).tolist(),
        "z": (-camera.c2w[:3, 2]).tolist(),
    }


def polar(camera: Camera) -> tuple[float, float, float]:
    """(azimuth in (-180, 180], elevation, both degrees; radius) of a camera's position."""
    x, y, z = camera.position
    radius = float(np.sqrt(x * x + y * y + z * z))
    elevation = float(np.degrees(np.arcsin(np.clip(z / radius, -1, 1)))) if radius else 0.0
    return float(np.degrees(np.arctan2(x, -y))) if x or y else 0.0, elevation, radius
