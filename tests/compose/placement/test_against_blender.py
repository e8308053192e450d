"""Occlusion and depth against Blender's passes of the same surfaces at the same cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.compose.characters import concepts
from orbit4d.compose.characters.concepts import clip_of, fit_concept, rest_action
from orbit4d.compose.characters.reading import read_character
from orbit4d.compose.placement.lifting import contact_points, depth_at
from orbit4d.datasets import orbit
from orbit4d.recon4d.composition import Part
from orbit4d.recon4d.fitting.rigging.fit import static_settings
from orbit4d.recon4d.fitting.settings import PRESETS
from tests.compose.placement.occlusion import FRAMES, circling, compared, drawn_by_blender

Floats = Any


@pytest.mark.blender
def test_who_is_in_front_is_who_blender_has_in_front(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fitted actors that cross, one nearer first and farther then, over 24 frames.

    Test 14 of c3v.md at a fit of a few seconds; `make bench-compose` asks the same of concepts as they are
    fitted for films.
    """
    monkeypatch.setattr(concepts, "ORBITS", ((0.0, 10), (40.0, 5)))
    monkeypatch.setattr(concepts, "SIZE", 96)
    small = replace(static_settings(PRESETS["fast"]), n_gaussians=2500, coarse_steps=260)
    monkeypatch.setattr(concepts, "static_settings", lambda _: small)
    parts, characters = [], []
    for uid, first in (("animals_pack_fox", -120.0), ("animals_pack_wolf", 60.0)):
        path = str(shared / "pool" / f"{uid}.glb")
        names = [motion.name for motion in read_character(path).rig.motions]
        concept = fit_concept(path, uid, rest_action(names), tmp_path / "cache")
        info = concept.scene.info
        character = read_character(path, info["scale"], info["centre"])
        clip = clip_of(character, next(name for name in names if name.endswith("Walk")))
        parts.append(Part(uid, concept.scene, circling(clip, 0.75, first), clip.action))
        characters.append(character)
    camera = orbit(8, 4.2, 12.0, size=(256, 256))[0]
    rows, _ = compared(parts, characters, camera, 2.0, tmp_path)
    assert len(rows) >= 1.5 * FRAMES
    assert all(row.ours == row.in_front for row in rows)
    assert {row.in_front for row in rows} >= {0, 1} and sum(row.in_front >= 0 for row in rows) >= 10
    assert min(row.excess for row in rows) >= 0, min(rows, key=lambda row: row.excess)
    assert np.mean([row.alone for row in rows]) > 0.9


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
