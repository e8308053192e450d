# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Write a moving mesh as Alembic: frame k of the file is time k, and frames are evenly spaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
import numpy as np

#: Frames a second are a whole number over a base; a large one leaves the base its digits.
_FPS = 1000


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """`payload`: "arrays", an npz with `vertices` [T, V, 3] (+Z up) and `faces` [M, 3]; "step", seconds from
    one time to the next; "name" of the mesh; "out", the .abc to write.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with np.load(payload["arrays"]) as held:
        vertices, faces = held["vertices"], held["faces"]
    mesh = bpy.data.meshes.new(payload["name"])
    mesh.from_pydata(vertices[0].tolist(), [], faces.tolist())
    thing = bpy.data.objects.new(payload["name"], mesh)
    scene = bpy.context.scene
    scene.collection.objects.link(thing)
    scene.render.fps, scene.render.fps_base = _FPS, _FPS * payload["step"]
    if len(vertices) > 1:
        _move(thing, vertices)
    done = bpy.ops.wm.alembic_export(
        filepath=payload["out"],
        start=0,
        end=len(vertices) - 1,
        as_background_job=False,
        evaluation_mode="RENDER",
        uvs=False,
        normals=False,
        export_hair=False,
        export_particles=False,
    )
    if "FINISHED" not in done:
        raise RuntimeError(f"Blender's Alembic exporter: {done}")
    return {"times": len(vertices)}


def _move(thing: Any, vertices: np.ndarray) -> None:
    """A shape key for each time, fully on in its own frame and off in all others."""
    thing.shape_key_add(name="Basis", from_mix=False)
    for k in range(1, len(vertices)):
        key = thing.shape_key_add(name=f"t{k}", from_mix=False)
        key.data.foreach_set("co", np.ascontiguousarray(vertices[k], np.float32).reshape(-1))
        for frame, value in ((k - 1, 0.0), (k, 1.0), (k + 1, 0.0)):
            key.value = value
            key.keyframe_insert("value", frame=frame)
