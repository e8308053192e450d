"""Which image file a transforms.json means by a `file_path`: images and cameras are joined by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import natural_key
from orbit4d.datasets.images.folders import IMAGE_SUFFIXES, image_files

#: Folders in which tools keep the images of a capture.
_INSIDE = ("", "frames", "images")
_NAMED = 4


@dataclass(frozen=True)
class Listed:
    """Image files in the order of the record."""

    files: tuple[Path, ...]
    places: npt.NDArray[np.float64] | None
    """Place of each in the natural order of all images of the folder; None where they lie in several."""
    notes: tuple[str, ...]


def listed_images(record: Transforms, folder: Path) -> Listed:
    """The image of each frame of `record` that a folder holds.

    Names count from the folder, from the folder of the record where that leads into it, or, where that is
    unambiguous, by the file's name alone; without a suffix (Blender, D-NeRF) or with another one, too.
    InputError that names an image that is listed and not there, and for names that mean one image twice.
    """
    names = [name.replace("\\", "/") for name in record.files]
    bare = [Path(name).name for name in names]
    unique = len(set(bare)) == len(set(names))
    files = [_find(name, record.path.parent, folder, unique) for name in names]
    missing = [name for name, file in zip(record.files, files) if file is None]
    if missing:
        raise InputError(
            f"{record.path}: lists {missing[0]}, which is not in {folder} ({len(missing)} of {len(files)} "
            "are not there); give the folder of the images that it lists"
        )
    found = [file for file in files if file is not None]
    seen: dict[Path, str] = {}
    for name, file in zip(names, found):
        if seen.setdefault(file.resolve(), name) != name:
            raise InputError(f"{record.path}: {seen[file.resolve()]} and {name} are one image, {file}")
    places, others = _places(found)
    notes = []
    if others:
        named = ", ".join(file.name for file in others[:_NAMED]) + (" …" if len(others) > _NAMED else "")
        notes.append(f"{len(others)} images without a camera in {record.path.name} are left out: {named}")
    if record.times is None and places is not None and (np.diff(places) <= 0).any():
        notes.append(f"{record.path.name} has no times: time follows the order of the file names")
    return Listed(tuple(found), places, tuple(notes))


def _find(name: str, above: Path, folder: Path, unique: bool) -> Path | None:
    within = folder.resolve()
    bases = [folder / name]
    beside = above / name
    if above.resolve() == within or beside.resolve().is_relative_to(within):
        bases.append(beside)
    if unique:
        bases += [folder / sub / Path(name).name for sub in _INSIDE]
    for base in bases:
        if (file := _with_suffix(base)) is not None:
            return file
    return None


def _with_suffix(base: Path) -> Path | None:
    """`base` itself, or the one image of that name with a suffix, or with another one."""
    if base.is_file():
        return base
    for suffix in IMAGE_SUFFIXES:
        if (file := base.with_name(base.name + suffix)).is_file():
            return file
    if base.suffix.lower() in IMAGE_SUFFIXES:
        for suffix in IMAGE_SUFFIXES:
            if (file := base.with_suffix(suffix)).is_file():
                return file
    return None


def _places(files: Sequence[Path]) -> tuple[npt.NDArray[np.float64] | None, list[Path]]:
    """Places among all images of the files' one folder, and those of its images that are not among them."""
    folders = {file.parent for file in files}
    if len(folders) != 1:
        return None, []
    inside = image_files(folders.pop())
    mine = {file.name for file in files}
    order = {name: i for i, name in enumerate(sorted({f.name for f in inside} | mine, key=natural_key))}
    return np.array([order[file.name] for file in files], float), [f for f in inside if f.name not in mine]


def with_listed(record: Transforms, files: Sequence[Path]) -> Transforms:
    """The frames of `record` that belong to image files, in the files' order. InputError that names a file
    without a camera.
    """
    names = [Path(name.replace("\\", "/")) for name in record.files]
    order = []
    for file in files:
        same = [i for i, name in enumerate(names) if name.stem == file.stem or name.name == file.name]
        if len(same) > 1:
            parts = file.absolute().with_suffix("").parts
            tails = [Path(name).with_suffix("").parts for name in names]
            same = [i for i in same if tails[i] and parts[-len(tails[i]) :] == tails[i]]
        if len(same) != 1:
            raise InputError(f"{record.path}: no camera for {file.name}, by its name; give one to each image")
        order.append(same[0])
    return record.taken(order)
