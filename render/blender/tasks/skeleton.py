# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `skeleton`: surfaces and skeleton of one action of a file, without a dataset and without images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from orbit4d.render.blender.importers.load import load_asset
from orbit4d.render.blender.scene.surface_files import save_surfaces
from orbit4d.render.protocol.wire import RefusedInput


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Record payload["seconds"] of an action of payload["path"], shown at scale · (x - centre).

    payload: path, scratch, action (index), seconds, scale, centre. Returns {"geometry", "skeleton",
    "actions", "versions"}, the first two {file} in scratch (see `protocol.geometry_file`) or {refused,
    detail}; actions are [name, seconds of the first key, of the last].
    """
    loaded = load_asset(payload["path"])
    emit("imported", actions=len(loaded.actions))
    if loaded.actions:
        if not 0 <= payload["action"] < len(loaded.actions):
            raise RefusedInput("no_action", f"the file has no action of index {payload['action']}")
        loaded.activate(payload["action"])
    loaded.normalise(payload["scale"], payload["centre"])
    files = save_surfaces(
        loaded, payload["seconds"], ("geometry", "skeleton"), Path(payload["scratch"]), payload["action"]
    )
    actions = [[a.name, a.seconds_start, a.seconds_end] for a in loaded.actions]
    return {**files, "actions": actions, "versions": {"blender": bpy.app.version_string}}
