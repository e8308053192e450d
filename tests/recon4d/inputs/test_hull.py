"""The hull by kernels is the hull by arrays."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.recon4d.inputs import hull as module
from orbit4d.recon4d.inputs.hull import carve
from orbit4d.recon4d.inputs.loading import load_frames
from orbit4d.recon4d.raster import threads


@pytest.mark.parametrize("agree", [1.0, 0.7])
def test_a_voxel_stays_where_enough_views_see_the_object(
    moving_ball: dict[str, np.ndarray], agree: float
) -> None:
    frames = load_frames(moving_ball["static_orbit"])
    with threads.alone(2):
        found = carve(frames, resolution=24, agree=agree)
    axis = (np.arange(24) + 0.5) / 24 * 1.5 - 0.75
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = sum(
        (module._sample(image[..., 3], camera.project(grid)[0]) > 0.3).astype(int)
        for image, camera in zip(frames.rgba, frames.cameras)
    )
    full = (seen >= np.ceil(agree * len(frames) - 1e-9)).reshape(24, 24, 24)
    surface = full & ~module._eroded(full)
    assert 50 < surface.sum() < full.sum()
    np.testing.assert_array_equal(found.points, grid[surface.reshape(-1)])
