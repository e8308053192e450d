"""Weights of the warp: the closed form against a search, its laws, and the released rule and its search."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.model import guidance_weights, search_guidance
from orbit4d.model.guided.guidance_weights import REPO_B, REPO_K


def bound(log_l: np.ndarray, denoiser: float, warp: float, v1: float) -> np.ndarray:
    """What the closed form minimises."""
    l_ = np.exp(log_l)
    return (denoiser + l_ * warp) / (1 + l_) + v1 * np.abs(log_l)


@pytest.mark.parametrize("draw", range(20))
def test_the_closed_form_is_the_minimum(draw: int) -> None:
    rng = np.random.default_rng(draw)
    v = (float(10 ** rng.uniform(-2, 0)), float(10 ** rng.uniform(-1, 1)), float(10 ** rng.uniform(-1, 1)))
    sigma, d = float(rng.uniform(0.05, 1)), float(rng.uniform(0.01, 1))
    w = guidance_weights([1.0, sigma, 0.0] if sigma < 1 else [1.0, 0.0], [d], v)[-1, 0]
    grid = np.linspace(-12, 12, 1_200_001)
    best = grid[bound(grid, v[1] * sigma, v[2] * d, v[0]).argmin()]
    if abs(best) > 11.9:
        pytest.skip("the minimum lies outside of the grid")
    # The grid's step is 2e-5; the bound is flat at its minimum to about the root of that.
    assert np.log(w / (1 - w)) == pytest.approx(best, abs=1e-4)


def test_laws() -> None:
    sigmas, distances = np.geomspace(700, 0.01, 40), np.linspace(0, 1, 25)
    w = guidance_weights(sigmas, distances, (1.0, 1000.0, 10.0))
    assert w.shape == (39, 25) and w.dtype == np.float64
    assert (w[:, 0] == 1).all()
    assert (np.diff(w[:, 1:], axis=0) <= 0).all() and (np.diff(w[:, 1:], axis=1) <= 0).all()
    assert ((w > 0) & (w <= 1)).all()
    # Q and -Q: the weights of the two estimates change places. v2 = v3 and sigma_n <-> d.
    a = guidance_weights([1.0, 0.3, 0.0], [0.7], (0.01, 1.0, 1.0))[1, 0]
    b = guidance_weights([1.0, 0.7, 0.0], [0.3], (0.01, 1.0, 1.0))[1, 0]
    assert a + b == pytest.approx(1, abs=1e-12)
    # The plateau: |Q| <= 4 v1.
    assert guidance_weights([1.0, 0.5, 0.0], [0.5, 0.6], (0.1, 1.0, 1.0))[1].tolist() == [0.5, 0.5]


def test_scaling_the_noise_and_its_weight_changes_nothing() -> None:
    """Only shares of the largest level enter."""
    sigmas = np.geomspace(700, 0.01, 30)
    a, b = (guidance_weights(s, [0.2, 0.9]) for s in (sigmas, sigmas / 7))
    assert np.allclose(a, b, rtol=1e-9, atol=0)


@pytest.mark.parametrize("rule", ["closed", "repo"])
def test_equal_to_the_reference(reference, rule: str) -> None:
    """1e-9: the released root cancels; two orders of the same operations differ by 6e-13."""
    z = reference("weights")
    for case in sorted({name.rsplit("_", 1)[0] for name in z}):
        got = guidance_weights(
            z[f"{case}_sigmas"], z[f"{case}_distances"], tuple(map(float, z[f"{case}_v"])), rule
        )
        np.testing.assert_allclose(got, z[f"{case}_{rule}"], rtol=0, atol=1e-9, equal_nan=True)


def test_the_search_is_the_released_one(reference) -> None:
    z = reference("search")
    for case in sorted({name.rsplit("_", 1)[0] for name in z}):
        found = search_guidance(z[f"{case}_sigmas"], z[f"{case}_distances"])
        assert found == pytest.approx(tuple(z[f"{case}_v"]), abs=1e-9)


def test_released_roots_are_a_quarter_too_small() -> None:
    """l + 0.25 solves the quadratic of the regulariser ln(0.8 l - 0.2), in each of its branches."""
    sigmas, distances = np.geomspace(1, 0.01, 20), np.linspace(0.05, 1, 9)
    v1, v2, v3 = 0.002, 1.0, 1.0
    w = guidance_weights(sigmas, distances, (v1, v2, v3), "repo")
    q = v3 * distances[None] - v2 * sigmas[:-1, None]
    valid = ~np.isnan(w)
    root = (w / (1 - w) + 0.25)[valid]
    v = np.where(w[valid] > 0.5, v1, -v1)
    rest = REPO_K * v * root**2 + (2 * REPO_K * v + REPO_K * q[valid]) * root + REPO_K * v + q[valid] * REPO_B
    assert valid.any() and np.abs(rest).max() < 1e-9


def test_one_frame_given_frames_and_no_frame_to_guide() -> None:
    sigmas = np.geomspace(700, 0.01, 10)
    assert guidance_weights(sigmas, [0.5]).shape == (9, 1)
    for rule in ("closed", "repo"):
        both = guidance_weights(sigmas, [0.0, 0.4, 0.0], rule=rule)
        assert (both[:, [0, 2]] == 1).all() and both.dtype == np.float64
        assert (guidance_weights(sigmas, np.zeros(3), rule=rule) == 1).all()
    # Of given views alone every triple is as good: the first one.
    assert search_guidance(sigmas, np.zeros(3)) == pytest.approx((0.001, 50.0, 10.0))


def test_bad_input() -> None:
    for sigmas, distances, v, words in (
        ([1.0], [0.5], (1, 1, 1), "two finite levels"),
        ([1.0, 2.0], [0.5], (1, 1, 1), "decrease"),
        ([2.0, 1.0], [1.5], (1, 1, 1), "in \\[0, 1\\]"),
        ([2.0, 1.0], [0.5], (0, 1, 1), "positive"),
        ([2.0, 1.0], [0.5], (np.nan, 1, 1), "positive"),
    ):
        with pytest.raises(ValueError, match=words):
            guidance_weights(sigmas, distances, v)
    with pytest.raises(ValueError, match="rule"):
        guidance_weights([2.0, 1.0], [0.5], rule="best")  # type: ignore[arg-type]
