# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `shoot`: import one asset, find each action's window, frame it, render its clips into scratch
files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.images import measures as image_measures
from orbit4d.datasets.store.clip import Pixels, encode_webp
from orbit4d.render.blender.geometry.surfaces import Points, points_now, visible_surfaces
from orbit4d.render.blender.geometry.track import Track
from orbit4d.render.blender.importers.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.scene.motion import bounding_corners, iter_points, moving_window, stride_for
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.planning.framing import Framing, box_framing, fit, union_box
from orbit4d.render.planning.sample_count import PROBE_SAMPLES, PROBE_SEEDS, quality_at_probe, samples_for
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import Plan, plan_action
from orbit4d.render.planning.window import is_long
from orbit4d.render.protocol.wire import RefusedInput


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Render the clips of payload["path"].

    payload: path, uid, settings (RenderSettings.as_config), threads, scratch, and actions: indices, or None
    for all. Returns {"actions": [{index, name, window, scale, centre, files, passes, measures, seconds}],
    "rejected": [{index, name, reason, detail}], "flags", "samples", "timings"}; files are WebP pictures in
    scratch, one per shot of the plan that `plan_action` makes of the same settings and window.
    """
    settings = RenderSettings.from_config(payload["settings"])
    uid, scratch = payload["uid"], payload["scratch"]
    clock = _Clock()
    loaded = load_asset(payload["path"], settings.merge_vertices)
    clock.lap("import")
    crash_point("render_after_import")
    if uid == os.environ.get("ORBIT4D_POISON_UID"):
        os.abort()  # what the tests' poison asset does on every attempt
    emit("imported", actions=len(loaded.actions))
    studio = Studio(settings, uid, int(payload.get("threads", 1)), scratch)
    wanted = payload.get("actions")
    rendered, rejected = [], []
    samples: int | None = None
    for action in loaded.actions or [ActionInfo(0, "", 0.0, 0.0)]:
        if wanted is not None and action.index not in wanted:
            continue
        name = {"index": action.index, "name": action.name}
        window = _window(loaded, action, settings)
        clock.lap("window")
        if window is None:
            detail = "nothing moves in this action" if loaded.actions else "the file holds no animation"
            detail += "; --rigs static_orbit renders it still"
            rejected.append({**name, "reason": "still", "detail": detail})
            continue
        if is_long(action.seconds_start, action.seconds_end, loaded.fps):
            loaded.flags = [*dict.fromkeys([*loaded.flags, "long_window"])]
        plan = plan_action(settings, uid, window)
        try:
            framing = frame_action(loaded, settings, plan)
        except ValueError as error:
            rejected.append({**name, "reason": "bad_file:non_finite", "detail": str(error)})
            continue
        clock.lap("framing")
        began = time.perf_counter()
        if samples is None:
            samples = choose_samples(loaded, studio, plan, framing)
            clock.lap("probe")
        pictures, passes, motion, finite = _take_all(loaded, studio, plan, framing, clock)
        emit("action", index=action.index, pictures=len(pictures))
        problem = _problem(settings, pictures, finite)
        if problem is not None:
            rejected.append({**name, "reason": problem[0], "detail": problem[1]})
            continue
        clock.lap("render")
        files = []
        for k, picture in enumerate(pictures):
            file = f"a{action.index:03d}_{k:04d}.webp"
            (Path(scratch) / file).write_bytes(encode_webp(picture))
            files.append(file)
        pass_files: dict[str, list[str]] = {}
        for k, arrays in enumerate(passes):
            for kind, array in arrays.items():
                file = f"a{action.index:03d}_{k:04d}_{kind}.npy"
                np.save(Path(scratch) / file, array)
                pass_files.setdefault(kind, []).append(file)
        clock.lap("encode")
        rendered.append(
            {
                **name,
                "window": list(window),
                "scale": framing.scale,
                "centre": list(framing.centre),
                "files": files,
                "passes": pass_files,
                "measures": _measures(plan, pictures, motion),
                "seconds": time.perf_counter() - began,
            }
        )
        clock.lap("measure")
    if not rendered:
        first = (
            rejected[0] if rejected else {"reason": "no_action", "detail": "none of the actions asked for"}
        )
        raise RefusedInput(first["reason"], first["detail"])
    return {
        "actions": rendered,
        "rejected": rejected,
        "flags": loaded.flags,
        "samples": samples,
        "timings": clock.seconds,
        "versions": {"blender": bpy.app.version_string},
    }


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


def frame_action(loaded: Loaded, settings: RenderSettings, plan: Plan) -> Framing:
    """Scale and centre of an action's clips, from every vertex at every moment of the plan.

    Raises ValueError when a position is not finite or nothing has an extent.
    """
    loaded.normalise(1.0, (0.0, 0.0, 0.0))

    def moments() -> Iterator[Points]:
        for points in iter_points(loaded, plan.moments):
            if not np.isfinite(points).all():
                raise ValueError("a vertex is at a place that is not a number")
            yield points

    if settings.normalise == "first_frame":
        loaded.set_seconds(plan.window[0])
        corners = bounding_corners(loaded)
        if len(corners) == 0:
            raise ValueError("nothing is seen at the window's first moment")
        return box_framing(corners.min(axis=0), corners.max(axis=0))
    box = box_framing(*union_box(moments()))
    if settings.normalise == "union_box":
        return box
    elevation = plan.clips[0].elevation_deg
    return fit(box, moments(), settings.radius, settings.fov_x_deg, elevation, settings.margin)


def choose_samples(loaded: Loaded, studio: Studio, plan: Plan, framing: Framing) -> int:
    """Set, and return, the samples for this asset: from its noise in two views, or as the settings say."""
    engine = studio.settings.engine
    if engine.target_psnr_db is None:
        return engine.samples
    loaded.normalise(framing.scale, framing.centre)
    studio.set_samples(PROBE_SAMPLES)
    pairs = []
    for i in (len(plan.shots) // 4, (5 * len(plan.shots)) // 8):
        loaded.set_seconds(plan.shots[i].seconds)
        vertices = None if hides_geometry(loaded) else points_now(loaded)
        pairs.append(tuple(studio.take(plan.shots[i].camera, vertices, seed) for seed in PROBE_SEEDS))
    target = engine.target_psnr_db, engine.target_ssim
    chosen = samples_for(quality_at_probe(pairs), *target, engine.least_samples, engine.samples)
    studio.set_samples(chosen)
    return chosen


def _take_all(
    loaded: Loaded, studio: Studio, plan: Plan, framing: Framing, clock: _Clock
) -> tuple[list[Pixels], list[dict[str, Any]], float, bool]:
    """Every shot of the plan in its order, its passes, the geometric motion over the moments rendered, and
    whether the renderer's numbers are finite.

    Those are looked at in the first, the middle and the last picture: Cycles makes every sample finite as it
    adds it up, so this holds the build to it and need not cost each picture a second file.
    """
    loaded.normalise(framing.scale, framing.centre)
    can_crop = studio.settings.engine.crop and not hides_geometry(loaded)
    now: float | None = None
    vertices = np.zeros((0, 3), np.float32)
    track = None
    pictures: list[Pixels] = []
    passes: list[dict[str, Any]] = []
    looked_at = {0, len(plan.shots) // 2, len(plan.shots) - 1}
    finite = True
    for shot in plan.shots:
        if shot.seconds != now:
            now = shot.seconds
            loaded.set_seconds(now)
            surfaces = visible_surfaces(loaded)
            if track is None:
                track = Track(stride_for(sum(len(surface.local) for surface in surfaces)))
            vertices = track.add(surfaces)
            clock.lap("framing")
        pictures.append(studio.take(shot.camera, vertices if can_crop else None))
        passes.append(studio.last_passes)
        if len(pictures) - 1 in looked_at:
            finite = finite and studio.is_finite()
        if len(pictures) == len(plan.shots) // 2:
            crash_point("render_mid_frame")
        clock.lap("render")
    motion = 0.0 if track is None else track.motion(range(len(track)))
    return pictures, passes, motion, finite


def hides_geometry(loaded: Loaded) -> bool:
    """Whether something may be drawn that the meshes' vertices do not bound: instances, hair,
    displacement.
    """
    for obj in loaded.meshes:
        if obj.type in ("CURVES", "POINTCLOUD", "META") or obj.instance_type != "NONE":
            return True
        if any(modifier.type in ("NODES", "PARTICLE_SYSTEM") for modifier in obj.modifiers):
            return True
        for slot in obj.material_slots:
            if slot.material is not None and slot.material.displacement_method != "BUMP":
                return True
    return False


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


class _Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
