"""Agreement of views: a textured sphere drawn in closed form agrees, a recoloured or turned one does not."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.datasets import Camera, orbit
from orbit4d.evaluate import feature_consistency, matched_pixels
from orbit4d.evaluate.geometry.consistency import bilinear, corresponding

SIDE = (96, 96)


def drawn(camera: Camera, phase: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sphere of radius 0.5 with a smooth pattern: image [H, W, 3], depth along the axis, alpha."""
    j, i = np.meshgrid(np.arange(camera.w) + 0.5, np.arange(camera.h) + 0.5)
    rays = np.stack([(j - camera.cx) / camera.fl_x, -(i - camera.cy) / camera.fl_y, -np.ones_like(j)], -1)
    d = rays @ camera.c2w[:3, :3].T
    o = camera.position
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 0.25
    root = b * b - a * c
    t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    alpha = np.isfinite(t).astype(float)
    at = o + np.where(alpha > 0, t, 0)[..., None] * d
    colour = 0.5 + 0.4 * np.sin(5 * at + phase) * alpha[..., None]
    return colour, t, alpha  # rays have length 1 along the axis: t is the depth


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    ring = orbit(12, radius=2.0, elevation_deg=15.0, size=SIDE)
    return [ring[k] for k in (0, 1, 2)]


def views(cameras: list[Camera], phases: tuple[float, ...] = (0, 0, 0)) -> tuple[np.ndarray, ...]:
    return tuple(
        np.stack(x) for x in zip(*(drawn(c, p) for c, p in zip(cameras, phases, strict=True)), strict=True)
    )


def test_true_views_agree(cameras: list[Camera]) -> None:
    result = matched_pixels(*views(cameras), cameras)
    opaque = views(cameras)[2].sum()
    assert result["matched"] > 0.99 and result["difference"] < 0.01
    assert 0.8 * 2 * opaque < result["valid"] + 0.5 * opaque  # most of what one sees, its neighbours see
    assert result["valid"] < 2 * opaque


def test_what_was_changed_is_seen(cameras: list[Camera]) -> None:
    other = matched_pixels(*views(cameras, (0, 0, 1.5)), cameras)
    assert other["matched"] < 0.8 and other["difference"] > 0.1
    images, depth, alpha = views(cameras)
    wrong = matched_pixels(images, depth, alpha, [cameras[0], cameras[2], cameras[1]])
    assert wrong["matched"] < 0.9 or wrong["valid"] < matched_pixels(images, depth, alpha, cameras)["valid"]


def test_views_that_share_nothing_have_no_share(cameras: list[Camera]) -> None:
    ring = orbit(2, radius=2.0, elevation_deg=0.0, size=SIDE)
    result = matched_pixels(*views([ring[0], ring[1]], (0, 0)), [ring[0], ring[1]])
    assert result["valid"] == 0 and np.isnan(result["matched"])


def test_bad_input(cameras: list[Camera]) -> None:
    images, depth, alpha = views(cameras)
    with pytest.raises(ValueError, match=r"images \[V,H,W,3\]"):
        matched_pixels(images, depth[:2], alpha, cameras)
    with pytest.raises(ValueError, match="at least two views"):
        matched_pixels(images[:1], depth[:1], alpha[:1], cameras[:1])


