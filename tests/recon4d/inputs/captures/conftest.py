"""Four cameras that film a small scene at five times, and the same as each layout stores it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.cameras.camera import FLIP_YZ, Camera, focal_from_fov, orbit_c2w
from orbit4d.datasets.cameras.transforms import intrinsics_record
from orbit4d.datasets.videos.video import write_video
from orbit4d.recon4d.inputs.captures.fourdanyone import Y_UP

AZIMUTHS, TIMES, SIZE = (0.0, 90.0, 180.0, 270.0), 5, 40


@dataclass
class Rig:
    """What V cameras saw at T times."""

    cameras: list[Camera]
    rgba: np.ndarray
    """[V, T, H, W, 4] straight."""
    times: list[float]

    @property
    def labels(self) -> list[str]:
        return [f"cam{i + 1:02d}" for i in range(len(self.cameras))]

    def on_white(self, v: int) -> np.ndarray:
        straight = self.rgba[v].astype(np.float64) / 255
        mixed = straight[..., :3] * straight[..., 3:] + 1 - straight[..., 3:]
        return (mixed * 255 + 0.5).astype(np.uint8)

    def folders(self, root: Path, numbers: dict[int, list[int]] | None = None) -> Path:
        """A folder of PNGs per camera; `numbers` says which frames a camera has."""
        for v, label in enumerate(self.labels):
            (root / label).mkdir(parents=True)
            for t in (numbers or {}).get(v, range(len(self.times))):
                Image.fromarray(self.rgba[v, t]).save(root / label / f"{t:03d}.png")
        return root

    def videos(self, root: Path, fps: tuple[float, ...] = (8, 8, 8, 8), first: str = "cam{:02d}") -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for v in range(len(self.cameras)):
            write_video(root / (first.format(v) + ".mp4"), self.on_white(v), fps[v])
        return root

    def fourdanyone(self, root: Path) -> list[dict[str, Any]]:
        """Its videos as 4DAnyone lays them, and the entries of its cameras.json."""
        self.videos(root / "videos" / "dense", first="{:02d}")
        entries = []
        for v, camera in enumerate(self.cameras):
            theirs = np.vstack([Y_UP.T @ camera.c2w[:3], camera.c2w[3:]]) @ FLIP_YZ
            entries.append({
                "camera_id": v, "K": camera.K.tolist(), "camera_to_world": theirs.tolist(),
                "image_width": camera.w, "image_height": camera.h, "video": f"videos/dense/{v:02d}.mp4",
            })  # fmt: skip
        return entries

    def transforms(self, path: Path, per_shot: bool = True, **top: Any) -> Path:
        frames = []
        for v, label in enumerate(self.labels):
            own = {"transform_matrix": self.cameras[v].c2w.tolist(), **intrinsics_record(self.cameras[v])}
            for t, time in enumerate(self.times if per_shot else [None]):
                name = f"{label}/{t:03d}.png" if per_shot else label
                entry = {"file_path": name, "camera_label": label, **own}
                frames.append(entry | ({} if time is None else {"time": time}))
        path.write_text(json.dumps({**top, "frames": frames}))
        return path


@pytest.fixture(scope="session")
def rig(draw_views: Callable[..., Any]) -> Rig:
    focal = focal_from_fov(39.6, SIZE)
    cameras = [
        Camera(orbit_c2w(a, 10.0, 2.0), focal, focal, SIZE / 2, SIZE / 2, SIZE, SIZE) for a in AZIMUTHS
    ]
    times = [t / (TIMES - 1) for t in range(TIMES)]
    rgba = np.stack([draw_views("asset-000", 0, [camera] * TIMES, times) for camera in cameras])
    return Rig(cameras, rgba, times)
