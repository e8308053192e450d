"""Samples from an asset's own noise: the prediction against pictures whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.render.planning.sample_count import PROBE_SAMPLES, quality_at_probe, samples_for


def noisy(sigma: float, seed: int, size: int = 64) -> np.ndarray:
    """A grey disc with Gaussian noise of standard deviation `sigma` of 255 in its colour."""
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    alpha = np.where(np.hypot(x, y) < size / 3, 255, 0)
    rng = np.random.default_rng(seed)
    colour = 128 + rng.normal(0.0, sigma, (size, size, 3))
    return (
        np.concatenate([np.clip(colour, 0, 255) * (alpha[..., None] > 0), alpha[..., None]], -1)
        .round()
        .astype(np.uint8)
    )


@pytest.mark.parametrize("sigma", [1.5, 6.0, 20.0])
def test_a_pair_tells_the_distance_to_the_truth(sigma: float) -> None:
    db, similarity = quality_at_probe([(noisy(sigma, 1), noisy(sigma, 2))])
    # The disc fills π/4 of its box.
    expected = -10.0 * np.log10((sigma / 255.0) ** 2 * np.pi / 4)
    assert db == pytest.approx(expected, abs=0.5)
    assert 0.0 < similarity < 1.0


def test_the_size_of_the_picture_around_the_object_does_not_matter() -> None:
    a, b = noisy(8.0, 1), noisy(8.0, 2)
    wide = [np.pad(x, ((40, 40), (90, 90), (0, 0))) for x in (a, b)]
    assert quality_at_probe([(a, b)]) == pytest.approx(quality_at_probe([tuple(wide)]))


def test_more_noise_takes_more_samples_within_the_limits() -> None:
    counts = [
        samples_for(quality_at_probe([(noisy(s, 1), noisy(s, 2))]), 37.0, 0.976, 8, 64)
        for s in (0.5, 2, 4, 6, 40)
    ]
    assert counts == sorted(counts)
    assert counts[0] == 8 and counts[-1] == 64 and len(set(counts)) >= 3


def test_noise_free_pictures_take_the_least() -> None:
    assert samples_for(quality_at_probe([(noisy(0, 1), noisy(0, 1))]), 37.0, 0.976, 8, 64) == 8


def test_the_target_at_the_probe_itself_takes_the_probes_samples() -> None:
    assert samples_for((37.0, 0.976), 37.0, 0.976, 1, 64) == PROBE_SAMPLES
    assert samples_for((33.5, 1.0), 37.0, 0.976, 1, 64) == 2 * PROBE_SAMPLES
