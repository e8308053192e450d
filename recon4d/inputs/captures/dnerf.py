"""D-NeRF: transforms_{train,val,test}.json, one camera that stands elsewhere at every time, RGBA images."""

from __future__ import annotations

import json
from pathlib import Path

from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.captures.capture import SPLITS, Capture, Track, with_suffix


def is_dnerf(folder: Path) -> bool:
    """Whether a folder has cameras for training and a second set: alone, they are an orbit with cameras."""
    held = any((folder / f"transforms_{name}.json").is_file() for name in ("val", "test"))
    return held and (folder / "transforms_train.json").is_file()


def read(folder: Path) -> Capture:
    """A track per split. `val` is left out where `test` holds the same images or others."""
    records = {name: folder / f"transforms_{name}.json" for name in SPLITS}
    found = {name: read_transforms(path) for name, path in records.items() if _has_frames(path)}
    if "train" not in found:
        raise InputError(f"{folder}: transforms_train.json lists no frame")
    if "test" in found:
        found.pop("val", None)
    notes = [note for record in found.values() for note in record.notes]
    tracks = tuple(_track(folder, name, record) for name, record in found.items())
    return Capture("D-NeRF", tracks, "transforms_{train,val,test}.json", notes=tuple(notes))


def _has_frames(path: Path) -> bool:
    """Whether there is a split with frames in it: published sets have empty ones."""
    try:
        # Anything but an empty list is for `read_transforms` to judge.
        return path.is_file() and json.loads(path.read_text(encoding="utf-8-sig")).get("frames") != []
    except (OSError, ValueError, AttributeError, RecursionError):
        return True  # `read_transforms` says what is wrong


def _track(folder: Path, name: str, record: Transforms) -> Track:
    files = []
    for listed in record.files:
        file = with_suffix(folder / listed)
        if file is None:
            raise InputError(f"{record.path}: lists {listed}, which is not there")
        files.append(file)
    return Track(name, tuple(files), record, record.times, split=name)
