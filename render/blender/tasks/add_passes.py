# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `add_passes`: passes of clips whose images are rendered already, from the same windows and framing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.datasets.images.codec import encode_webp
from orbit4d.datasets.store.clip import RIGS
from orbit4d.render.blender.geometry.surfaces import points_now
from orbit4d.render.blender.importers.load import Loaded, load_asset
from orbit4d.render.blender.materials.attributes import POSITION_SHIFT, GlowingMaterials
from orbit4d.render.blender.scene.room import measure_room
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.blender.scene.surface_files import save_surfaces
from orbit4d.render.blender.scene.views import Clock, hides_geometry
from orbit4d.render.planning.camera_settings import CameraSettings
from orbit4d.render.planning.framing import Framing
from orbit4d.render.planning.settings import IMAGE_PASSES, MATERIAL_PASSES, RenderSettings
from orbit4d.render.planning.views import Plan, plan_action
from orbit4d.render.protocol.wire import RefusedInput


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Make payload["kinds"] for the actions of payload["path"].

    payload: path, uid, settings, kinds, threads, scratch, and actions: [{index, window, scale, centre,
    samples}]. Returns {"actions": [{index, geometry, passes}], "timings", "versions"}; files stand in
    scratch, one per view of the plan.
    """
    settings, kinds = RenderSettings.from_config(payload["settings"]), payload["kinds"]
    scratch = Path(payload["scratch"])
    clock = Clock()
    loaded = load_asset(payload["path"], settings.merge_vertices)
    clock.lap("import")
    emit("imported", actions=len(loaded.actions))
    images = tuple(kind for kind in kinds if kind in IMAGE_PASSES)
    studio = Studio(replace(settings, passes=images), payload["uid"], payload["threads"], str(scratch))
    done: dict[int, dict[str, Any]] = {}
    for action in payload["actions"]:
        _play(loaded, action)
        plan, ground = _plan(loaded, settings, payload["uid"], action)
        made = done[action["index"]] = {"index": action["index"], "passes": {}, "ground": ground}
        if "geometry" in kinds or "skeleton" in kinds:
            made |= save_surfaces(loaded, plan.times, kinds, scratch, action["index"])
            clock.lap("geometry")
        if images:
            studio.set_samples(action["samples"])
            made["passes"] |= _image_passes(loaded, studio, plan, images, scratch, action["index"])
            clock.lap("render")
        emit("action", index=action["index"], images=len(plan.views) if images else 0)
    materials = [kind for kind in kinds if kind in MATERIAL_PASSES]
    if materials:
        # Last of all: no other image can be rendered of these materials any more.
        glowing = GlowingMaterials()
        _see_centres(studio)
        for action in payload["actions"]:
            _play(loaded, action)
            plan, _ = _plan(loaded, settings, payload["uid"], action)
            for kind in materials:
                glowing.show(kind)
                files = _material_pass(loaded, studio, plan, kind, scratch, action["index"])
                done[action["index"]]["passes"][kind] = files
            emit("action", index=action["index"], images=len(plan.views) * len(materials))
            clock.lap("materials")
    versions = {"blender": bpy.app.version_string}
    return {"actions": list(done.values()), "timings": clock.seconds, "versions": versions}


def _play(loaded: Loaded, action: dict[str, Any]) -> None:
    """Play an action of the file as it was framed."""
    if loaded.actions:
        if action["index"] >= len(loaded.actions):
            raise RefusedInput("passes:differ", f"the file has no action of index {action['index']}")
        loaded.activate(action["index"])
    loaded.normalise(action["scale"], action["centre"])


def _plan(
    loaded: Loaded, settings: RenderSettings, uid: str, action: dict[str, Any]
) -> tuple[Plan, float | None]:
    """The plan that the images were rendered with, and the ground that it was made for (None: not looked
    at).
    """
    plan = plan_action(settings, uid, tuple(action["window"]))
    plain = settings.cameras == CameraSettings() and not settings.lights.shadow_catcher
    if plain and all(clip.rig in RIGS for clip in plan.clips):
        return plan, None
    room = measure_room(loaded, Framing(action["scale"], tuple(action["centre"])), plan.times)
    return plan_action(settings, uid, plan.window, ground=room.ground), room.ground


def _image_passes(
    loaded: Loaded, studio: Studio, plan: Plan, kinds: Sequence[str], scratch: Path, action: int
) -> dict[str, list[str]]:
    """Files of each pass, as they would have been rendered with the images: same samples, same crop."""
    can_crop = studio.settings.engine.crop and not hides_geometry(loaded)
    files: dict[str, list[str]] = {kind: [] for kind in kinds}
    now: float | None = None
    vertices: npt.NDArray[np.float32] | None = None
    for k, view in enumerate(plan.views):
        if view.seconds != now:
            now = view.seconds
            loaded.set_seconds(now)
            vertices = points_now(loaded) if can_crop else None
        studio.render(view.camera, vertices, optics=view.optics)
        for kind in kinds:
            file = f"a{action:03d}_{k:04d}_{kind}.npy"
            np.save(scratch / file, studio.last_passes[kind])
            files[kind].append(file)
    return files


def _see_centres(studio: Studio) -> None:
    """One sample through each pixel's centre, numbers as they are."""
    scene = studio.scene
    studio.passes = None
    scene.render.use_compositing = False
    scene.cycles.samples, scene.cycles.filter_width = 1, 0.01
    scene.cycles.use_adaptive_sampling = scene.cycles.use_denoising = False
    scene.view_settings.view_transform = "Raw"
    scene.render.dither_intensity = 0.0


def _material_pass(
    loaded: Loaded, studio: Studio, plan: Plan, kind: str, scratch: Path, action: int
) -> list[str]:
    files = []
    now: float | None = None
    for k, view in enumerate(plan.views):
        if view.seconds != now:
            now = view.seconds
            loaded.set_seconds(now)
        studio.render(view.camera, optics=view.optics)
        values = studio.float_buffer()
        if kind == "position":
            file = f"a{action:03d}_{k:04d}_{kind}.npy"
            hit = values[..., 3:] > 0.5
            np.save(scratch / file, np.where(hit, values[..., :3] - POSITION_SHIFT, 0).astype(np.float32))
        elif kind == "emission":
            file = f"a{action:03d}_{k:04d}_{kind}.npy"
            np.save(scratch / file, values[..., :3].astype(np.float16))
        else:
            file = f"a{action:03d}_{k:04d}_{kind}.webp"
            (scratch / file).write_bytes(encode_webp(_bytes(values, srgb=kind == "albedo")))
        files.append(file)
    return files


def _bytes(values: npt.NDArray[np.float32], srgb: bool) -> npt.NDArray[np.uint8]:
    """Linear [H, W, 4] in [0, 1] as 8 bits; colours in sRGB, as base colours are written in files."""
    covered = values[..., 3:] > 0.5
    rgb = np.where(covered, values[..., :3], 0.0).clip(0.0, 1.0).astype(np.float64)
    if srgb:
        rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.power(rgb, 1.0 / 2.4) - 0.055)
    return np.rint(np.concatenate([rgb, covered], axis=-1) * 255.0).astype(np.uint8)
