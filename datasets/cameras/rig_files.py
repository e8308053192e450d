"""A rig of the user's own: cameras from a transforms.json or cameras.json, as data of a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.rigs import RIGS, RigCamera, label_of, parse_rig
from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import InputError

#: How far a rotation may be from orthonormal.
_ORTHONORMAL = 1e-3


@dataclass(frozen=True)
class FileCamera:
    """One camera of a file: one pose, or one for each frame."""

    label: str
    c2w: tuple[tuple[float, ...], ...]
    """Camera-to-world matrices row by row, 16 numbers each, OpenGL axes, units of the normalised scene."""
    intrinsics: tuple[float, float, float, float, int, int]
    """fl_x, fl_y, cx, cy in pixels of an image of w x h."""

    def at(self, frames: int, edge: int) -> tuple[Camera, ...]:
        """`frames` cameras for images whose longer side has `edge` pixels."""
        fl_x, fl_y, cx, cy, w, h = self.intrinsics
        scale = edge / max(w, h)
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        found = tuple(
            Camera(np.reshape(m, (4, 4)), fl_x, fl_y, cx, cy, w, h).resized(*size) for m in self.c2w
        )
        return found * frames if len(found) == 1 else found


@dataclass(frozen=True)
class FileRig:
    """The cameras of a file under a rig's name."""

    column: str
    """The name in the index, from the file's."""
    cameras: tuple[FileCamera, ...]

    def check_frames(self, frames: int) -> None:
        """InputError unless each camera has one pose, or one for each frame."""
        for camera in self.cameras:
            if len(camera.c2w) not in (1, frames):
                raise InputError(
                    f"rig {self.column}: {camera.label} has {len(camera.c2w)} cameras per view, "
                    f"{frames} frames: give 1 or {frames}"
                )

    def rig_cameras(self, frames: int, edge: int) -> list[RigCamera]:
        """As `rigs.rig_cameras`, for images whose longer side has `edge` pixels."""
        self.check_frames(frames)
        found = []
        for camera in self.cameras:
            cameras = camera.at(frames, edge)
            x, y, z = cameras[0].position.tolist()
            radius = float(np.sqrt(x * x + y * y + z * z))
            azimuth = float(np.degrees(np.arctan2(x, -y)))
            elevation = float(np.degrees(np.arcsin(np.clip(z / radius, -1.0, 1.0)))) if radius else 0.0
            found.append(RigCamera(camera.label, cameras, azimuth, elevation, radius))
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FileRig:
        """From plain data, such as `dataclasses.asdict` makes, also after a trip through JSON."""
        cameras = tuple(
            FileCamera(
                entry["label"],
                tuple(tuple(float(x) for x in matrix) for matrix in entry["c2w"]),
                (*map(float, entry["intrinsics"][:4]), *map(int, entry["intrinsics"][4:])),  # type: ignore[arg-type]
            )
            for entry in config["cameras"]
        )
        return cls(config["column"], cameras)


def read_rig(path: str | os.PathLike[str]) -> FileRig:
    """The cameras of a transforms.json, or of the cameras.json of a recon4d scene.

    Frames of one `camera_label` are the poses of one camera, in the order of their times. Without labels,
    frames of several times are the poses of one moving camera, else each is a camera of its own. InputError,
    one line that names the file, for what cannot be rendered.
    """
    file = Path(path)
    transforms = read_transforms(file, any_pose=True)
    if any(transforms.lenses):
        raise InputError(f"{file}: {next(filter(None, transforms.lenses))}; rendered cameras are pinholes")
    cameras = transforms.cameras
    groups = _grouped(transforms.labels, transforms.times, len(cameras))
    found = []
    for label, places in groups.items():
        mine = [cameras[i] for i in places]
        _check(file, label, mine)
        if all(camera == mine[0] for camera in mine):
            mine = mine[:1]  # a static camera, repeated for each frame
        poses = tuple(tuple(camera.c2w.reshape(16).tolist()) for camera in mine)
        found.append(FileCamera(label, poses, mine[0].intrinsics))
    return FileRig(column_of(file), tuple(found))


def column_of(path: Path) -> str:
    """Name of a rig after its file: lower-case letters, digits and single underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:60]
    taken = name in RIGS or re.match(r"(sync|hemi36|ring)(_|$)", name) or parse_rig(name) is not None
    return f"own_{name}".rstrip("_") if taken or not name or not name[0].isalpha() else name


def _grouped(labels: Sequence[str], times: Sequence[float] | None, n: int) -> dict[str, list[int]]:
    """Label of each camera to the places of its poses, in the order of their times."""
    if not labels:
        if times is not None and len(set(times)) > 1:
            labels = [label_of(0)] * n
        else:
            labels = [label_of(i) for i in range(n)]
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    if times is not None:
        for places in groups.values():
            places.sort(key=lambda i: times[i])
    return groups


def _check(file: Path, label: str, cameras: Sequence[Camera]) -> None:
    first = cameras[0].intrinsics
    for camera in cameras:
        rotation = camera.c2w[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ORTHONORMAL:
            raise InputError(f"{file}: {label}: a rotation that is not orthonormal to {_ORTHONORMAL:g}")
        if np.linalg.det(rotation) < 0:
            raise InputError(f"{file}: {label}: a mirrored camera (determinant -1); turn one axis over")
        if camera.intrinsics != first:
            raise InputError(f"{file}: {label}: intrinsics that change between frames; a clip has one lens")
