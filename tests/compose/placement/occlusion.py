"""Two actors that cross, seen by us and by Blender at one camera: who covers which pixel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.compose.cli.measuring import posed_in_world
from orbit4d.compose.placement.facing import face
from orbit4d.datasets import Camera
from orbit4d.recon4d.composition import Composition, Part, Track
from orbit4d.recon4d.scene import draw

FRAMES = 24
#: Pixels that both actors cover in a frame that is compared, and what the order may cost of an IoU.
LEAST, LOST = 20, 0.02
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


def circling(clip: Any, radius: float, first_deg: float, metres: float = 0.0) -> Track:
    """A walk of two seconds around the origin, by 240 degrees: two that walk opposite each other cross twice,
    one in front and then the other, and never touch."""
    angles = np.radians(first_deg + np.linspace(0, 240, 20))
    points = radius * np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    scale = metres / clip.height if metres else 1.0
    pace = clip.gait["speed"] * clip.gait["height"] * scale
    return Track(points, face(points), scale, ground=clip.ground, end=2.0, ease=0.1, stride=pace)


@dataclass(frozen=True)
class Row:
    """One actor in one frame."""

    frame: int
    actor: int
    pixels: int
    """Visible, in Blender's index."""
    in_front: int
    """Actor that Blender has in front where both would be seen; -1 where that is less than `LEAST` pixels."""
    ours: int
    """Actor that we have in front there."""
    visible: float
    """IoU of the visible masks."""
    alone: float
    """IoU of the masks of the actor drawn by itself."""

    @property
    def excess(self) -> float:
        """What the IoU is above the one asked for; below 0 it is missed."""
        return self.visible - (self.alone - LOST)


def compared(
    parts: Sequence[Part], characters: Sequence[Any], camera: Camera, seconds: float, folder: Path
) -> tuple[list[Row], list[tuple[Floats, Floats]]]:
    """Rows of all frames in which both actors cover `LEAST` pixels, and (truth, ours) index images [S, S]."""
    times = np.linspace(0, seconds, FRAMES)
    meshes = []
    for part, character in zip(parts, characters, strict=True):
        assert part.track is not None
        posed = [posed_in_world(character, part.action, part.track, float(t)) for t in times]
        meshes.append((np.stack(posed), character.surface.faces))
    c2w = np.repeat(camera.c2w[None], FRAMES, axis=0)
    truth = drawn_by_blender(folder, c2w, camera.fl_x, camera.w, *meshes)["mask"]
    truth = truth.reshape(FRAMES, 1 + len(parts), camera.h, camera.w)
    rows, images = [], []
    for k, t in enumerate(times):
        both = index_image(parts, camera, seconds, float(t))
        alone = [index_image(parts, camera, seconds, float(t), i) == i + 1 for i in range(len(parts))]
        images.append((truth[k, 0], both))
        if min((truth[k, 0] == i + 1).sum() for i in range(len(parts))) < LEAST:
            continue
        overlap = (truth[k, 1] == 1) & (truth[k, 2] == 2)
        front = ours = -1
        if overlap.sum() >= LEAST:
            front = int(np.argmax([(truth[k, 0][overlap] == i + 1).sum() for i in range(2)]))
            ours = int(np.argmax([(both[overlap] == i + 1).sum() for i in range(2)]))
        for i in range(len(parts)):
            seen, whole = truth[k, 0] == i + 1, truth[k, 1 + i] == i + 1
            pair = iou(both == i + 1, seen), iou(alone[i], whole)
            rows.append(Row(k, i, int(seen.sum()), front, ours, *pair))
    return rows, images


def iou(a: Floats, b: Floats) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def index_image(parts: Sequence[Part], camera: Camera, seconds: float, time: float, only: int = -1) -> Floats:
    """[S, S] k + 1 where part k has most of an opaque pixel, else 0: Blender's object index."""
    whole = Composition.of([parts[only]] if only >= 0 else parts, seconds)
    drawn, eps2d = whole.as_drawn(camera, time / seconds)
    owner = [only] if only >= 0 else range(len(parts))
    colours = [torch.eye(3)[i].expand(len(parts[i].scene.gaussians), 3) for i in owner]
    drawn = replace(drawn, colors=torch.cat(colours), harmonics=drawn.harmonics[:, :0])
    with torch.no_grad():
        colour = draw(drawn, camera, eps2d=eps2d)[0][..., :2].numpy()
    return np.where(colour.sum(axis=-1) > 0.5, colour.argmax(axis=-1) + 1, 0)
