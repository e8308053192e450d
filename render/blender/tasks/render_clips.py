# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `render_clips`: import one asset, find each action's window, frame it, render its clips into scratch
files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.images import measures as image_measures
from orbit4d.datasets.store.clip import Pixels, encode_webp
from orbit4d.render.blender.geometry.recorder import GeometryRecorder
from orbit4d.render.blender.geometry.skeleton import SkeletonRecorder
from orbit4d.render.blender.importers.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.scene.motion import moving_window
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.blender.scene.told import geometry_told, skeleton_told
from orbit4d.render.blender.scene.views import Clock, choose_samples, frame_action, take_views
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import Plan, plan_action
from orbit4d.render.planning.window import is_long
from orbit4d.render.protocol.wire import RefusedInput


@dataclass(frozen=True)
class RejectedAction:
    """An action of which no clip is made, and why."""

    index: int
    name: str
    reason: str
    detail: str


@dataclass
class _Stage:
    """One asset in Blender's scene, and what all of its actions are rendered with."""

    settings: RenderSettings
    uid: str
    scratch: Path
    loaded: Loaded
    studio: Studio
    clock: Clock
    emit: Callable[..., None]
    samples: int | None = None
    """Chosen on the first action that is rendered, for all of them."""


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Render the clips of payload["path"].

    payload: path, uid, settings (RenderSettings.as_config), threads, scratch, and actions: indices, or None
    for all. Returns {"actions": [{index, name, window, scale, centre, files, passes, measures, seconds and,
    where asked for, geometry}],
    "rejected": [{index, name, reason, detail}], "flags", "samples", "timings"}; files are WebP images in
    scratch, one per shot of the plan that `plan_action` makes of the same settings and window.
    """
    stage = _open_asset(payload, emit)
    wanted = payload.get("actions")
    rendered: list[dict[str, Any]] = []
    rejected: list[RejectedAction] = []
    for action in stage.loaded.actions or [ActionInfo(0, "", 0.0, 0.0)]:
        if wanted is not None and action.index not in wanted:
            continue
        made = _render_action(stage, action)
        if isinstance(made, RejectedAction):
            rejected.append(made)
        else:
            rendered.append(made)
    if not rendered:
        if not rejected:
            raise RefusedInput("no_action", "none of the actions asked for")
        raise RefusedInput(rejected[0].reason, rejected[0].detail)
    return {
        "actions": rendered,
        "rejected": [asdict(action) for action in rejected],
        "flags": stage.loaded.flags,
        "samples": stage.samples,
        "timings": stage.clock.seconds,
        "versions": {"blender": bpy.app.version_string},
    }


def _open_asset(payload: dict[str, Any], emit: Callable[..., None]) -> _Stage:
    """Import the asset and set up cameras, light and engine."""
    settings = RenderSettings.from_config(payload["settings"])
    uid, scratch = payload["uid"], payload["scratch"]
    clock = Clock()
    loaded = load_asset(payload["path"], settings.merge_vertices)
    clock.lap("import")
    crash_point("render_after_import")
    if uid == os.environ.get("ORBIT4D_POISON_UID"):
        os.abort()  # what the tests' poison asset does on every attempt
    emit("imported", actions=len(loaded.actions))
    studio = Studio(settings, uid, int(payload.get("threads", 1)), scratch)
    return _Stage(settings, uid, Path(scratch), loaded, studio, clock, emit)


def _render_action(stage: _Stage, action: ActionInfo) -> dict[str, Any] | RejectedAction:
    """Find the action's window, frame it, render and store its views, measure its clips."""
    settings, loaded, clock = stage.settings, stage.loaded, stage.clock
    window = _window(loaded, action, settings)
    clock.lap("window")
    if window is None:
        detail = "nothing moves in this action" if loaded.actions else "the file holds no animation"
        detail += "; --rigs static_orbit renders it still"
        return RejectedAction(action.index, action.name, "still", detail)
    if is_long(action.seconds_start, action.seconds_end, loaded.fps):
        loaded.flags = [*dict.fromkeys([*loaded.flags, "long_window"])]
    plan = plan_action(settings, stage.uid, window)
    try:
        framing = frame_action(loaded, settings, plan)
    except ValueError as error:
        return RejectedAction(action.index, action.name, "bad_file:non_finite", str(error))
    clock.lap("framing")
    began = time.perf_counter()
    if stage.samples is None:
        stage.samples = choose_samples(loaded, stage.studio, plan, framing)
        clock.lap("probe")
    recorder = GeometryRecorder(loaded) if "geometry" in settings.passes else None
    skeleton = SkeletonRecorder(recorder) if recorder is not None else None
    images, passes, motion, finite = take_views(
        loaded, stage.studio, plan, framing, clock, recorder, skeleton
    )
    stage.emit("action", index=action.index, pictures=len(images))
    problem = _problem(settings, images, finite)
    if problem is not None:
        return RejectedAction(action.index, action.name, *problem)
    clock.lap("render")
    files, pass_files = _write_views(stage.scratch, action.index, images, passes)
    clock.lap("encode")
    made: dict[str, Any] = {
        "index": action.index,
        "name": action.name,
        "window": list(window),
        "scale": framing.scale,
        "centre": list(framing.centre),
        "files": files,
        "passes": pass_files,
        "measures": _measures(plan, images, motion),
        "seconds": time.perf_counter() - began,
    }
    clock.lap("measure")
    if recorder is not None and skeleton is not None:
        made["geometry"] = geometry_told(stage.scratch, action.index, recorder, skeleton)
        if "skeleton" in settings.passes:
            made["skeleton"] = skeleton_told(stage.scratch, action.index, skeleton)
        clock.lap("geometry")
    return made


