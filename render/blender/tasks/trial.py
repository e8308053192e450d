# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `trial`: the same few images of one asset under several engine settings, timed; for benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.render.blender.geometry.surfaces import points_now
from orbit4d.render.blender.importers.load import load_asset
from orbit4d.render.blender.scene.motion import moving_window
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.blender.scene.views import choose_samples, frame_action, hides_geometry
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import plan_action


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Take the frames `frames` of the dynamic orbit of action `action` under each of `trials`.

    payload: path, uid, base (settings whose plan and framing all trials share), trials: {name: settings},
    frames: indices, repeats: {name: n}, scratch, action, threads. Returns {name: {"files", "samples",
    "cpu_seconds", "wall_seconds"}}: one array file per frame, and for each frame the least time over the
    repeats; CPU time is that of all the process's threads, which a busy machine does not stretch.
    """
    base = RenderSettings.from_config(payload["base"])
    uid = payload["uid"]
    found = {}
    for name, config in payload["trials"].items():
        settings = RenderSettings.from_config(config)
        loaded = load_asset(payload["path"])
        action = loaded.actions[payload.get("action", 0)]
        window = moving_window(loaded, action)
        if window is None:
            raise ValueError(f"{payload['path']}: the action does not move")
        plan = plan_action(base, uid, window)
        framing = frame_action(loaded, base, plan)
        loaded.normalise(framing.scale, framing.centre)
        studio = Studio(settings, uid, int(payload.get("threads", 1)), payload["scratch"])
        crop = settings.engine.crop and not hides_geometry(loaded)
        samples = choose_samples(loaded, studio, plan, framing)
        clip = next(clip for clip in plan.clips if clip.rig == "dynamic_orbit")
        cpu, wall, files = [], [], []
        for i in payload["frames"]:
            times = []
            for _ in range(payload.get("repeats", {}).get(name, 1)):
                # Another time in between, so that each image pays for its own scene.
                loaded.set_seconds(clip.seconds[i] + 0.01)
                loaded.set_seconds(clip.seconds[i])
                vertices = points_now(loaded)
                start = time.process_time(), time.perf_counter()
                image = studio.render(clip.cameras[i], vertices if crop else None)
                times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
            cpu.append(min(t for t, _ in times))
            wall.append(min(t for _, t in times))
            files.append(f"{name}_{i:03d}.npy")
            np.save(Path(payload["scratch"]) / files[-1], image)
        found[name] = {"files": files, "samples": samples, "cpu_seconds": cpu, "wall_seconds": wall}
        emit("trial", name=name)
    return found
