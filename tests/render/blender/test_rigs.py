"""Rigs as they are rendered: every camera is where its numbers say, and all see the same times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.cameras.rig_files import read_rig
from orbit4d.datasets.store.clip import Clip
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild, TaskRefused
from orbit4d.render.planning.settings import RenderSettings, preset

pytestmark = pytest.mark.blender

HERE, THERE = np.array([-0.4, 0.1, -0.2]), np.array([0.35, -0.3, 0.3])
RIGS = ("sync:3", "sync_basic", "sync_moving:4", "ring:3@20", "own", "front_view", "dynamic_orbit")

Render = Callable[..., tuple[list[Clip], dict[str, Any]]]


@pytest.fixture(scope="module")
def render(child: BlenderChild, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """`render(path, settings)`: (clips, what the child told)."""

    def run(path: Path, settings: RenderSettings) -> tuple[list[Clip], dict[str, Any]]:
        payload = {
            "uid": path.stem, "path": str(path), "sha256": "", "actions": None, "provenance": {},
            "scratch": str(tmp_path_factory.mktemp("scratch")), "settings": settings.as_config(),
        }  # fmt: skip
        # Through JSON, as the configuration reaches a worker.
        payload["settings"] = json.loads(json.dumps(payload["settings"]))
        result = child.call("render_clips", payload, 300)
        again = RenderSettings.from_config(payload["settings"])
        assert again == settings
        clips = [c for action in result["actions"] for c in clips_of_action(payload, again, action, result)]
        return clips, result

    return run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras of a lens that is off the centre, with pixels that are not square."""
    from orbit4d.datasets.cameras.camera import orbit_c2w

    lens = {"fl_x": 300.0, "fl_y": 330.0, "cx": 200.0, "cy": 120.0, "w": 360, "h": 270}
    frames = [
        {"transform_matrix": orbit_c2w(a, e, 2.5).tolist(), "camera_label": name}
        for name, a, e in (("left", -50.0, 10.0), ("right", 40.0, 35.0))
    ]
    path = tmp_path_factory.mktemp("own") / "own.json"
    path.write_text(json.dumps({**lens, "frames": frames}))
    return path


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory, gltf: Any, part: Any) -> Path:
    """A small octahedron that moves evenly from HERE to THERE within a second."""
    moves = {"Go": [(0.0, tuple(HERE)), (1.0, tuple(THERE))]}
    return gltf(
        tmp_path_factory.mktemp("marker") / "marker.glb", [part(tuple(HERE), 0.05, moves=moves)], ("Go",)
    )


@pytest.fixture(scope="module")
def clips(render: Render, marker: Path, own: Path) -> list[Clip]:
    settings = preset(
        "draft", frames=3, resolution=96, samples=8, rigs=RIGS, own_rigs=(read_rig(own),), draws=2
    )
    return render(marker, settings)[0]


def seen_at(frame: np.ndarray) -> np.ndarray:
    """Column and row of the middle of what covers the pixels."""
    alpha = frame[..., 3].astype(float)
    rows, columns = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
    return np.array([(alpha * columns).sum(), (alpha * rows).sum()]) / alpha.sum()


def whole(frame: np.ndarray) -> bool:
    """Whether the marker is in the frame, and none of it outside."""
    rim = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    return bool(frame[..., 3].any() and not rim[:, 3].any())


def test_one_clip_for_each_camera_and_draw(clips: list[Clip]) -> None:
    found = {(clip.rig, clip.orbit) for clip in clips}
    expected = {("sync_3", k) for k in range(6)} | {("sync_moving_4", k) for k in range(8)}
    expected |= {("sync_basic", k) for k in range(10)} | {("ring_3_20", k) for k in range(3)}
    expected |= {("own", 0), ("own", 1), ("front_view", 0), ("dynamic_orbit", 0)}
    assert found == expected and len(clips) == len(expected)
    by = {(clip.rig, clip.orbit): clip for clip in clips}
    assert (by["sync_3", 4].camera_label, by["sync_3", 4].rig_draw) == ("cam02", 1)
    assert (by["sync_3", 4].lens_mm, by["sync_3", 4].sensor_mm, by["sync_3", 4].metres_per_unit) == (
        24,
        23.76,
        2,
    )
    assert by["own", 1].camera_label == "right" and by["own", 1].lens_mm is None
    assert by["front_view", 0].camera_label is None and by["front_view", 0].metres_per_unit is None
    assert by["sync_moving_4", 7].camera_draw["kind"]


def test_all_cameras_share_window_normalisation_and_times(clips: list[Clip]) -> None:
    dynamic = next(clip for clip in clips if clip.rig == "dynamic_orbit")
    for clip in clips:
        assert (clip.window, clip.scale, clip.centre) == (dynamic.window, dynamic.scale, dynamic.centre)
        assert (clip.time, clip.seconds) == (dynamic.time, dynamic.seconds)


