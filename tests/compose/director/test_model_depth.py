"""`--depth-model`: a relative depth is scaled on the ground, and what it cannot do is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orbit4d.compose.director import model_depth
from orbit4d.compose.director.model_depth import estimated_depth, ground_depth
from orbit4d.compose.placement.lifting import on_ground
from orbit4d.datasets import WorkError, orbit
from orbit4d.model.guided.depth.network import Estimate

SIZE = 48
CAMERA = orbit(8, 5.0, 20.0, size=(SIZE, SIZE))[1]
IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)


def scene() -> Any:
    """A plane with a box before it, which is nearer than the ground there."""
    depth = ground_depth(CAMERA)
    depth[10:20, 15:30] = 0.7 * np.nanmin(depth)
    return depth


def answer(monkeypatch: pytest.MonkeyPatch, values: Any, metric: bool = False) -> None:
    found = Estimate(np.asarray(values, np.float32)[None], metric, "unknown")
    monkeypatch.setattr(model_depth, "estimate_depth", lambda name, frames: found)


def test_the_plane_is_where_rays_meet_it() -> None:
    depth = ground_depth(CAMERA)
    pixels = np.array([[x + 0.5, y + 0.5] for x, y in ((3, 40), (24, 30), (40, 47))])
    K = np.array([[CAMERA.fl_x, 0, CAMERA.cx], [0, CAMERA.fl_y, CAMERA.cy], [0, 0, 1]])
    points = on_ground(pixels, K, CAMERA.c2w)
    _, expected = CAMERA.project(points)
    assert np.allclose([depth[int(y), int(x)] for x, y in pixels], expected, rtol=1e-9)


def test_a_relative_depth_is_scaled_on_the_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = scene()
    # An affine map of 1/depth, as relative networks give; sky is whatever it is.
    answer(monkeypatch, np.nan_to_num(3.0 / depth + 0.4))
    found, line = estimated_depth("toy", IMAGE, depth, CAMERA)
    seen = np.isfinite(depth)
    assert np.allclose(found[seen], depth[seen], rtol=1e-4)  # float32 values
    assert np.isnan(found[~seen]).all()
    assert "residual 0.0%" in line and "toy" in line


def test_a_bad_depth_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = scene()
    rng = np.random.default_rng(0)
    answer(monkeypatch, np.nan_to_num(1.0 / depth) * rng.uniform(0.5, 1.5, depth.shape))
    residual = float(estimated_depth("toy", IMAGE, depth, CAMERA)[1].split("residual ")[1].rstrip("%)"))
    assert residual > 10


def test_metres_are_taken_at_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = scene()
    answer(monkeypatch, np.full((SIZE, SIZE), 2.0), metric=True)
    found, line = estimated_depth("toy", IMAGE, depth, CAMERA)
    assert (found[np.isfinite(depth)] == 2.0).all() and "metres" in line


def test_what_says_no_scale_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, np.ones((SIZE, SIZE)))
    with pytest.raises(WorkError, match="flat on the ground"):
        estimated_depth("toy", IMAGE, scene(), CAMERA)
    with pytest.raises(WorkError, match="too few"):
        estimated_depth("toy", IMAGE, np.full((SIZE, SIZE), np.nan), CAMERA)
