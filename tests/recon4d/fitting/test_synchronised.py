"""Synchronised cameras are fitted to one scene: held-out cameras, open scenes, killed runs, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.sampling.camera_choice import ChosenCamera
from orbit4d.model.sampling.multicam import Clock, write_views
from orbit4d.recon4d import ViewOptions, load_scene, reconstruct
from orbit4d.recon4d.deformation.residual import ResidualField
from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.exposure import exposure_of
from orbit4d.recon4d.fitting.reconstruction import in_world, read_inputs, score
from orbit4d.recon4d.inputs.find_world import find_world
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.inputs.open_start import sweep

N, SIZE, TIMES = 6, 48, 6


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    focal = focal_from_fov(39.6, SIZE)
    places = [(360 * i / N, 15.0 if i % 2 else -5.0) for i in range(N)]
    half = SIZE / 2
    return [Camera(orbit_c2w(a, e, 2.0), focal, focal, half, half, SIZE, SIZE) for a, e in places]


@pytest.fixture(scope="module")
def rgba(cameras: list[Camera], draw_views: Callable[..., Any]) -> np.ndarray:
    """[V, T, H, W, 4]"""
    times = [t / (TIMES - 1) for t in range(TIMES)]
    return np.stack([draw_views("asset-000", 0, [camera] * TIMES, times) for camera in cameras])


@pytest.fixture(scope="module")
def fitted(rgba: Any, cameras: Any, tiny_settings: Any, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("grid") / "scene"
    options = ViewOptions(hold_cameras="2", hold_times="0.4")
    reconstruct(rgba, out, cameras=cameras, settings=tiny_settings, views=options)
    return out


def test_a_held_out_camera_is_better_than_the_nearest_image_and_than_the_path_of_one_orbit(
    fitted: Path, rgba: Any, cameras: Any, tiny_settings: Any, tmp_path: Path
) -> None:
    metrics = json.loads((fitted / "metrics.json").read_text())
    held = metrics["heldout"]
    assert set(held) == {"cam02", "times"} and "psnr_static" not in metrics
    nearest = metrics["baselines"]["nearest_training_frame"]
    assert held["cam02"]["psnr"] > nearest["cam02"]["psnr"] + 4
    inputs = read_inputs(
        rgba, None, cameras, None, 0.0, None, None, options=ViewOptions(hold_cameras="2", hold_times="0.4")
    )
    assert inputs.static is not None
    orbit = replace(inputs, static=None, views=None)
    from orbit4d.recon4d.fitting.reconstruction import first_gaussians
    from orbit4d.recon4d.fitting.state import new_fit
    from orbit4d.recon4d.scene import Scene

    fit = new_fit(first_gaussians(orbit, tiny_settings, 0), tiny_settings, 0)
    optimize.optimise(fit, orbit.dynamic, None, tiny_settings)
    alone = Scene(fit.gaussians, fit.field.requires_grad_(False))
    assert score(alone, inputs.held_out["cam02"])[0] < held["cam02"]["psnr"]


def test_metrics_per_camera_and_per_time_are_means_of_the_same_images(fitted: Path) -> None:
    metrics = json.loads((fitted / "metrics.json").read_text())
    per_camera, per_time = metrics["per_camera"], metrics["per_time"]
    assert [row["camera"] for row in per_camera if not row["held_out"]] == [
        "cam01", "cam03", "cam04", "cam05", "cam06"
    ]  # fmt: skip
    for rows in (per_camera, per_time):
        assert sum(row["images"] for row in rows) == N * TIMES
        mine = [row for row in rows if not row["held_out"]]
        mean = sum(row["psnr"] * row["images"] for row in mine) / sum(row["images"] for row in mine)
        assert abs(mean - metrics["psnr_train"]) < 1e-6
    capture = json.loads((fitted / "scene.json").read_text())["capture"]
    assert (capture["cameras"], capture["moments"]) == (N, TIMES)
    assert capture["images"] == {"train": 25, "held_out": {"cam02": 6, "times": 5}}


def test_a_killed_run_of_several_cameras_resumes_to_the_same_bits(
    fitted: Path, rgba: Any, cameras: Any, tiny_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    calls = 0

    def killed(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls > 150:
            raise KeyboardInterrupt
        return step(*arguments)

    step = optimize.take_step
    often = replace(tiny_settings, checkpoint_seconds=0.0)
    options = ViewOptions(hold_cameras="2", hold_times="0.4")
    monkeypatch.setattr(optimize, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(rgba, tmp_path / "s", cameras=cameras, settings=often, views=options)
    assert (tmp_path / "s" / "checkpoint.pt").exists()
    monkeypatch.setattr(optimize, "take_step", step)
    reconstruct(rgba, tmp_path / "s", cameras=cameras, settings=often, views=options)
    for name in ("canonical.ply", "deformation.safetensors"):
        assert (tmp_path / "s" / name).read_bytes() == (fitted / name).read_bytes()
    with pytest.raises(InputError, match="made with another input_sha256"):
        reconstruct(rgba, tmp_path / "s", cameras=cameras, settings=often)


def test_where_enough_cameras_see_a_time_each_gaussian_may_differ_and_a_killed_run_resumes(
    rgba: Any, cameras: Any, tiny_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    options, often = ViewOptions(hold_cameras="2"), replace(tiny_settings, checkpoint_seconds=0.0)
    inputs = read_inputs(rgba, None, cameras, None, 0.0, None, None, options=options)
    few = reconstruction.for_views(tiny_settings, inputs)
    by_adam = replace(tiny_settings.rates, hidden=0.0)
    assert few == replace(tiny_settings, static_share=0.0, rates=by_adam), "five cameras are too few"
    assert reconstruction.for_views(tiny_settings, replace(inputs, views=None)) is tiny_settings
    monkeypatch.setattr(reconstruction, "FREE_CAMERAS", 5)
    free = reconstruction.for_views(tiny_settings, inputs)
    assert free.deformation["kind"] == "residual" and free.weights.rigidity == 0.1
    assert free.deformation["keys"] == sorted(set(inputs.dynamic.time))
    whole = reconstruct(rgba, tmp_path / "a", cameras=cameras, settings=often, views=options)
    assert isinstance(whole.field, ResidualField) and whole.field.table.abs().max() > 0
    held, nearest = whole.metrics["heldout"], whole.metrics["baselines"]["nearest_training_frame"]
    assert held["cam02"]["psnr"] > nearest["cam02"]["psnr"] + 4

    calls, step = 0, optimize.take_step

    def killed(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls > 150:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(optimize, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(rgba, tmp_path / "b", cameras=cameras, settings=often, views=options)
    monkeypatch.setattr(optimize, "take_step", step)
    reconstruct(rgba, tmp_path / "b", cameras=cameras, settings=often, views=options)
    for name in ("canonical.ply", "deformation.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("source", ["array", "multicam"])
def test_an_open_scene_keeps_its_background(
    source: str, rgba: Any, tiny_settings: Any, tmp_path: Path, draw_views: Any
) -> None:
    """Six cameras side by side before an object and a textured wall behind it; as `orbit4d multicam` writes
    them, too."""
    focal = focal_from_fov(60, SIZE)
    near = [
        Camera(orbit_c2w(a, e, 2.0), focal, focal, SIZE / 2, SIZE / 2, SIZE, SIZE)
        for a, e in ((-20, 0), (-12, 8), (-4, 0), (4, 8), (12, 0), (20, 8), (0, 4))
    ]
    times = [0.0, 0.5, 1.0]
    views = np.stack([_before_a_wall(draw_views("asset-000", 0, [c] * 3, times), c) for c in near])
    options = ViewOptions(hold_cameras="7")
    inputs = read_inputs(views, None, near, None, 0.0, None, None, "none", options=options)
    assert inputs.dynamic.rgba[..., 3].min() == 1
    given: dict[str, Any] = {"video_or_frames": views, "cameras": near}
    if source == "multicam":
        chosen = [ChosenCamera(str(i), (camera,) * 3) for i, camera in enumerate(near)]
        write_views(tmp_path / "out", views, chosen, Clock(3, (SIZE, SIZE), 8.0, 2.0), {})
        given = {"video_or_frames": tmp_path / "out" / "views"}
    scene = reconstruct(out=tmp_path / "s", settings=tiny_settings, matte="none", views=options, **given)
    held = scene.metrics["heldout"]["cam07"]["psnr"]
    assert held > scene.metrics["baselines"]["nearest_training_frame"]["cam07"]["psnr"] + 1
    assert scene.info["run"]["settings"]["weights"]["alpha"] == 0
    with pytest.raises(InputError, match="--matte none: keeps the background of several cameras"):
        reconstruct(rgba[0], tmp_path / "t", matte="none")


def _before_a_wall(rgba: np.ndarray, camera: Camera) -> np.ndarray:
    """RGB of images before a wall in the plane y = 1 with a pattern of stripes."""
    column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    local = np.stack(
        [(column - camera.cx) / camera.fl_x, -(row - camera.cy) / camera.fl_y, -np.ones_like(row)], -1
    )
    ways = local @ camera.c2w[:3, :3].T
    hit = camera.position + ways * ((1.0 - camera.position[1]) / ways[..., 1])[..., None]
    wall = 0.5 + 0.4 * np.stack(
        [np.sin(5 * hit[..., 0]), np.sin(4 * hit[..., 2]), np.cos(3 * hit[..., 0])], -1
    )
    straight = rgba.astype(np.float64) / 255
    mixed = straight[..., :3] * straight[..., 3:] + wall * (1 - straight[..., 3:])
    return (mixed * 255 + 0.5).astype(np.uint8)


def test_the_sweep_finds_the_depth_of_a_wall() -> None:
    focal = focal_from_fov(60, SIZE)
    near = tuple(
        Camera(orbit_c2w(a, e, 2.0), focal, focal, SIZE / 2, SIZE / 2, SIZE, SIZE)
        for a, e in ((-16, 0), (-6, 6), (6, -6), (16, 0), (0, 10))
    )
    clear = np.zeros((1, SIZE, SIZE, 4), np.uint8)
    images = np.concatenate([_before_a_wall(clear, camera) for camera in near]).astype(np.float32) / 255
    rgba = np.concatenate([images, np.ones((*images.shape[:3], 1), np.float32)], -1)
    frames = Frames(rgba, near, (0.0,) * 5, "wall")
    points, colours = sweep(frames, 500, np.random.default_rng(0))
    off = np.abs(points[:, 1] - 1.0)
    assert np.median(off) < 0.1, "64 depths in the inverse stand 0.1 apart at a distance of 3"
    assert colours.shape == (500, 3) and colours.min() >= 0


def test_gains_are_pulled_to_neighbours_in_time_of_the_same_camera() -> None:
    camera = Camera(orbit_c2w(0), 50, 50, 8, 8, 16, 16)
    frames = Frames(
        np.zeros((6, 16, 16, 4), np.float32),
        (camera,) * 6,
        (0.0, 0.5, 1.0) * 2,
        "two",
        labels=("a",) * 3 + ("b",) * 3,
    )
    pull = exposure_of(frames, None).pull
    assert pull[0, 1] < 0 and pull[1, 2] < 0 and pull[3, 4] < 0
    assert not pull[:3, 3:].any()


def test_the_world_of_a_capture_in_other_units(rgba: Any, cameras: Any) -> None:
    far = []
    for camera in cameras:
        c2w = camera.c2w.copy()
        c2w[:3, 3] = c2w[:3, 3] * 50 + (7.0, -3.0, 100.0)
        far.append(replace(camera, c2w=c2w))
    inputs = read_inputs(rgba, None, far, None, 0.0, None, None)
    world = find_world((inputs.dynamic, inputs.static))
    seen = in_world(inputs, world)
    assert world.scale > 25 and world.scale < 80 and np.abs(np.array(world.centre) - (7, -3, 100)).max() < 15
    distance = [float(np.linalg.norm(camera.position)) for camera in seen.dynamic.cameras]
    assert min(distance) > 1 and max(distance) < 4


def test_a_static_orbit_beside_several_cameras_is_refused(rgba: Any, cameras: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several cameras show the still object themselves"):
        reconstruct(rgba, tmp_path / "s", rgba[0], cameras)
    assert not (tmp_path / "s").exists()


def test_the_scene_of_a_grid_is_loaded_as_any(fitted: Path) -> None:
    scene = load_scene(fitted)
    assert len(scene.cameras) == 25 and scene.render(scene.cameras[0], 0.3).shape == (SIZE, SIZE, 4)
