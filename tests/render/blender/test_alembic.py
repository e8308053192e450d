"""Alembic files of moving meshes, read back by Blender's importer in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orbit4d.render.fleet.child import BlenderChild

_READ = """
import sys
import bpy, numpy as np
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.wm.alembic_import(filepath=sys.argv[1], as_background_job=False)
(thing,) = [o for o in bpy.data.objects if o.type == "MESH"]
scene, found = bpy.context.scene, []
for second in map(float, sys.argv[3:]):
    frame = second * scene.render.fps / scene.render.fps_base
    scene.frame_set(int(frame), subframe=frame - int(frame))
    mesh = thing.evaluated_get(bpy.context.evaluated_depsgraph_get()).to_mesh()
    places = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", places)
    matrix = np.array(thing.matrix_world)
    found.append(places.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3])
faces = [list(polygon.vertices) for polygon in thing.data.polygons]
np.savez(sys.argv[2], vertices=np.stack(found), faces=np.array(faces))
"""


@pytest.mark.blender
def test_alembic_gives_every_time_back_in_its_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vertices = rng.uniform(-0.5, 0.5, (5, 9, 3)).astype(np.float32)
    # The second triangle is doubled, and the last two vertices belong to none.
    faces = np.array([(0, 1, 2), (2, 3, 4), (2, 3, 4), (4, 6, 5)], np.int32)
    arrays, out, read = (tmp_path / name for name in ("mesh.npz", "mesh.abc", "read.npz"))
    np.savez(arrays, vertices=vertices, faces=faces)
    step = 0.2857142857
    with BlenderChild() as child:
        told = {"arrays": str(arrays), "out": str(out), "step": step, "name": "thing"}
        assert child.call("alembic", told, 120)["times"] == 5
    seconds = [str(k * step) for k in range(5)]
    command = [sys.executable, "-P", "-c", _READ, str(out), str(read), *seconds]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    with np.load(read) as held:
        np.testing.assert_array_equal(held["faces"], faces)
        # Shape keys add differences of float32 numbers below 1.
        np.testing.assert_allclose(held["vertices"], vertices, atol=1e-6)
