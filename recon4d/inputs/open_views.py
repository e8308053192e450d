"""From whatever names several cameras to their views: a folder, several videos, arrays, a dataset's rig."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import pick_action, read_clip
from orbit4d.datasets.index.reference import split_reference
from orbit4d.datasets.layouts.scenes import camera_label
from orbit4d.datasets.store.clip import RIGS, Clip
from orbit4d.recon4d.inputs.captures import bare
from orbit4d.recon4d.inputs.captures.capture import VIDEO_SUFFIXES, Capture, Track, of_cameras
from orbit4d.recon4d.inputs.captures.detect import layout_of, read_capture, root_of
from orbit4d.recon4d.inputs.footage import MAX_EDGE
from orbit4d.recon4d.inputs.holding import Hold
from orbit4d.recon4d.inputs.loading import OrbitSpec
from orbit4d.recon4d.inputs.views import Views, read_views

#: Rigs of a dataset that are one camera.
_ORBITS = (*RIGS, "view_set")


@dataclass(frozen=True)
class ViewOptions:
    """How several synchronised cameras are read."""

    layout: str | None = None
    """A layout of `captures.detect.LAYOUTS`, against what is found."""
    ring: tuple[float, ...] | None = None
    """Azimuth of each camera in degrees, counter-clockwise from the front, where none are known."""
    hold_cameras: str | None = None
    """Cameras that are never trained on: labels or numbers, with commas; of a dataset also names of rigs."""
    hold_times: str | None = None
    """Times that are never trained on: in [0, 1] with commas, or "every:K"."""
    allow_missing: bool = False
    """Leave out what a camera lacks, instead of refusing."""
    sync: str | None = None
    """Rig of a dataset, say "ring_16"; default: the only one of an asset that has no orbit."""

    @property
    def given(self) -> list[str]:
        """Options that differ from their defaults, as the command spells them."""
        return [
            f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)
        ]


def open_views(
    source: Any,
    cameras: Any,
    spec: OrbitSpec | None,
    mask: Path | None,
    matte: str = "flat",
    max_edge: int = MAX_EDGE,
    options: ViewOptions | None = None,
) -> Views | None:
    """The views of a source of several cameras; None for a source of one. InputError as `read_views`, and
    for options that a source of one camera has no use for.
    """
    chosen = options or ViewOptions()
    hold = Hold.parse(chosen.hold_cameras, chosen.hold_times)
    name = str(source) if isinstance(source, str | os.PathLike) else "the given videos"
    capture: Capture | None = None
    if isinstance(source, str) and split_reference(source)[1] is not None:
        capture = _of_dataset(source, cameras, mask, chosen)
        hold = _rigs_as_cameras(hold, capture)
    elif isinstance(source, str | os.PathLike):
        folder = Path(source)
        if chosen.layout is not None or chosen.ring is not None or layout_of(root_of(folder)) is not None:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; give the folder of a capture")
            file = Path(cameras) if isinstance(cameras, str | os.PathLike) else None
            if cameras is not None and file is None:
                raise InputError(f"{folder}: give its cameras as a transforms.json")
            capture = read_capture(folder, chosen.layout, file, chosen.ring, spec, mask, chosen.allow_missing)
    else:
        capture = _of_videos(source, cameras, chosen, spec) or _of_arrays(source, cameras)
    if capture is None:
        if chosen.given:
            raise InputError(
                f"{name}: {', '.join(chosen.given)}: for several cameras, and this is one; leave it out, or "
                "give a folder with a video or folder per camera"
            )
        return None
    return read_views(capture, name, matte, max_edge, hold, chosen.allow_missing)


def _of_dataset(source: str, cameras: Any, mask: Any, options: ViewOptions) -> Capture | None:
    """The synchronised rig of DATASET:uid[:action]."""
    dataset, uid, action = split_reference(source)
    assert uid is not None
    index = Index(dataset)
    rows = [row for row in pick_action(index, uid, action) if row["light"] == 0]
    rigs = {row["rig"] for row in rows if row["rig"] not in _ORBITS}
    if options.sync is None and (not rigs or any(row["rig"] == "dynamic_orbit" for row in rows)):
        return None
    if options.sync is None and len(rigs) > 1:
        raise InputError(f"{source}: several rigs ({', '.join(sorted(rigs))}); name one by --sync")
    rig = options.sync or next(iter(rigs))
    if rig not in rigs:
        have = ", ".join(sorted(rigs)) or "none"
        raise InputError(f"{source}: no synchronised rig {rig}; it has {have}")
    if cameras is not None or mask is not None:
        raise InputError(f"{source}: a dataset's rig has cameras and alpha; leave --cameras and --mask out")
    wanted = [
        rig,
        *(text for text in (options.hold_cameras or "").split(",") if text in rigs and text != rig),
    ]
    tracks = []
    for name in wanted:
        for row in rows:
            if row["rig"] == name:
                clip = read_clip(index, uid, row["action_index"], name, row["orbit"])
                label = camera_label(clip)
                tracks.append(_of_clip(clip, label if name == rig else f"{name}/{label}"))
    return Capture(f"dataset, rig {rig}", tuple(tracks))


def _of_clip(clip: Clip, label: str) -> Track:
    return Track(label, clip.pixels(), of_cameras(Path(label), clip.cameras), tuple(clip.time))


def _rigs_as_cameras(hold: Hold, capture: Capture | None) -> Hold:
    """Names of whole rigs as the cameras in them."""
    if capture is None:
        return hold
    out: list[str] = []
    for text in hold.cameras:
        inside = [track.label for track in capture.tracks if track.label.startswith(f"{text}/")]
        out += inside or [text]
    return Hold(tuple(out), hold.times, hold.every)


def _of_videos(source: Any, cameras: Any, options: ViewOptions, spec: OrbitSpec | None) -> Capture | None:
    """Several video files."""
    if not isinstance(source, list | tuple) or len(source) < 2:
        return None
    if not all(isinstance(item, str | os.PathLike) for item in source):
        return None
    files = [Path(item) for item in source]
    if not all(file.suffix.lower() in VIDEO_SUFFIXES for file in files):
        return None
    found = bare.by_camera(files)
    if cameras is not None and not isinstance(cameras, str | os.PathLike):
        return _posed_tracks(list(found), list(found.values()), cameras)
    listed = Path(cameras) if cameras is not None else None
    return bare.read(files[0].parent, found, listed, options.ring, spec)


def _of_arrays(source: Any, cameras: Any) -> Capture | None:
    """Images [V, F, H, W, 3 or 4] of V cameras, or V such arrays."""
    if not isinstance(source, np.ndarray | list | tuple) or not all(
        isinstance(item, np.ndarray) and item.ndim == 4 for item in source
    ):
        return None
    if len(source) < 2:
        return None
    return _posed_tracks([f"cam{i + 1:02d}" for i in range(len(source))], list(source), cameras)


def _posed_tracks(labels: Sequence[str], sources: Sequence[Any], cameras: Any) -> Capture:
    given = [] if cameras is None or isinstance(cameras, str | os.PathLike) else list(cameras)
    if len(given) != len(labels):
        raise InputError(
            f"the given videos: {len(labels)} of them and {len(given)} cameras; give a camera each, or a "
            "list of cameras each, one per frame"
        )
    tracks = []
    for label, source, own in zip(labels, sources, given):
        each = [own] if isinstance(own, Camera) else list(own)
        tracks.append(Track(label, source, of_cameras(Path(label), each)))
    return Capture("arrays", tuple(tracks))
