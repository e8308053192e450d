"""Film a scene along a camera path: front view, dynamic orbit, bullet time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras import Camera, orbit
from orbit4d.datasets.errors import InputError
from orbit4d.datasets.progress import track
from orbit4d.recon4d.scene import Scene

PATHS = ("front_view", "dynamic_orbit", "bullet_time")


def camera_path(
    rig: str, frames: int, size: int, radius: float = 2.0, elevation_deg: float = 0.0, time: float = 0.5
) -> list[tuple[Camera, float]]:
    """(camera, time) of every frame.

    front_view: the camera stands, time runs. dynamic_orbit: both run. bullet_time: the camera turns at
    `time`.
    """
    around = orbit(frames, radius, elevation_deg, size=(size, size))
    clock = [i / max(frames - 1, 1) for i in range(frames)]
    if rig == "front_view":
        return [(around[0], t) for t in clock]
    if rig == "dynamic_orbit":
        return list(zip(around, clock))
    if rig == "bullet_time":
        return [(camera, time) for camera in around]
    raise InputError(f"--rig {rig}: choose from {', '.join(PATHS)}")


def film(
    scene: Scene,
    out: str | Path,
    rig: str = "front_view",
    frames: int = 48,
    size: int = 256,
    fps: float = 16.0,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    **path: float,
) -> npt.NDArray[np.uint8]:
    """Render and write an mp4; returns its frames, uint8 [F, H, W, 3]."""
    from orbit4d.datasets.video import write_video

    shots = [
        over(scene.render(camera, time), background)
        for camera, time in track(camera_path(rig, frames, size, **path), f"film {rig}", unit="frame")
    ]
    stacked = np.stack(shots)
    write_video(out, stacked, fps)
    return stacked


def over(straight: npt.NDArray[np.float32], background: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Straight RGBA float [H, W, 4] on a colour, uint8 [H, W, 3]."""
    alpha = straight[..., 3:]
    mixed = straight[..., :3] * alpha + np.array(background, np.float32) * (1 - alpha)
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)