def test_every_camera_sees_the_marker_where_its_numbers_say(clips: list[Clip]) -> None:
    """The animated marker at the clip's own time, in every camera: the same pose at the same time."""
    tested = set()
    for clip in clips:
        for frame, camera, seconds in zip(clip.pixels(), clip.cameras, clip.seconds):
            assert frame.shape[:2] == (camera.h, camera.w)
            place = clip.scale * (HERE + seconds * (THERE - HERE) - np.array(clip.centre))
            if whole(frame):
                assert np.abs(seen_at(frame) - camera.project(place)[0]).max() < 0.5, (clip.key, seconds)
                tested.add(clip.rig)
    assert tested == {
        "sync_3",
        "sync_basic",
        "sync_moving_4",
        "ring_3_20",
        "own",
        "front_view",
        "dynamic_orbit",
    }


@pytest.mark.parametrize("rig", ["sync_3", "sync_basic", "ring_3_20", "own"])
def test_a_marker_triangulates_from_all_cameras(clips: list[Clip], rig: str) -> None:
    mine = [clip for clip in clips if clip.rig == rig]
    for i in range(3):
        rows, seen = [], []
        for clip in mine:
            frame, camera = clip.pixels()[i], clip.cameras[i]
            if whole(frame):
                u, v = seen_at(frame)
                p = camera.K @ camera.w2c_opencv[:3]
                rows += [u * p[2] - p[0], v * p[2] - p[1]]
                seen.append((camera, (u, v)))
        assert len(seen) >= 2
        point = np.linalg.svd(np.array(rows))[2][-1]
        point = point[:3] / point[3]
        for camera, pixel in seen:
            assert np.abs(camera.project(point)[0] - pixel).max() < 0.5


def test_blank_frames_of_a_camera_that_turns_away_are_no_fault(render: Render, marker: Path) -> None:
    """A long lens loses the marker in a pan, and may never have had it."""
    settings = preset("draft", frames=5, resolution=32, samples=4, rigs=("sync_moving:6",), draws=4)
    clips = render(marker, settings)[0]
    covered = [clip.pixels()[..., 3].any((1, 2)) for clip in clips]
    assert any(not shown.all() for shown in covered), "no camera lost sight of it: the test shows nothing"
    assert sum(shown.any() for shown in covered) > len(clips) // 2


def test_moving_cameras_stay_above_the_object_s_own_ground(
    render: Render, gltf: Any, part: Any, tmp_path: Path
) -> None:
    """A flat object's ground lies far above that of the unit box."""
    moves = {"Go": [(0.0, (-0.5, 0.0, 0.0)), (1.0, (0.5, 0.0, 0.0))]}
    flat = gltf(tmp_path / "flat.glb", [part((-0.5, 0.0, 0.0), 0.02, moves=moves)], ("Go",))
    settings = preset("draft", frames=4, resolution=32, samples=2, rigs=("sync_moving:20",))
    clips, told = render(flat, settings)
    ground = told["actions"][0]["ground"]
    assert -0.03 < ground < 0.0
    assert min(c.position[2] for clip in clips for c in clip.cameras) >= ground - 1e-9


def test_a_camera_inside_the_object_is_refused(render: Render, gltf: Any, part: Any, tmp_path: Path) -> None:
    """Within the box of an octahedron is a place outside of it, from which it may be filmed."""
    moves = {"Go": [(0.0, (0.0, 0.0, 0.0)), (1.0, (0.0, 0.0, 0.02))]}
    solid = gltf(tmp_path / "solid.glb", [part((0.0, 0.0, 0.0), 0.5, moves=moves)], ("Go",))
    file = tmp_path / "deep.json"

    def film(place: tuple[float, float, float], along_y: float) -> list[Clip]:
        c2w = np.eye(4)
        c2w[:3, :3] = [[along_y, 0, 0], [0, 0, -along_y], [0, 1, 0]]
        c2w[:3, 3] = place
        lens = {"fl_x": 20.0, "w": 32, "h": 32}
        file.write_text(json.dumps({**lens, "frames": [{"transform_matrix": c2w.tolist()}]}))
        return render(
            solid,
            preset("draft", frames=2, resolution=32, samples=1, rigs=("deep",), own_rigs=(read_rig(file),)),
        )[0]

    with pytest.raises(
        TaskRefused, match=r"solid: deep cam01: the camera stands inside the object at 0.000 s"
    ):
        film((0.1, -0.1, 0.05), 1.0)
    assert film((0.4, -0.4, 0.0), 1.0)[0].measures["coverage"] > 0.1
    with pytest.raises(TaskRefused, match="no camera of the rig deep shows anything"):
        film((0.0, -2.0, 0.0), -1.0)
