"""What `orbit4d multicam` writes is what `orbit4d recon4d` reads: true views, through its own writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit_c2w
from orbit4d.model.sampling.camera_choice import ChosenCamera
from orbit4d.model.sampling.multicam import Clock, write_views
from orbit4d.recon4d import ViewOptions, reconstruct

N, SIZE, TIMES = 6, 48, 5


@pytest.fixture(scope="module")
def write(tmp_path_factory: Any, draw_views: Callable[..., Any]) -> Callable[..., Path]:
    """`write(order)`: a folder of multicam's, whose records give view i camera `order[i]`."""
    focal, half = focal_from_fov(39.6, SIZE), SIZE / 2
    places = [(360 * i / N, 15.0 if i % 2 else -5.0) for i in range(N)]
    cameras = [Camera(orbit_c2w(a, e, 2.0), focal, focal, half, half, SIZE, SIZE) for a, e in places]
    times = [t / (TIMES - 1) for t in range(TIMES)]
    rgba = np.stack([draw_views("asset-000", 0, [camera] * TIMES, times) for camera in cameras]) / 255.0
    videos = ((rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]) * 255).round().astype(np.uint8)

    def made(order: Sequence[int] = range(N)) -> Path:
        folder = tmp_path_factory.mktemp("multicam") / "out"
        told = [cameras[i] for i in order]
        chosen = [ChosenCamera(str(i), (camera,) * TIMES) for i, camera in enumerate(told)]
        write_views(folder, videos, chosen, Clock(TIMES, (SIZE, SIZE), 8.0, 2.0), {})
        return folder

    return made


def metrics_of(folder: Path, out: Path, settings: Any) -> dict[str, Any]:
    reconstruct(folder / "views", out, settings=settings, views=ViewOptions(hold_cameras="2"))
    return json.loads((out / "metrics.json").read_text())


def test_its_cameras_belong_to_its_frames(write: Any, tiny_settings: Any, tmp_path: Path) -> None:
    true = metrics_of(write(), tmp_path / "true", tiny_settings)
    wrong = metrics_of(write(order=(3, 5, 1, 0, 2, 4)), tmp_path / "wrong", tiny_settings)
    true_held, wrong_held = (one["heldout"]["cam02"]["psnr"] for one in (true, wrong))
    assert true_held > true["baselines"]["nearest_training_frame"]["cam02"]["psnr"] + 2
    assert true_held > wrong_held + 2 and true["psnr_train"] > wrong["psnr_train"] + 2
