"""A view of a scene with its depth."""

from __future__ import annotations

import numpy as np
import torch

from orbit4d.compose.completion.view import SOLID, View
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.scene import Scene, draw


def filmed(scene: Scene, camera: Camera, time: float, name: str) -> View:
    """Colour, alpha and expected depth (in the world of the cameras) of a scene at a time in [0, 1]."""
    with torch.no_grad():
        drawn, alpha, _ = draw(
            scene._fitted(time), scene.world.camera(camera), eps2d=scene.eps2d, render_mode="RGB+ED"
        )
    colour, opacity = drawn[..., :3].cpu().numpy(), alpha[..., 0].cpu().numpy()
    straight = np.where(opacity[..., None] > 1 / 255, colour / np.maximum(opacity[..., None], 1 / 255), 0)
    depth = np.where(opacity > SOLID, drawn[..., 3].cpu().numpy() * scene.world.scale, np.inf)
    return View(
        straight.clip(0, 1).astype(np.float32),
        opacity.clip(0, 1).astype(np.float32),
        name,
        camera,
        time,
        depth.astype(np.float32),
    )
