"""Footage in a world of the user's own: fitted as if it stood at the origin, seen at the cameras that were
given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets import Camera, orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import load_scene, reconstruct
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.filming import camera_path
from orbit4d.recon4d.gaussians import load_ply
from orbit4d.recon4d.inputs.find_world import find_world
from orbit4d.recon4d.inputs.loading import load_frames
from orbit4d.recon4d.scene import draw
from orbit4d.recon4d.world import World

AWAY = World(0.04, (-0.3, 5.0, 0.11))


def away(cameras: Any, world: World = AWAY) -> list[Camera]:
    """Cameras of the fit's world in another one."""
    moved = []
    for camera in cameras:
        c2w = camera.c2w.copy()
        c2w[:3, 3] = world.scale * c2w[:3, 3] + world.centre
        moved.append(replace(camera, c2w=c2w))
    return moved


def test_a_camera_and_gaussians_go_both_ways() -> None:
    camera = orbit(3, 2.3, 15.0)[1]
    back = AWAY.camera(away([camera])[0])
    np.testing.assert_allclose(back.c2w, camera.c2w, atol=1e-12)
    assert World().camera(camera) is camera and not World() and AWAY
    assert World.of(AWAY.record()) == AWAY and World.of(None) == World()
    assert "0.04 times" in str(AWAY)


@pytest.mark.parametrize(
    "world", [AWAY, World(30.0, (12.0, 3.0, -40.0)), World(1.0, (2.0, 0.0, 0.0))], ids=str
)
def test_the_world_is_found_from_silhouettes_and_cameras(
    moving_ball: dict[str, np.ndarray], world: World
) -> None:
    cameras = away(orbit(12, size=(48, 48)), world)
    found = find_world([load_frames(moving_ball["dynamic_orbit"], cameras)])
    assert 0.5 < found.scale / world.scale < 1.6, "its longest edge is near 1"
    np.testing.assert_allclose(np.array(found.centre), world.centre, atol=0.2 * world.scale)


def test_what_stands_as_orbit4d_has_it_stays(moving_ball: dict[str, np.ndarray]) -> None:
    frames = load_frames(moving_ball["dynamic_orbit"], orbit(12, size=(48, 48)))
    assert find_world([frames, None]) == World()
    assert find_world([load_frames(moving_ball["dynamic_orbit"])]) == World(), "no cameras, no other world"
    fixed = [away(orbit(12, size=(48, 48)))[0]] * 12
    assert find_world([load_frames(moving_ball["front_view"], fixed)]) == World(), "one view says nothing"


@pytest.fixture(scope="module")
def away_scene(
    tmp_path_factory: pytest.TempPathFactory, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> Path:
    settings = replace(tiny_settings, coarse_steps=30, fine_steps=40)
    out = tmp_path_factory.mktemp("away") / "scene"
    cameras = away(orbit(12, size=(48, 48)))
    reconstruct(moving_ball["static_orbit"], out, cameras=cameras, settings=settings, threads=1)
    return out


def test_a_scene_is_seen_at_the_given_cameras(away_scene: Path, moving_ball: dict[str, np.ndarray]) -> None:
    scene = load_scene(away_scene)
    cameras = away(orbit(12, size=(48, 48)))
    assert scene.world and list(scene.cameras) == cameras
    overlaps = []
    for camera, t, truth in zip(scene.cameras, scene.time, moving_ball["static_orbit"]):
        made, wanted = scene.render(camera, t)[..., 3] > 0.5, truth[..., 3] > 127
        overlaps.append((made & wanted).sum() / (made | wanted).sum())
    assert np.mean(overlaps) > 0.8
    note = next(note for note in scene.info["notes"] if "scaled and moved for the fit" in note)
    assert note.startswith("the object is 0.0")


def test_exports_and_films_stay_in_that_world(
    away_scene: Path, tmp_path: Path, make_clips: Callable[..., Any]
) -> None:
    scene = load_scene(away_scene)
    written = export_scene(scene, tmp_path / "ply", frames=2)
    placed = load_ply(written[0])
    assert np.abs(placed.means.mean(0).numpy() - AWAY.centre).max() < 0.3 * AWAY.scale
    assert placed.means.std(0).max() < AWAY.scale
    alpha = draw(placed, scene.cameras[0], near_plane=1e-4)[1].numpy()[..., 0]
    ours = scene.render(scene.cameras[0], 0.0)[..., 3]
    assert np.abs(alpha - ours).mean() < 0.02, "the file shows at the given camera what the scene does"
    shots = camera_path(scene, "dynamic_orbit", 6)
    for camera, t in shots:
        seen = scene.render(camera, t)[..., 3]
        assert seen[12:36, 12:36].sum() > 0.9 * seen.sum() > 20, "the path turns around the object"


def test_cameras_that_fit_nothing_are_blamed_as_given(
    moving_ball: dict[str, np.ndarray], tmp_path: Path, tiny_settings: Any
) -> None:
    rng = np.random.default_rng(3)
    cameras = []
    for camera in orbit(12, size=(48, 48)):
        c2w = camera.c2w.copy()
        c2w[:3, 3] += rng.normal(0, 3, 3)
        cameras.append(replace(camera, c2w=c2w))
    with pytest.raises(InputError, match="check that the given ones are camera-to-world") as error:
        reconstruct(moving_ball["dynamic_orbit"], tmp_path / "s", cameras=cameras, settings=tiny_settings)
    assert "--orbit" not in str(error.value) and not (tmp_path / "s").exists()
