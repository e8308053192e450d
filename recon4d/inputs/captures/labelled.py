"""transforms.json of several cameras: one entry per (camera, time), or one per camera.

nerfstudio with `time`, what `orbit4d export` and `orbit4d multicam` write, and Diffuman4D's. Cameras are
known apart by `camera_label`, else by the folder or video of `file_path`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import natural_key
from orbit4d.datasets.images.folders import image_files
from orbit4d.recon4d.inputs.captures.capture import (
    SPLITS,
    VIDEO_SUFFIXES,
    Capture,
    Track,
    by_label,
    masks_of,
    with_suffix,
)

NAME = "transforms.json"
#: Folders in which the images of a camera may lie beside a file that names cameras only.
_PLACES = ("images_alpha", "images", "frames", "videos", "")


def is_labelled(folder: Path) -> bool:
    """Whether a folder's transforms.json holds several cameras, several views of one time, or a split."""
    path = folder / NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        frames = [frame for frame in record["frames"] if "transform_matrix" in frame]
        labels = {frame.get("camera_label") for frame in frames}
        times = [frame["time"] for frame in frames if frame.get("time") is not None]
        moments = len(set(times))
        held = any(record.get(f"{name}_filenames") for name in ("val", "test"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # whoever reads it says what is wrong
    # All at one time is a static orbit, which is one camera's.
    return len(labels) > 1 or 1 < moments < len(times) or (held and bool(times))


def read(path: Path, folder: Path, mask: Path | None = None, allow_missing: bool = False) -> Capture:
    """Tracks of the record `path` whose images lie in `folder`.

    InputError for an image or video that is listed and not there; `allow_missing` leaves such images out.
    """
    record = read_transforms(path)
    raw = json.loads(path.read_text(encoding="utf-8-sig"))
    splits = _splits(raw, record)
    labels = record.labels or tuple(_label(record, i, splits) for i in range(len(record)))
    tracks: list[Track] = []
    absent: list[str] = []
    for label in by_label(labels):
        mine = [i for i, other in enumerate(labels) if other == label]
        for split in dict.fromkeys(splits[i] for i in mine):
            rows = [i for i in mine if splits[i] == split]
            name = label if len({splits[i] for i in mine}) == 1 else f"{label} {split}"
            numbers = [raw["frames"][i].get("frame") for i in rows]
            track, gone = _track(replace(record.taken(rows), path=path), folder, name, label, numbers, mask)
            absent += gone
            if track is not None:
                tracks.append(replace(track, split=split))
    if absent and not allow_missing:
        raise InputError(
            f"{path}: lists {absent[0]}, which is not there ({len(absent)} of {len(record)} are not); "
            "--allow-missing fits what is there"
        )
    notes = [*record.notes]
    if absent:
        notes.append(f"{len(absent)} listed images are not there: the grid has holes")
    per_camera = record.times is None and len(set(labels)) == len(record)
    held = any(track.split != "train" for track in tracks)
    generated = per_camera or (path.parent.parent / "multicam.json").is_file()
    return Capture(
        "Diffuman4D" if per_camera and record.labels else "nerfstudio", tuple(tracks),
        f"{path.name}: *_filenames" if held else "", generated and bool(record.labels), notes=tuple(notes),
    )  # fmt: skip


def _splits(raw: Mapping[str, Any], record: Transforms) -> list[str]:
    """Split of each frame, `train` where the file says nothing."""
    named: dict[str, str] = {}
    for split in SPLITS:
        listed = raw.get(f"{split}_filenames") or ()
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            raise InputError(f"{record.path}: {split}_filenames is no list of file names")
        named |= dict.fromkeys(listed, split)
    return [named.get(record.files[i], "train") if record.files else "train" for i in range(len(record))]


def _label(record: Transforms, i: int, splits: Sequence[str]) -> str:
    """A camera's name where the file has no `camera_label`: its folder or video."""
    if not record.files:
        return "camera"
    listed = Path(record.files[i].replace("\\", "/"))
    if listed.suffix.lower() in VIDEO_SUFFIXES or record.times is None:
        return listed.stem
    return splits[i] if len(set(splits)) > 1 else listed.parent.name or "camera"


def _track(
    record: Transforms, folder: Path, name: str, label: str, numbers: Sequence[Any], mask: Path | None
) -> tuple[Track | None, list[str]]:
    """The track of one camera, and the listed images that are not there."""
    found = [_found(record, i, folder) for i in range(len(record))]
    one = next((place for place in found if place is not None), None)
    if len(record) == 1 and (one is None or one.is_dir() or record.times is None):
        return _standing(record, folder, name, label, one, mask), []
    if one is not None and one.suffix.lower() in VIDEO_SUFFIXES:
        if len(set(found)) > 1:
            raise InputError(f"{record.path}: camera {label} is in several videos; give it one")
        if all(isinstance(number, int) for number in numbers):
            record = record.taken(sorted(range(len(numbers)), key=lambda i: numbers[i]))
        return Track(name, one, record, record.times), []
    absent = [record.label(i) for i, place in enumerate(found) if place is None or place.is_dir()]
    kept = [i for i, place in enumerate(found) if place is not None and not place.is_dir()]
    if not kept:
        return None, absent
    files = tuple(place for i in kept if (place := found[i]) is not None)
    shown = record.taken(kept)
    if record.masks:
        masks = tuple(record.path.parent / mask.replace("\\", "/") for mask in shown.masks)
    else:
        masks = masks_of(folder, label, files, mask)
    order = sorted(range(len(kept)), key=lambda i: _moment(shown, files, i))
    masks = tuple(masks[i] for i in order) if masks else ()
    ordered = tuple(files[i] for i in order)
    return Track(name, ordered, shown.taken(order), shown.taken(order).times, masks), absent


def _moment(record: Transforms, files: Sequence[Path], i: int) -> tuple[Any, ...]:
    return (record.times[i],) if record.times is not None else natural_key(files[i].name)


def _found(record: Transforms, i: int, folder: Path) -> Path | None:
    """What a `file_path` means: an image, a video or a folder."""
    if not record.files:
        return None
    listed = record.files[i].replace("\\", "/")
    for base in (record.path.parent / listed, folder / listed):
        if base.is_dir():
            return base
        if (file := with_suffix(base)) is not None:
            return file
    return None


def _standing(
    record: Transforms, folder: Path, name: str, label: str, listed: Path | None, mask: Path | None
) -> Track:
    """The track of a camera that has one entry for all times."""
    if listed is not None and listed.suffix.lower() in VIDEO_SUFFIXES:
        return Track(name, listed, record)
    places = [listed] if listed is not None and listed.is_dir() else []
    if listed is not None and listed.is_file():
        places.append(listed.parent)
    places += [folder / sub / label for sub in _PLACES]
    for place in places:
        if files := image_files(place):
            return Track(name, tuple(files), record, masks=masks_of(folder, label, files, mask))
        for suffix in VIDEO_SUFFIXES:
            if (video := place.with_name(place.name + suffix)).is_file():
                return Track(name, video, record)
    raise InputError(f"{record.path}: camera {label} has no images: give {folder / 'images' / label}")
