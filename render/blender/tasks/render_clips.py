# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `render_clips`: import one asset, find each action's window, frame it, render its clips into scratch
files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images import measures as image_measures
from orbit4d.datasets.store.clip import RIGS, Pixels, encode_webp
from orbit4d.render.blender.geometry.recorder import GeometryRecorder
from orbit4d.render.blender.geometry.skeleton import SkeletonRecorder
from orbit4d.render.blender.importers.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.scene.lights import place_ground
from orbit4d.render.blender.scene.motion import moving_window
from orbit4d.render.blender.scene.room import Room, camera_inside, measure_room
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.blender.scene.surface_files import save_geometry, save_skeleton
from orbit4d.render.blender.scene.views import Clock, choose_samples, frame_action, take_views
from orbit4d.render.planning.camera_settings import CameraSettings
from orbit4d.render.planning.framing import Framing
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import Plan, measured_as, plan_action
from orbit4d.render.planning.window import is_long
from orbit4d.render.protocol.messages import RejectedAction, RenderedAction, RenderResult, to_json
from orbit4d.render.protocol.wire import RefusedInput


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
    ground: Any = None
    """Blender's plane for shadows, where one was asked for."""
    samples: int | None = None
    """Chosen on the first action that is rendered, for all of them."""


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Render the clips of payload["path"].

    payload: path, uid, settings (RenderSettings.as_config), threads, scratch, and actions: indices, or None
    for all; with `rest` the file as it stands where no action plays. Returns a `RenderResult` as JSON; its
    files are WebP images in scratch, one per view of the plan that `plan_action` makes of the same settings
    and window.
    """
    stage = _open_asset(payload, emit)
    wanted = payload.get("actions")
    rendered: list[RenderedAction] = []
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
    result = RenderResult(
        actions=tuple(rendered),
        rejected=tuple(rejected),
        flags=tuple(stage.loaded.flags),
        samples=stage.samples,
        timings=stage.clock.seconds,
        versions={"blender": bpy.app.version_string},
        lights=tuple(stage.studio.lights.facts),
    )
    return to_json(result)


def _open_asset(payload: dict[str, Any], emit: Callable[..., None]) -> _Stage:
    """Import the asset and set up cameras, light and engine."""
    settings = RenderSettings.from_config(payload["settings"])
    uid, scratch = payload["uid"], payload["scratch"]
    clock = Clock()
    loaded = load_asset(payload["path"], settings.merge_vertices)
    if payload.get("rest"):
        loaded.activate(None)
        loaded.set_seconds(0.0)
        loaded.actions = []
    clock.lap("import")
    crash_point("render_after_import")
    if uid == os.environ.get("ORBIT4D_POISON_UID"):
        os.abort()  # what the tests' poison asset does on every attempt
    emit("imported", actions=len(loaded.actions))
    studio = Studio(settings, uid, int(payload.get("threads", 1)), scratch)
    loaded.flags = [*loaded.flags, *studio.lights.flags]
    return _Stage(settings, uid, Path(scratch), loaded, studio, clock, emit)


def _render_action(stage: _Stage, action: ActionInfo) -> RenderedAction | RejectedAction:
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
    try:
        plan = plan_action(settings, stage.uid, window)
        framing = frame_action(loaded, settings, plan)
        plan, room = _placed(stage, plan, framing)
    except InputError as error:
        return RejectedAction(action.index, action.name, "rig", str(error))
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
    stage.emit("action", index=action.index, images=len(images))
    problem = _problem(settings, plan, images, finite)
    if problem is not None:
        return RejectedAction(action.index, action.name, *problem)
    clock.lap("render")
    files, pass_files = _write_views(stage.scratch, action.index, images, passes)
    clock.lap("encode")
    x, y, z = (float(value) for value in framing.centre)
    measures = _measures(plan, images, motion, not stage.studio.shows_more)
    clock.lap("measure")
    geometry: dict[str, str] | None = None
    bones: dict[str, str] | None = None
    if recorder is not None and skeleton is not None:
        geometry = save_geometry(stage.scratch, action.index, recorder, skeleton)
        if "skeleton" in settings.passes:
            bones = save_skeleton(stage.scratch, action.index, skeleton)
        clock.lap("geometry")
    return RenderedAction(
        index=action.index,
        name=action.name,
        window=window,
        scale=framing.scale,
        centre=(x, y, z),
        files=tuple(files),
        passes={name: tuple(names) for name, names in pass_files.items()},
        measures=measures,
        seconds=time.perf_counter() - began,
        plan_sha256=plan.sha256,
        ground=None if room is None else room.ground,
        geometry=geometry,
        skeleton=bones,
    )


def _placed(stage: _Stage, plan: Plan, framing: Framing) -> tuple[Plan, Room | None]:
    """The plan with cameras above the object's own ground, and the room that was looked at for it.

    InputError for a camera inside the object. Plain orbits and fronts stand around the object and need no
    look.
    """
    drawn = stage.settings.cameras != CameraSettings()
    catcher = stage.settings.lights.shadow_catcher
    if not drawn and not catcher and all(clip.rig in RIGS for clip in plan.clips):
        return plan, None
    room = measure_room(stage.loaded, framing, plan.times)
    if catcher:
        stage.ground = place_ground(stage.studio.scene, stage.ground, room.ground)
    plan = plan_action(stage.settings, stage.uid, plan.window, ground=room.ground)
    inside = camera_inside(stage.loaded, room, plan)
    if inside is not None:
        raise InputError(f"{stage.uid}: {inside}")
    return plan, room


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
    """The times to render, in seconds; None when the action does not move and motion was asked for."""
    if not loaded.actions:
        return (0.0, 0.0) if settings.rigs == ("static_orbit",) else None
    window = moving_window(loaded, action)
    if window is None:
        start = action.seconds_start
        return (start, start) if settings.rigs == ("static_orbit",) else None
    if settings.window == "raw_frames":
        return loaded.raw_frame_seconds(0), loaded.raw_frame_seconds(max(1, settings.frames - 1))
    return window


def _problem(
    settings: RenderSettings, plan: Plan, images: list[Pixels], finite: bool
) -> tuple[str, str] | None:
    """(reason, detail) when images show nothing, nothing but one colour, or hold NaN or infinity.

    A rig's cameras may turn away from the object, or stand near it: their frames may be blank, but not all of
    a rig.
    """
    if not finite:
        return "render:non_finite", "the renderer's float buffer holds NaN or infinity"
    blank = [image_measures.is_blank(image) for image in images]
    held = {i for clip in plan.clips if not clip.may_miss for i in clip.views}
    allowed = len(images) - 1 if settings.normalise == "first_frame" else 0
    missed = sum(blank[i] for i in held)
    if missed > allowed:
        return "render:blank", f"{missed} of {len(held)} images show nothing"
    for rig in {clip.rig for clip in plan.clips if clip.may_miss}:
        if all(blank[i] for clip in plan.clips if clip.rig == rig for i in clip.views):
            return "render:blank", f"no camera of the rig {rig} shows anything in any frame"
    if all(image_measures.is_flat(image) for image in images) and image_measures.is_flat(images):
        return "render:flat", "every image shows one colour only"
    return None


def _measures(
    plan: Plan, images: list[Pixels], motion: float, alpha_is_the_object: bool
) -> dict[str, dict[str, float]]:
    """Measures of each clip, under its `measured_as`."""
    stacks = {
        (clip.rig, clip.orbit, clip.light): np.stack([images[i] for i in clip.views]) for clip in plan.clips
    }
    found: dict[str, dict[str, float]] = {}
    for (rig, orbit, light), frames in stacks.items():
        measures = {"motion_geometry": motion}
        if alpha_is_the_object:
            measures["coverage"] = float(image_measures.coverage(frames[..., 3]).mean())
            measures["boundary_touch"] = float(image_measures.boundary_touch(frames[..., 3]).max())
        static = stacks.get(("static_orbit", orbit, light))
        if rig == "dynamic_orbit" and static is not None:
            measures["motion_magnitude"] = image_measures.motion_magnitude(frames, static)
        found[measured_as(rig, orbit, light)] = measures
    return found
