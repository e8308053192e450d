"""Occlusion and depth against Blender's passes of the same surfaces at the same cameras."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.compose.characters.reading import read_character
from orbit4d.compose.cli.measuring import posed_in_world
from orbit4d.compose.placement.facing import face
from orbit4d.compose.placement.lifting import contact_points, depth_at
from orbit4d.datasets import orbit
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.composition import Part, Track, union
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import draw
from tests.compose.toy_assets import fitted, walker

FRAMES, SIZE = 24, 224
Floats = Any

#: Draws meshes of a file at its cameras: with all of them, and each alone; a pass of objects and of depth.
DRAW = """
import os, sys
import bpy
import numpy as np
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.render.blender.scene.passes import PassReader
from orbit4d.render.blender.scene.studio import Studio
from orbit4d.render.planning.settings import RenderSettings

given, out, scratch = sys.argv[1:]
with np.load(given) as stored:
    data = {name: stored[name] for name in stored.files}
size = int(data["size"])
bpy.ops.wm.read_factory_settings(use_empty=True)
studio = Studio(RenderSettings(frames=1, resolution=size), "test", 2, scratch)
scene = studio.scene
meshes = []
for k in range(int(data["actors"])):
    vertices, faces = data[f"vertices{k}"], data[f"faces{k}"]
    mesh = bpy.data.meshes.new(f"actor{k}")
    mesh.from_pydata(vertices[0].tolist(), [], faces.tolist())
    thing = bpy.data.objects.new(f"actor{k}", mesh)
    scene.collection.objects.link(thing)
    meshes.append((thing, mesh, vertices))
reader = PassReader(scene, ("mask", "depth"), scratch)
studio.passes = reader
studio.set_samples(1)
# One ray through the middle of each pixel.
scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
everything = np.ones((size, size), bool)
found = {"mask": [], "depth": []}
f = float(data["focal"])
for t in range(len(data["c2w"])):
    camera = Camera(data["c2w"][t], f, f, size / 2, size / 2, size, size)
    for k, (thing, mesh, vertices) in enumerate(meshes):
        mesh.vertices.foreach_set("co", vertices[t].astype(np.float32).ravel())
        mesh.update()
    shown = [range(len(meshes))] + ([[k] for k in range(len(meshes))] if len(meshes) > 1 else [])
    for who in shown:
        for k, (thing, _, _) in enumerate(meshes):
            thing.hide_render = k not in who
        studio.render(camera)
        passes = studio.last_passes
        found["mask"].append(passes["mask"])
        found["depth"].append(passes["depth"])