def test_a_slow_twin_and_growing_noise(cameras: list[Camera]) -> None:
    """Pixel after pixel, the point in the world and scipy's interpolation, without a function of the code."""
    from scipy.ndimage import map_coordinates

    images, depth, alpha = views(cameras)
    rng = np.random.default_rng(1)
    images = images + 0.08 * rng.normal(size=images.shape)
    shares, gaps, count = [], [], 0
    for a, b in ((0, 1), (1, 0)):
        matched = []
        for row, column in np.argwhere(alpha[a] >= 0.5):
            one, two = cameras[a], cameras[b]
            ray = np.array(
                [(column + 0.5 - one.cx) / one.fl_x, -(row + 0.5 - one.cy) / one.fl_y, -1.0], float
            )
            world = one.position + one.c2w[:3, :3] @ ray * depth[a][row, column]
            x, y, z = two.c2w[:3, :3].T @ (world - two.position)
            u, v = two.cx - two.fl_x * x / z, two.cy + two.fl_y * y / z
            i, j = int(np.floor(v)), int(np.floor(u))
            if not (0 <= i < two.h and 0 <= j < two.w) or alpha[b][i, j] < 0.5:
                continue
            if not abs(-z - depth[b][i, j]) <= 0.01 * -z:
                continue
            at = [[v - 0.5], [u - 0.5]]
            there = [map_coordinates(images[b][..., c], at, order=1, mode="nearest")[0] for c in range(3)]
            gap = np.abs(images[a][row, column] - there)
            matched.append(gap.max() <= 0.1)
            gaps.append((a, gap.mean()))
        shares.append(np.mean(matched))
        count += len(matched)
    found = matched_pixels(images[:2], depth[:2], alpha[:2], cameras[:2])
    assert found["valid"] == count and 0.2 < found["matched"] < 0.95
    assert found["matched"] == pytest.approx(np.mean(shares), abs=1e-9)
    difference = np.mean([np.mean([gap for view, gap in gaps if view == a]) for a in (0, 1)])
    assert found["difference"] == pytest.approx(difference, abs=1e-9)
    # Views in another order are the same views.
    swapped = matched_pixels(images[1::-1], depth[1::-1], alpha[1::-1], cameras[1::-1])
    assert swapped == pytest.approx(found, abs=1e-12)
    noise = rng.normal(size=images.shape)
    series = [matched_pixels(images + s * noise, depth, alpha, cameras) for s in (0, 0.05, 0.2, 0.6)]
    matched, differ = ([one[name] for one in series] for name in ("matched", "difference"))
    assert matched == sorted(matched, reverse=True) and differ == sorted(differ)


def features_of(cameras: list[Camera]) -> np.ndarray:
    """A feature of a surface point that does not depend on the view: waves of its place, [V, H, W, 6]."""
    images = views(cameras)[0]
    return np.concatenate([images - 0.5, np.cos(3 * images)], -1) + 1e-3


def test_features_of_one_surface_agree_and_noise_is_seen(cameras: list[Camera]) -> None:
    _, depth, alpha = views(cameras)
    features = features_of(cameras)
    true = feature_consistency(features, depth, alpha, cameras)
    assert true["unlike"] < 0.01 and true["valid"] == matched_pixels(*views(cameras), cameras)["valid"]
    noise = np.random.default_rng(0).normal(size=features.shape)
    series = [
        feature_consistency(features + s * noise, depth, alpha, cameras)["unlike"] for s in (0, 0.2, 0.6, 2)
    ]
    assert series == sorted(series) and series[-1] > 0.3
    # Direction counts, length does not; opposite features are 2 apart.
    assert feature_consistency(7 * features, depth, alpha, cameras)["unlike"] == pytest.approx(true["unlike"])
    turned = features * np.array([1, -1, 1])[:, None, None, None]
    assert feature_consistency(turned[:2], depth[:2], alpha[:2], cameras[:2])["unlike"] > 1.98


def test_features_on_a_coarser_grid_and_a_slow_twin(cameras: list[Camera]) -> None:
    _, depth, alpha = views(cameras)
    coarse = features_of(cameras)[:, 4::8, 4::8]
    two = feature_consistency(coarse[:2], depth[:2], alpha[:2], cameras[:2])
    total = []
    for a, b in ((0, 1), (1, 0)):
        pixels, uv = corresponding(depth[a], alpha[a], cameras[a], depth[b], alpha[b], cameras[b])
        angles = []
        for (row, column), (u, v) in zip(pixels, uv):
            here = bilinear(coarse[a], np.array([[(column + 0.5) / 8, (row + 0.5) / 8]]))[0]
            there = bilinear(coarse[b], np.array([[u / 8, v / 8]]))[0]
            angles.append(1 - here @ there / np.sqrt((here @ here) * (there @ there)))
        total.append(np.mean(angles))
    assert two["unlike"] == pytest.approx(np.mean(total), abs=1e-9)
    with pytest.raises(ValueError, match="length 0"):
        feature_consistency(0 * coarse, depth, alpha, cameras)
    with pytest.raises(ValueError, match=r"features \[V,h,w,C\]"):
        feature_consistency(coarse[:2], depth, alpha, cameras)
