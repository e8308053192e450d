# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs inside Blender, which is GPL, so it is GPL too.
"""How surfaces and skeleton of an action reach the worker: a file each, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orbit4d.render.blender.geometry.recorder import GeometryRecorder
from orbit4d.render.blender.geometry.skeleton import SkeletonRecorder
from orbit4d.render.blender.importers.load import Loaded
from orbit4d.render.planning.topology import RefusedPass
from orbit4d.render.protocol.geometry_file import write_geometry, write_skeleton


def save_geometry(
    scratch: Path, action: int, recorder: GeometryRecorder, skeleton: SkeletonRecorder
) -> dict[str, str]:
    """{file} in `scratch` that holds the surfaces of an action, or {refused, detail}."""
    try:
        found = recorder.arrays()
    except RefusedPass as refusal:
        return {"refused": refusal.code, "detail": refusal.detail}
    file = f"a{action:03d}_geometry.npz"
    write_geometry(scratch / file, {**found, "rig": skeleton.rig()})
    return {"file": file}


def save_skeleton(scratch: Path, action: int, recorder: SkeletonRecorder) -> dict[str, str]:
    """{file} in `scratch` that holds the skeleton of an action, or {refused, detail}."""
    try:
        found = recorder.arrays()
    except RefusedPass as refusal:
        return {"refused": refusal.code, "detail": refusal.detail}
    file = f"a{action:03d}_skeleton.npz"
    write_skeleton(scratch / file, found)
    return {"file": file}


def save_surfaces(
    loaded: Loaded, times: Sequence[float], kinds: Sequence[str], scratch: Path, action: int
) -> dict[str, dict[str, str]]:
    """What is written of the active action at `times`, of geometry and skeleton as `kinds` asks."""
    recorder = GeometryRecorder(loaded)
    skeleton = SkeletonRecorder(recorder)
    for seconds in times:
        loaded.set_seconds(seconds)
        recorder.add(seconds)
        skeleton.add()
    files: dict[str, dict[str, str]] = {}
    if "geometry" in kinds:
        files["geometry"] = save_geometry(scratch, action, recorder, skeleton)
    if "skeleton" in kinds:
        files["skeleton"] = save_skeleton(scratch, action, skeleton)
    return files
