"""Of bench-compose: who covers which pixel, two fitted actors against Blender's object index."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from orbit4d.compose.characters.concepts import clip_of, fit_concept, rest_action
from orbit4d.compose.characters.reading import read_character
from orbit4d.datasets import orbit
from orbit4d.recon4d.composition import Part

#: Distances of the camera, units of an actor's length: it fills the frame, then about 3,000 and 500 pixels.
DISTANCES = (2.2, 3.2, 7.5)
ACTORS = ("animals_pack_fox", "animals_pack_wolf")


def _helper() -> ModuleType:
    """What the test of it uses; its folder is on no path."""
    path = Path(__file__).resolve().parents[2] / "tests" / "compose" / "placement" / "occlusion.py"
    spec = importlib.util.spec_from_file_location("orbit4d_bench_occlusion", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def occlusion(pool: Path, cache: Path) -> None:
    """A row for each distance: pixels, frames with the right one in front, IoU, and what the order costs."""
    helper: Any = _helper()
    print("| camera at | pixels | in front right | IoU alone | IoU visible | least over (alone - 0.02) |")
    print("|---:|---:|---:|---:|---:|---:|")
    for distance in DISTANCES:
        parts, characters = [], []
        for uid, first in zip(ACTORS, (-120.0, 60.0), strict=True):
            path = str(pool / f"{uid}.glb")
            names = [motion.name for motion in read_character(path).rig.motions]
            concept = fit_concept(path, uid, rest_action(names), cache)
            info = concept.scene.info
            character = read_character(path, info["scale"], info["centre"])
            clip = clip_of(character, next(name for name in names if name.endswith("Walk")))
            track = helper.circling(clip, 0.75, first)
            parts.append(Part(uid, concept.scene, track, clip.action))
            characters.append(character)
        camera = orbit(8, distance, 12.0, size=(256, 256))[0]
        with tempfile.TemporaryDirectory() as folder:
            rows, _ = helper.compared(parts, characters, camera, 2.0, Path(folder))
        frames = {row.frame: row.ours == row.in_front for row in rows}
        alone, visible = ([getattr(row, name) for row in rows] for name in ("alone", "visible"))
        print(
            f"| {distance:g} | {np.median([row.pixels for row in rows]):.0f} "
            f"| {sum(frames.values())} of {len(frames)} | {np.mean(alone):.3f} | {np.mean(visible):.3f} "
            f"| {min(row.excess for row in rows):+.3f} |",
            flush=True,
        )
