# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Views of an action: how it is framed, how many samples it needs, and the images themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.store.clip import Pixels
from orbit4d.render.blender.geometry.recorder import GeometryRecorder
from orbit4d.render.blender.geometry.skeleton import SkeletonRecorder
from orbit4d.render.blender.geometry.surfaces import Points, points_now, visible_surfaces
from orbit4d.render.blender.geometry.track import Track
from orbit4d.render.blender.importers.load import Loaded
from orbit4d.render.blender.scene.motion import bounding_corners, iter_points, stride_for
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.planning.framing import Framing, box_framing, fit_all, union_box
from orbit4d.render.planning.sample_count import PROBE_SAMPLES, PROBE_SEEDS, quality_at_probe, samples_for
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import Plan


def frame_action(loaded: Loaded, settings: RenderSettings, plan: Plan) -> Framing:
    """Scale and centre of an action's clips, from every vertex at every time of the plan.

    Raises ValueError when a position is not finite or nothing has an extent.
    """
    loaded.normalise(1.0, (0.0, 0.0, 0.0))

    def poses() -> Iterator[Points]:
        for points in iter_points(loaded, plan.times):
            if not np.isfinite(points).all():
                raise ValueError("a vertex is at a place that is not a number")
            yield points

    if settings.normalise == "first_frame":
        loaded.set_seconds(plan.window[0])
        corners = bounding_corners(loaded)
        if len(corners) == 0:
            raise ValueError("nothing is seen at the window's first time")
        return box_framing(corners.min(axis=0), corners.max(axis=0))
    box = box_framing(*union_box(poses()))
    if settings.normalise == "union_box":
        return box
    return fit_all(box, poses(), plan.framed_for, settings.margin)


def choose_samples(loaded: Loaded, studio: Studio, plan: Plan, framing: Framing) -> int:
    """Set, and return, the samples for this asset: from its noise in two views, or as the settings say."""
    engine = studio.settings.engine
    if engine.target_psnr_db is None:
        return engine.samples
    loaded.normalise(framing.scale, framing.centre)
    studio.set_samples(PROBE_SAMPLES)
    pairs = []
    for i in (len(plan.views) // 4, (5 * len(plan.views)) // 8):
        loaded.set_seconds(plan.views[i].seconds)
        vertices = None if studio.shows_more or hides_geometry(loaded) else points_now(loaded)
        view = plan.views[i]
        studio.lights.turn_on(view.light)
        one, other = (studio.render(view.camera, vertices, seed, view.optics) for seed in PROBE_SEEDS)
        pairs.append((one, other))
    target = engine.target_psnr_db, engine.target_ssim
    chosen = samples_for(quality_at_probe(pairs), *target, engine.least_samples, engine.samples)
    studio.set_samples(chosen)
    return chosen


def take_views(
    loaded: Loaded,
    studio: Studio,
    plan: Plan,
    framing: Framing,
    clock: Clock,
    recorder: GeometryRecorder | None = None,
    skeleton: SkeletonRecorder | None = None,
) -> tuple[list[Pixels], list[dict[str, Any]], float, bool]:
    """Every view of the plan in its order, its passes, the geometric motion over the times rendered, and
    whether the renderer's numbers are finite. `recorder` and `skeleton` are shown
    every time.

    Those are inspected in the first, the middle and the last image: Cycles makes every sample finite as it
    adds it up, so this holds the build to it and need not cost each image a second file.
    """
    loaded.normalise(framing.scale, framing.centre)
    can_crop = studio.settings.engine.crop and not studio.shows_more and not hides_geometry(loaded)
    now: float | None = None
    vertices = np.zeros((0, 3), np.float32)
    track = None
    images: list[Pixels] = []
    passes: list[dict[str, Any]] = []
    inspected = {0, len(plan.views) // 2, len(plan.views) - 1}
    finite = True
    for view in plan.views:
        if view.seconds != now:
            now = view.seconds
            loaded.set_seconds(now)
            surfaces = visible_surfaces(loaded)
            if track is None:
                track = Track(stride_for(sum(len(surface.local) for surface in surfaces)))
            vertices = track.add(surfaces)
            clock.lap("framing")
            if recorder is not None:
                recorder.add(now)
                if skeleton is not None:
                    skeleton.add()
                clock.lap("geometry")
        studio.lights.turn_on(view.light)
        images.append(studio.render(view.camera, vertices if can_crop else None, optics=view.optics))
        passes.append(studio.last_passes)
        if len(images) - 1 in inspected:
            finite = finite and studio.is_finite()
        if len(images) == len(plan.views) // 2:
            crash_point("render_mid_frame")
        clock.lap("render")
    motion = 0.0 if track is None else track.motion(range(len(track)))
    return images, passes, motion, finite


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


class Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