def _write_views(
    scratch: Path, action: int, images: Sequence[Pixels], passes: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the files in `scratch` that hold the images, and those of each pass, in the plan's order."""
    files = []
    for k, image in enumerate(images):
        file = f"a{action:03d}_{k:04d}.webp"
        (scratch / file).write_bytes(encode_webp(image))
        files.append(file)
    pass_files: dict[str, list[str]] = {}
    for k, arrays in enumerate(passes):
        for kind, array in arrays.items():
            file = f"a{action:03d}_{k:04d}_{kind}.npy"
            np.save(scratch / file, array)
            pass_files.setdefault(kind, []).append(file)
    return files, pass_files


def _window(loaded: Loaded, action: ActionInfo, settings: RenderSettings) -> tuple[float, float] | None:
    """The moments to render, in seconds; None when the action does not move and motion was asked for."""
    if not loaded.actions:
        return (0.0, 0.0) if settings.rigs == ("static_orbit",) else None
    window = moving_window(loaded, action)
    if window is None:
        start = action.seconds_start
        return (start, start) if settings.rigs == ("static_orbit",) else None
    if settings.window == "raw_frames":
        return loaded.raw_frame_seconds(0), loaded.raw_frame_seconds(max(1, settings.frames - 1))
    return window


def _problem(settings: RenderSettings, pictures: list[Pixels], finite: bool) -> tuple[str, str] | None:
    """(reason, detail) when pictures show nothing, nothing but one colour, or hold NaN or infinity."""
    if not finite:
        return "render:non_finite", "the renderer's float buffer holds NaN or infinity"
    blank = sum(image_measures.is_blank(picture) for picture in pictures)
    allowed = len(pictures) - 1 if settings.normalise == "first_frame" else 0
    if blank > allowed:
        return "render:blank", f"{blank} of {len(pictures)} pictures show nothing"
    if all(image_measures.is_flat(picture) for picture in pictures) and image_measures.is_flat(pictures):
        return "render:flat", "every picture shows one colour only"
    return None


def _measures(plan: Plan, pictures: list[Pixels], motion: float) -> dict[str, dict[str, float]]:
    """Measures of each clip, under `<rig>/<orbit>`."""
    stacks = {(clip.rig, clip.orbit): np.stack([pictures[i] for i in clip.shots]) for clip in plan.clips}
    found: dict[str, dict[str, float]] = {}
    for (rig, orbit), frames in stacks.items():
        measures = {
            "motion_geometry": motion,
            "coverage": float(image_measures.coverage(frames[..., 3]).mean()),
            "boundary_touch": float(image_measures.boundary_touch(frames[..., 3]).max()),
        }
        static = stacks.get(("static_orbit", orbit))
        if rig == "dynamic_orbit" and static is not None:
            measures["motion_magnitude"] = image_measures.motion_magnitude(frames, static)
        found[f"{rig}/{orbit}"] = measures
    return found
