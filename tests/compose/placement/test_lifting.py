"""Lift and unlift, facing and bounds against fixtures of another hand, with every degenerate case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.compose.placement.bounds import bounded
from orbit4d.compose.placement.facing import face, turn
from orbit4d.compose.placement.lifting import (
    along_axis,
    contact_points,
    depth_at,
    fitted_depth,
    height_of,
    lift,
    on_ground,
    unlift,
)
from orbit4d.datasets import orbit


@pytest.fixture(scope="module")
def given(shared: Path) -> dict[str, Any]:
    with np.load(shared / "fixtures" / "c3v" / "lift.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.mark.parametrize(("kind", "near"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_lift_and_unlift(given: dict[str, Any], kind: Any, near: float) -> None:
    for c in range(len(given["K"])):
        boxes, depth, heights, K, c2w, contacts, centres, rays = (
            given[name][c].astype(kind)
            for name in ("boxes", "depth_at", "heights", "K", "c2w", "contacts", "centres", "ray_length")
        )
        size = np.abs(centres).max()
        lifted = lift(boxes, depth, heights, K, c2w)
        assert lifted.dtype == kind and np.abs(lifted - centres).max() <= near * size
        pixels = np.stack([boxes[:, 0], boxes[:, 1] + boxes[:, 3] / 2], axis=1)
        assert np.abs(contact_points(pixels, depth, K, c2w) - contacts).max() <= near * size
        back, again = unlift(centres, heights, K, c2w)
        assert np.abs(back - pixels).max() <= near * np.abs(pixels).max()
        assert np.abs(again - depth).max() <= near * depth.max()
        assert np.allclose(along_axis(rays, pixels, K), depth, rtol=near)
        tensors = lift(*(torch.from_numpy(a) for a in (boxes, depth, heights, K, c2w)))
        assert isinstance(tensors, torch.Tensor) and np.abs(tensors.numpy() - centres).max() <= near * size


def test_the_depth_map(given: dict[str, Any]) -> None:
    depth, K, c2w, pixels = (given[f"map_{name}"] for name in ("depth", "K", "c2w", "pixels"))
    found = contact_points(pixels, depth_at(depth, pixels), K, c2w)
    distance = np.linalg.norm(found - c2w[:3, 3], axis=1)
    assert (np.linalg.norm(found - given["map_points"], axis=1) <= 1e-5 * distance).all()
    assert (np.abs(found[:, 2]) <= 1e-5 * distance).all()
    rows, columns = np.nonzero(given["map_kind"] == 2)
    box = np.stack([columns, rows], axis=1) + 0.5
    points = contact_points(box, depth_at(depth, box), K, c2w)
    low, high = given["map_box"]
    off = np.minimum(np.abs(points - low), np.abs(points - high)).min(axis=1)
    assert off.max() <= 1e-5 * np.linalg.norm(points - c2w[:3, 3], axis=1).max()
    sky = np.argwhere(given["map_kind"] == 0)[:5][:, ::-1] + 0.5
    assert np.isnan(depth_at(depth, sky)).all()


def test_depth_is_not_mixed_over_edges() -> None:
    depth = np.array([[2.0, 2.02], [2.0, 4.0]])
    assert depth_at(depth, [[1.0, 1.0]])[0] == 4.0  # the nearest pixel's, no mean of two surfaces
    depth[1, 1] = 2.02
    assert depth_at(depth, [[1.0, 1.0]])[0] == pytest.approx(2.01)
    assert np.isnan(depth_at(depth, [[-3.0, 0.0]]))[0]


def test_heights_of_a_tilted_camera(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = orbit(8, 3.0, 35.0)[3]
    points = rng.uniform(-0.5, 0.5, (20, 3))
    heights = rng.uniform(0.1, 0.6, 20)
    pixels, depth = camera.project(points)
    tops = camera.project(points + np.array([0, 0, 1.0]) * heights[:, None])[0][:, 1]
    assert np.allclose(height_of(pixels, tops, depth, camera.K, camera.c2w), heights, rtol=1e-9)
    level = orbit(1)[0]
    pixels, depth = level.project(points)
    tops = level.project(points + np.array([0, 0, 1.0]) * heights[:, None])[0][:, 1]
    assert np.allclose((pixels[:, 1] - tops) * depth / level.fl_y, heights)


def test_rays_meet_the_ground_or_nothing() -> None:
    camera = orbit(1, 3.0, 20.0)[0]
    pixels = camera.project(np.array([[0.3, 0.2, 0.0], [-0.4, 1.0, 0.0]]))[0]
    assert np.allclose(on_ground(pixels, camera.K, camera.c2w), [[0.3, 0.2, 0], [-0.4, 1.0, 0]])
    assert np.isnan(on_ground([[128.0, -4000.0]], camera.K, camera.c2w)).all()


def test_relative_depth_is_fitted_on_the_ground() -> None:
    metric = np.linspace(2, 9, 30)
    scale, shift, residual = fitted_depth((1 / metric - 0.05) / 3.0, metric)
    assert (scale, shift) == pytest.approx((3.0, 0.05)) and residual < 1e-9
    with pytest.raises(ValueError, match="flat"):
        fitted_depth(np.ones(3), metric[:3])


@pytest.mark.parametrize(
    ("name", "forward", "yaw"),
    [("face_z_full", (0, 0, 1), False), ("face_y_full", (0, -1, 0), False), ("face_y_yaw", (0, -1, 0), True)],
)
def test_facing(given: dict[str, Any], name: str, forward: Any, yaw: bool) -> None:
    for path, wanted, title in zip(given["paths"], given[name], given["path_names"], strict=True):
        found = face(path, forward, yaw)
        assert np.abs(found - wanted).max() <= 1e-9, title
        assert np.allclose(found @ found.transpose(0, 2, 1), np.eye(3), atol=1e-9)
        assert np.allclose(np.linalg.det(found), 1, atol=1e-9)
        single = face(path.astype(np.float32), forward, yaw)
        assert single.dtype == np.float32
        if title not in ("tiny_step", "all_still"):  # float32 has no steps of 1e-9 there
            assert np.abs(single - wanted).max() <= 1e-5, title


def test_the_printed_order_is_the_transpose(given: dict[str, Any]) -> None:
    found = face(given["paths"][0], (0, 0, 1), yaw_only=False)
    assert np.allclose(given["printed_sign"], found.transpose(0, 2, 1), atol=1e-12)
    assert not np.allclose(given["printed_sign"], found, atol=1e-3)


def test_half_turns_and_short_paths() -> None:
    assert np.allclose(turn(np.array([0, -1.0, 0]), np.array([0, 1.0, 0])), np.diag([-1, -1, 1]))
    up = turn(np.array([0, 0, 1.0]), np.array([0, 0, -1.0]))
    assert np.allclose(up, np.diag([1, -1, -1]))
    assert np.array_equal(face(np.zeros((1, 3))), np.eye(3)[None])
    with pytest.raises(ValueError, match="forward"):
        face(np.zeros((2, 3)), (0, 0, 0))


def test_bounds(given: dict[str, Any]) -> None:
    for tau, base, wanted, slope in zip(
        given["taus"], given["base"], given["bounded"], given["slope"], strict=True
    ):
        found = bounded(given["raw"], float(tau), base)
        assert np.abs(found - wanted).max() <= 1e-12
        raw = torch.tensor(given["raw"], requires_grad=True)
        bounded(raw, float(tau), float(base)).sum().backward()
        assert raw.grad is not None and np.abs(raw.grad.numpy() - slope).max() <= 1e-12
        assert np.abs(bounded(given["raw"], float(tau))).max() <= tau / 2
    assert bounded(0.0, 0.1, 0.7) == 0.7
