"""What every layout of a capture is read into: tracks, one per camera, and a few facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Array, Camera
from orbit4d.datasets.cameras.lens import Lens
from orbit4d.datasets.cameras.posed_frames import Transforms, lens_fault, pose_fault
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import natural_key, naturally
from orbit4d.datasets.images.folders import IMAGE_SUFFIXES, image_files

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
SPLITS = ("train", "val", "test")
#: Folders of mattes beside the folders of images, as the layouts name them.
MASK_FOLDERS = ("masks", "mask", "fmasks", "bgmts")


@dataclass(frozen=True)
class Track:
    """What one camera filmed."""

    label: str
    """Its name within the capture."""
    source: Path | tuple[Path, ...] | npt.NDArray[np.uint8]
    """A video, image files, or images [F, H, W, 3 or 4]."""
    poses: Transforms
    """One camera that stands still, or one per frame; OpenGL axes, +Z up."""
    times: tuple[float, ...] | None = None
    """One per frame, in [0, 1]; None: as the frames are numbered, or evenly."""
    masks: tuple[Path, ...] = ()
    """One per frame, or none."""
    split: str = "train"
    """`train`, `val` or `test`."""


@dataclass(frozen=True)
class Capture:
    """Synchronised cameras and what is known of them."""

    layout: str
    tracks: tuple[Track, ...]
    split_from: str = ""
    """Where the format's own split comes from; empty where it has none."""
    generated: bool = False
    """Whether a model drew the frames, whose brightness drifts from view to view."""
    whole_scene: bool = False
    """Whether the layout is that of rooms and not of objects on a flat ground."""
    depths: tuple[float, float] | None = None
    """Smallest and largest depth that the layout names, units of the cameras."""
    mirrored: tuple[Track, ...] = ()
    """The same tracks with cameras that go round the other way, where the layout leaves that open."""
    turned: Array | None = None
    """Rotation [3, 3] that brought the layout's own world to +Z up; None where it has been that already."""
    notes: tuple[str, ...] = field(default_factory=tuple)


def posed(
    path: Path, c2w: Sequence[Array], intrinsics: Sequence[Mapping[str, float]], **more: Any
) -> Transforms:
    """Cameras with c2w [4, 4] (OpenGL axes), and fl_x, fl_y, cx, cy, w, h as far as they are known.

    InputError that names `path` for a pose that is no camera-to-world matrix, and a lens of numbers that are
    none.
    """
    for i, (pose, lens) in enumerate(zip(c2w, intrinsics)):
        if (why := pose_fault(np.asarray(pose, np.float64))) is not None:
            raise InputError(f"{path}: camera {i} has a pose that {why}")
        for key, value in lens.items():
            if not np.isfinite(value) or (key not in ("cx", "cy") and value <= 0):
                raise InputError(f"{path}: camera {i} has {key} {value:g}")
        if (why := lens_fault(lens)) is not None:
            raise InputError(f"{path}: camera {i} {why}")
    return Transforms(path, tuple(c2w), tuple(intrinsics), (Lens(),) * len(c2w), (), **more)


def of_cameras(path: Path, cameras: Sequence[Camera]) -> Transforms:
    """Whole cameras as a record."""
    names = ("fl_x", "fl_y", "cx", "cy", "w", "h")
    return posed(path, [c.c2w for c in cameras], [dict(zip(names, c.intrinsics)) for c in cameras])


def videos_in(folder: Path) -> list[Path]:
    """Videos of a folder in natural order."""
    return naturally(
        path for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )  # fmt: skip


def folders_in(folder: Path) -> list[Path]:
    """Folders that hold images, in natural order; those of mattes are left out."""
    if not folder.is_dir():
        return []
    inside = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return naturally(path for path in inside if path.name not in MASK_FOLDERS and image_files(path))


def masks_of(root: Path, label: str, files: Sequence[Path], given: Path | None = None) -> tuple[Path, ...]:
    """Mattes `masks/<camera>/<frame>.png` (also mask/, fmasks/, bgmts/) of a camera's images, by name.

    InputError that names an image without one where the camera has some.
    """
    places = [given] if given is not None else [root / name for name in MASK_FOLDERS]
    for place in places:
        inside = {mask.stem: mask for mask in image_files(place / label)}
        if not inside:
            continue
        lacking = [file for file in files if file.stem not in inside]
        if lacking:
            raise InputError(
                f"{place / label}: no mask for {lacking[0].name} ({len(lacking)} of {len(files)} lack one); "
                "name masks as their images"
            )
        return tuple(inside[file.stem] for file in files)
    if given is not None:
        raise InputError(f"--mask {given}: no folder {label} with masks; give {given.name}/<camera>/<frame>")
    return ()


def with_suffix(base: Path) -> Path | None:
    """The image that a name without its suffix means."""
    if base.is_file():
        return base
    found = (base.with_name(base.name + suffix) for suffix in IMAGE_SUFFIXES)
    return next((file for file in found if file.is_file()), None)


def by_label(labels: Sequence[str]) -> list[str]:
    """Labels once each, in natural order."""
    return sorted(dict.fromkeys(labels), key=natural_key)
