"""The ground of a scene that somebody fitted: a height map of its opaque Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from orbit4d.compose.placement.ground import Ground
from orbit4d.recon4d import rotations
from orbit4d.recon4d.gaussians import Gaussians

#: Opacity above which a Gaussian is something to stand on.
OPAQUE = 0.3


def scene_ground(gaussians: Gaussians, height: float) -> Ground:
    """The ground of a scene for an actor `height` world units high. WorkError where it has none.

    Each Gaussian stands for its centre and the ends of its axes; holes of one cell are filled from around.
    """
    solid = torch.sigmoid(gaussians.logits) > OPAQUE
    means, axes = gaussians.means[solid].double(), gaussians.log_scales[solid].double().exp()
    if len(means):
        turns = rotations.to_matrix(torch.nn.functional.normalize(gaussians.quats[solid].double(), dim=1))
        ends = turns * axes[:, None, :]
        spread = [means + sign * ends[:, :, k] for k in range(3) for sign in (1, -1)]
        # Where a Gaussian lies flat, its whole disc is ground.
        spread += [
            means + a * ends[:, :, i] + b * ends[:, :, j]
            for i, j in ((0, 1), (0, 2), (1, 2))
            for a in (0.7, -0.7)
            for b in (0.7, -0.7)
        ]
        means = torch.cat([means, *spread])
    points = means.cpu().numpy()
    extent = float(np.ptp(points[:, :2], axis=0).max()) if len(points) else 1.0
    cell = max(0.05 * height, extent / 128)
    return _filled(Ground.of_points(points, cell, height), height)


def _filled(ground: Ground, height: float) -> Ground:
    """Cells without ground between at least five that have some get their median."""
    heights, blocked = ground.heights.copy(), ground.blocked.copy()
    wide = np.pad(heights, 1, constant_values=np.nan)
    h, w = heights.shape
    around = np.stack([wide[a : a + h, b : b + w] for a in range(3) for b in range(3) if (a, b) != (1, 1)])
    hole = np.isnan(heights) & (np.isfinite(around).sum(axis=0) >= 5)
    filling = np.nanmedian(around[:, hole], axis=0) if hole.any() else np.zeros(0)
    level = np.nanmax(around[:, hole], axis=0) - np.nanmin(around[:, hole], axis=0) <= 0.25 * height
    heights[hole] = filling
    blocked[hole] = ~level
    return replace(ground, heights=heights, blocked=blocked)
