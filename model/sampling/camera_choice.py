"""The cameras of `orbit4d multicam`: a rig, or a file in one of the layouts that name cameras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.rig_files import read_rig
from orbit4d.datasets.cameras.rigs import RigCamera, label_of, rig_cameras
from orbit4d.datasets.cameras.unreal import focal_of, target_of, to_c2w
from orbit4d.datasets.core.errors import InputError

#: The published lens, mm; the network was trained at it and is given no other.
LENS_MM = 24.0
_NEAREST, _ORTHONORMAL = 0.1, 1e-3


@dataclass(frozen=True)
class ChosenCamera:
    """One view."""

    label: str
    """In the rig or file it is from."""
    cameras: tuple[Camera, ...]
    """One per frame."""


def choose_cameras(
    rig: str,
    file: str,
    pick: str,
    frames: int,
    size: tuple[int, int],
    seed: int = 0,
    metres_per_unit: float = 2.0,
) -> list[ChosenCamera]:
    """The cameras of `rig` or `file`, by `pick` ("3,1,7") where it is not empty; `size` is (width, height).

    InputError, one line, for an unknown rig, a file of no known layout, cameras that do not fit the frames,
    that are too near, or that are no rotations, and for fewer than two.
    """
    if bool(rig) == bool(file):
        raise InputError("give one of --rig and --cameras")
    if rig:
        found = [
            ChosenCamera(one.label, one.cameras)
            for one in rig_cameras(rig, frames, size, seed=seed, metres_per_unit=metres_per_unit)
        ]
    else:
        found = _of_file(Path(file), frames, size, metres_per_unit)
    found = _picked(found, pick, rig or file)
    if len(found) < 2:
        raise InputError(f"{rig or file}: one camera; synchronised views need two or more")
    for one in found:
        _check(rig or file, one)
    return found


def _of_file(file: Path, frames: int, size: tuple[int, int], metres: float) -> list[ChosenCamera]:
    try:
        record = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"--cameras {file}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"--cameras {file}: is no JSON of cameras ({error})") from None
    if isinstance(record, dict) and "frames" in record:
        rig = read_rig(file)
        rig.check_frames(frames)
        moving = [
            (c.label, rig_views(one, size)) for c, one in zip(rig.cameras, rig.rig_cameras(frames, max(size)))
        ]
        return [ChosenCamera(label, cameras) for label, cameras in moving]
    return _of_unreal(file, frames, size, metres)


def rig_views(camera: RigCamera, size: tuple[int, int]) -> tuple[Camera, ...]:
    """A file's camera for images of `size`, as wide as asked, cut or grown in height about the centre."""
    found = []
    for one in camera.cameras:
        scale = size[0] / one.w
        wide = one.resized(size[0], round(one.h * scale))
        found.append(replace(wide, cy=wide.cy + (size[1] - wide.h) / 2, h=size[1]))
    return tuple(found)


def _of_unreal(file: Path, frames: int, size: tuple[int, int], metres: float) -> list[ChosenCamera]:
    from orbit4d.datasets.layouts.importing import BadFolder
    from orbit4d.datasets.layouts.syncammaster import matrices_of

    try:
        matrices, _ = matrices_of(str(file), file.read_bytes())
    except BadFolder as error:
        raise InputError(
            f"--cameras {file}: no transforms.json, camera_extrinsics.json, 2024 JSON or scene's cameras.json"
        ) from error
    rows = list(matrices.values())
    counts = {len(poses) for poses in rows} - {1, frames}
    if counts:
        raise InputError(
            f"--cameras {file}: {max(counts)} cameras per view, {frames} frames: give 1 or {frames}"
        )
    moving = any(np.ptp(poses, axis=0).any() for poses in rows)
    target = target_of([poses[0] for poses in rows], moving)
    focal, (w, h) = focal_of(LENS_MM, size), size
    found = []
    for label, poses in matrices.items():
        c2w = to_c2w(poses, target, metres)
        cameras = [Camera(matrix, focal, focal, w / 2, h / 2, w, h) for matrix in c2w]
        found.append(
            ChosenCamera(label, tuple(cameras) if len(cameras) == frames else tuple(cameras) * frames)
        )
    return found


def _picked(found: Sequence[ChosenCamera], pick: str, where: str) -> list[ChosenCamera]:
    if not pick:
        return list(found)
    chosen = []
    labels = [one.label for one in found]
    for word in (word.strip() for word in pick.split(",")):
        if word in labels:
            place = labels.index(word)
        elif word.isdigit() and 1 <= int(word) <= len(found):
            place = int(word) - 1
        else:
            raise InputError(
                f"--pick {word}: {where} has cameras 1 to {len(found)} ({', '.join(labels[:12])})"
            )
        if found[place] in chosen:
            raise InputError(f"--pick {pick}: names camera {word} twice")
        chosen.append(found[place])
    return chosen


def _check(where: str, one: ChosenCamera) -> None:
    for camera in one.cameras:
        rotation = camera.c2w[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ORTHONORMAL or np.linalg.det(rotation) < 0:
            raise InputError(f"{where}: {one.label}: no rotation to {_ORTHONORMAL:g}")
        if np.linalg.norm(camera.c2w[:3, 3]) < _NEAREST:
            raise InputError(f"{where}: {one.label}: a camera less than {_NEAREST} unit from the target")


def numbered(place: int) -> str:
    """Label of view `place` in the output, `cam01` for 0."""
    return label_of(place)
