"""All inputs of a fit: the video, its static orbit, held-out views, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.reference import split_reference
from orbit4d.recon4d.fitting.exposure import gain_between
from orbit4d.recon4d.inputs.confidence import HIDDEN
from orbit4d.recon4d.inputs.footage import MAX_EDGE
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec, from_clip, load_frames
from orbit4d.recon4d.inputs.open_views import ViewOptions, open_views
from orbit4d.recon4d.inputs.shared_cameras import with_shared_cameras
from orbit4d.recon4d.inputs.views import Views


@dataclass
class Inputs:
    """What a reconstruction starts from."""

    dynamic: Frames
    static: Frames | None
    held_out: dict[str, Frames]
    """Views that are never trained on, by name."""
    notes: list[str]
    one_light: bool = True
    """Whether video and static orbit are renders of one scene under one light, as orbit4d's are."""
    gains: dict[str, float] = field(default_factory=dict)
    """Grey gain of a held-out set over the video, by name, where both took one view at one time."""
    views: Views | None = None
    """What several cameras filmed; `static` is then one time of it, where the shape is found."""


def read_inputs(
    source: Any,
    static: Any,
    cameras: Any,
    static_cameras: Any,
    static_time: float,
    spec: OrbitSpec | None,
    mask: str | Path | None,
    matte: str = "flat",
    max_edge: int = MAX_EDGE,
    options: ViewOptions | None = None,
    hidden: float = HIDDEN,
) -> Inputs:
    """Frames of all inputs, checked against each other; a note for each thing that was estimated."""
    folder = Path(mask) if mask is not None else None
    views = open_views(source, cameras, spec, folder, matte, max_edge, options)
    if views is not None:
        return _of_views(views, static, static_cameras, static_time)
    if matte == "none":
        raise InputError("--matte none: keeps the background of several cameras; this is one: leave it out")
    if not 0.0 <= static_time <= 1.0:
        raise InputError(f"--static-time {static_time}: give a time in [0, 1]")
    if static is None and (static_cameras is not None or static_time):
        raise InputError("--static-cameras and --static-time belong to --static, which is not given")
    held_out: dict[str, Frames] = {}
    still: Frames | None = None
    one_light = True
    dataset, uid, action = split_reference(source) if isinstance(source, str) else ("", None, "")
    if uid is not None:
        _refuse_its_own(source, cameras, mask, spec)
        clip = read_clip(dataset, uid, action, "dynamic_orbit", 0)
        dynamic = from_clip(clip)
        one_light = clip.renderer.get("engine") != "published"
        still = _clip_if_there(dataset, uid, clip.action_index, "static_orbit", 0)
        for name, rig, orbit_index in (("front", "front_view", 0), ("orbit1", "dynamic_orbit", 1)):
            frames = _clip_if_there(dataset, uid, clip.action_index, rig, orbit_index)
            if frames is not None:
                held_out[name] = frames
    else:
        dynamic = load_frames(source, cameras, spec, mask, matte, max_edge, hidden)
    if static is not None:
        one_light = False
        still = load_frames(static, static_cameras, spec, None, matte, max_edge)
        dynamic, still = with_shared_cameras(dynamic, still, spec)
        still = still.at_time(static_time)
    gains = {name: gain_between(frames, dynamic) for name, frames in held_out.items() if not one_light}
    held_out = {name: kept for name, frames in held_out.items() if (kept := unseen(frames, dynamic))}
    notes = [f"{frames.name}: {note}" for frames in (dynamic, still) if frames for note in frames.notes]
    if still is not None:
        size = still.rgba.shape[1:3]
        if size != dynamic.rgba.shape[1:3]:
            still = still.resized(max(dynamic.rgba.shape[1:3]))
    known = {name: gain for name, gain in gains.items() if gain is not None and name in held_out}
    return Inputs(dynamic, still, held_out, notes, one_light, known)


def _of_views(views: Views, static: Any, static_cameras: Any, static_time: float) -> Inputs:
    """Inputs of several cameras. InputError for a static orbit, which one time of theirs is."""
    if static is not None or static_cameras is not None or static_time:
        raise InputError(
            f"{views.train.name}: several cameras show the still object themselves; leave --static out"
        )
    held = {name: kept for name, frames in views.held_out.items() if (kept := unseen(frames, views.train))}
    notes = [f"{views.train.name}: {note}" for note in views.train.notes]
    return Inputs(views.train, views.still, held, notes, not views.generated, views=views)


def _refuse_its_own(source: str, cameras: Any, mask: str | Path | None, spec: OrbitSpec | None) -> None:
    """InputError where something is given that a dataset's clip has: it would not be inspected."""
    given = {
        "--cameras": cameras is not None,
        "--mask": mask is not None,
        "--orbit, --radius, --fov and --elevation": spec not in (None, OrbitSpec()),
    }
    for option, is_given in given.items():
        if is_given:
            raise InputError(
                f"{source}: a clip of a dataset has cameras and alpha; leave {option} out, or export the "
                "frames and give their folder"
            )


def unseen(frames: Frames, train: Frames) -> Frames | None:
    """The frames without those that repeat a training view at its time (the first front view does)."""

    def repeats(camera: Camera, time: float) -> bool:
        return any(
            abs(time - t) < 1e-6 and np.allclose(camera.c2w, other.c2w, atol=1e-6)
            for other, t in zip(train.cameras, train.time)
        )

    keep = [i for i, (camera, t) in enumerate(zip(frames.cameras, frames.time)) if not repeats(camera, t)]
    if not keep:
        return None
    return frames.picked(keep)


def _clip_if_there(dataset: str, uid: str, action_index: int, rig: str, orbit_index: int) -> Frames | None:
    try:
        return from_clip(read_clip(dataset, uid, action_index, rig, orbit_index))
    except InputError:
        return None
