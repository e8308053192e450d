"""D-NeRF and N3DV rebuilt from drawn views, reconstructed in seconds, and measured on their test views."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video
from orbit4d.evaluate.benchmarks import fitted
from orbit4d.evaluate.benchmarks.images import measured
from orbit4d.evaluate.metrics.suite import Suite
from orbit4d.recon4d.fitting.settings import PRESETS

SIZE = 32
SETTINGS = replace(
    PRESETS["fast"], n_gaussians=300, coarse_steps=40, fine_steps=120, resolution=SIZE,
    deformation={"kind": "nodes", "n_nodes": 20, "width": 16},
)  # fmt: skip


@pytest.fixture(scope="module")
def draw(draw_views: Callable[..., Any]) -> Callable[[list[Camera], list[float]], np.ndarray]:
    return lambda cameras, times: draw_views("asset-000", 0, cameras, times)


def put_dnerf(scene: Path, draw: Callable[..., np.ndarray]) -> None:
    """Twelve training views around, three test views between them, each at a time of its own."""
    for split, cameras in (
        ("train", orbit(12, elevation_deg=15, size=(SIZE, SIZE))),
        ("test", orbit(3, elevation_deg=15, azimuth0_deg=15, size=(SIZE, SIZE))),
    ):
        times = [i / (len(cameras) - 1) for i in range(len(cameras))]
        (scene / split).mkdir(parents=True)
        frames = []
        for i, (image, camera) in enumerate(zip(draw(cameras, times), cameras)):
            Image.fromarray(image).save(scene / split / f"r_{i:03d}.png")
            pose = {"file_path": f"./{split}/r_{i:03d}", "time": times[i]}
            frames.append(pose | {"transform_matrix": camera.c2w.tolist()})
        angle = float(2 * np.arctan(SIZE / 2 / cameras[0].fl_x))
        record = {"camera_angle_x": angle, "frames": frames}
        (scene / f"transforms_{split}.json").write_text(json.dumps(record))


def put_n3dv(scene: Path, draw: Callable[..., np.ndarray]) -> None:
    """Five videos of three times; the first is the test view."""
    scene.mkdir(parents=True)
    rows = []
    for v, camera in enumerate(orbit(5, elevation_deg=10, size=(SIZE, SIZE))):
        rgba = draw([camera] * 3, [0.0, 0.5, 1.0]).astype(np.float32) / 255
        white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        write_video(scene / f"cam{v:02d}.mp4", (white * 255 + 0.5).astype(np.uint8))
        c2w, size = camera.c2w, np.array([camera.h, camera.w, camera.fl_x])
        columns = np.stack([-c2w[:3, 1], c2w[:3, 0], c2w[:3, 2], c2w[:3, 3], size], 1)
        rows.append([*columns.reshape(15), 1.0, 4.0])
    np.save(scene / "poses_bounds.npy", np.array(rows))


def blank(name: str, root: Path, folder: Path) -> float:
    """PSNR of answering the same test views with white."""
    seen = list(fitted.tests(name, root, folder, SETTINGS))
    white = [replace(test, given=replace(test.given, rgb=test.given.rgb * 0 + 1)) for test in seen]
    return next(iter(measured(name, white, Suite(learned=False), "").rows.values()))["PSNR"]


def test_dnerf_is_fitted_once_and_measured_on_its_test_views(
    tmp_path: Path, draw: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    put_dnerf(tmp_path / "truth" / "ball", draw)
    found = fitted.run("dnerf", tmp_path / "truth", tmp_path / "scenes", Suite(learned=False), SETTINGS)
    assert found.protocol["test images"] == 3 and found.protocol["resolution"] == SIZE
    assert found.published == () and "checked against its paper" in found.unlike
    capsys.readouterr()
    # White is what an empty scene gives: the fit shows more than that by far.
    assert found.rows["ball"]["PSNR"] > blank("dnerf", tmp_path / "truth", tmp_path / "scenes") + 3
    assert "already finished" in capsys.readouterr().out
    # Without its test views there is nothing to measure, and the training views are not taken instead.
    record = tmp_path / "truth" / "ball" / "transforms_test.json"
    record.write_text(json.dumps({"camera_angle_x": 0.7, "frames": []}))
    with pytest.raises(InputError, match="no test view"):
        list(fitted.tests("dnerf", tmp_path / "truth", tmp_path / "scenes", SETTINGS))


def test_n3dv_holds_cam00_back(tmp_path: Path, draw: Callable[..., np.ndarray]) -> None:
    put_n3dv(tmp_path / "room", draw)
    found = fitted.run("n3dv", tmp_path / "room", tmp_path / "scenes", Suite(learned=False), SETTINGS)
    assert set(found.rows) == {"room"} and found.protocol["test images"] == 3
    assert found.protocol["matte"] == "none"
    cameras = json.loads((tmp_path / "scenes" / "room" / "cameras.json").read_text())["frames"]
    assert len(cameras) == 12, "cam00 is no training view"