np.savez(out, **{name: np.stack(rows) for name, rows in found.items()})
sys.stdout.flush()
os._exit(0)
"""


def drawn_by_blender(folder: Path, c2w: Floats, focal: float, size: int, *meshes: Any) -> dict[str, Floats]:
    """Passes of meshes (vertices [F, V, 3], faces [T, 3]) at cameras: all, then each alone, F times."""
    given = {
        f"{name}{k}": mesh[i] for k, mesh in enumerate(meshes) for i, name in enumerate(("vertices", "faces"))
    }
    np.savez(folder / "given.npz", c2w=c2w, focal=focal, size=size, actors=len(meshes), **given)
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRAW, str(folder / "given.npz"), str(folder / "out.npz"), str(scratch)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    with np.load(folder / "out.npz") as stored:
        return {name: stored[name] for name in stored.files}


def crossing(start: tuple[float, float], end: tuple[float, float]) -> Track:
    points = np.linspace([*start, 0.0], [*end, 0.0], 20)
    return Track(points, face(points), 1.0, ground=-0.4, begin=0.0, end=1.0, ease=0.1, stride=0.8)


def iou(a: Floats, b: Floats) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@pytest.mark.blender
def test_who_is_in_front_is_who_blender_has_in_front(tmp_path: Path) -> None:
    """Two actors that cross, one nearer first and farther then, over 24 frames."""
    actors = []
    for name, length in (("one", 0.7), ("two", 1.0)):
        path = tmp_path / f"{name}.glb"
        path.write_bytes(walker(length))
        key = fitted(path, name, tmp_path / "cache", n=24000)
        scene = load_scene(tmp_path / "cache" / key)
        scene.gaussians.log_scales -= 1.5  # dense enough to be thin
        actors.append((read_character(str(path)), scene))
    tracks = (crossing((-1.1, -0.7), (1.1, 0.7)), crossing((1.1, -0.5), (-1.1, 0.9)))
    cameras = [orbit(8, 5.0, 12.0, size=(SIZE, SIZE))[0]] * FRAMES
    times = np.linspace(0, 1, FRAMES)
    meshes = [
        (np.stack([posed_in_world(c, "Walk", track, float(t)) for t in times]), c.surface.faces)
        for (c, _), track in zip(actors, tracks, strict=True)
    ]
    truth = drawn_by_blender(tmp_path, np.stack([c.c2w for c in cameras]), cameras[0].fl_x, SIZE, *meshes)[
        "mask"
    ].reshape(FRAMES, 3, SIZE, SIZE)
    parts = [Part("k", s, t, "Walk") for (_, s), t in zip(actors, tracks, strict=True)]
    compared = 0
    for k, t in enumerate(times):
        posed = [painted(part.at(float(t)), i) for i, part in enumerate(parts)]
        both = shown(union(posed), cameras[k])
        alone = [shown(one, cameras[k])[i] for i, one in enumerate(posed)]
        # Nobody's order changes within a frame, so one of the two covers the other.
        overlap = (truth[k, 1] == 1) & (truth[k, 2] == 2)
        votes = [int((truth[k, 0][overlap] == i + 1).sum()) for i in range(2)]
        front = int(np.argmax(votes))
        if overlap.sum() >= 20:
            compared += 1
            ours = [int(both[i][overlap].sum()) for i in range(2)]
            assert int(np.argmax(ours)) == front, k
            assert ours[front] >= 0.9 * votes[front]
        for i in range(2):
            own, seen = truth[k, 1 + i] == i + 1, truth[k, 0] == i + 1
            if seen.sum() >= 20:
                # The rim decides, not the order: no worse than actors drawn by themselves and laid over
                # each other as Blender has them. Gaussians that no fit has shrunk have a wide rim.
                expected = alone[i] if i == front else alone[i] & ~alone[front]
                assert iou(both[i], seen) >= iou(expected, seen) - 0.02, (k, i)
                assert iou(alone[i], own) > 0.8
    assert compared >= 4
    fronts = {int(np.argmax([(truth[k, 0] == i + 1).sum() for i in range(2)])) for k in range(FRAMES)}
    assert fronts == {0, 1}


def painted(gaussians: Gaussians, channel: int) -> Gaussians:
    """In one pure colour: red, or green."""
    return replace(gaussians, colors=torch.eye(3)[channel].expand(len(gaussians), 3).clone())


def shown(gaussians: Gaussians, camera: Any) -> list[Floats]:
    """Where red, and where green, is more than half of a pixel."""
    with torch.no_grad():
        colour, _, _ = draw(gaussians, camera)
    return [(colour[..., i] > 0.5).numpy() for i in range(2)]


@pytest.mark.blender
def test_points_on_a_rendered_ground_are_lifted_back(tmp_path: Path) -> None:
    """50 points of a slope, projected and lifted through Blender's depth pass (float32)."""
    camera = orbit(8, 6.0, 25.0, size=(128, 128))[1]
    corners = np.array([[-3, -3, -0.3], [3, -3, -0.3], [3, 3, 0.3], [-3, 3, 0.3]], np.float64)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    depth = drawn_by_blender(tmp_path, camera.c2w[None], camera.fl_x, 128, (corners[None], faces))["depth"][0]
    rng = np.random.default_rng(0)
    flat = rng.uniform(-1.2, 1.2, (50, 2))
    points = np.column_stack([flat, 0.1 * flat[:, 1]])
    pixels, _ = camera.project(points)
    K = np.array([[camera.fl_x, 0, camera.cx], [0, camera.fl_y, camera.cy], [0, 0, 1]])
    # Between pixel centres 1/depth is linear on a plane, and a pixel's depth is linear to the second order.
    found = contact_points(pixels, 1 / depth_at(1 / depth, pixels), K, camera.c2w)
    assert np.isfinite(found).all()
    distance = np.linalg.norm(found - camera.c2w[:3, 3], axis=1)
    assert (np.linalg.norm(found - points, axis=1) <= 1e-4 * distance).all()
    plain = contact_points(pixels, depth_at(depth, pixels), K, camera.c2w)
    assert (np.linalg.norm(plain - points, axis=1) <= 1e-4 * distance).all()
