"""Refinement by an exact prior: a Gaussian around the picture of the true composite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.compose.placement.scored import Prior, Union, settled
from orbit4d.compose.placement.shooting import overview
from orbit4d.model.distill import GaussianScore
from orbit4d.recon4d.gaussians import Gaussians, from_points

TAU = 0.1
SCHEDULE = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)
CAMERA = overview(np.array([-0.8, -0.8, 0]), np.array([0.8, 0.8, 1.0]), 20.0, 64)


def blob(seed: int, at: tuple[float, float, float], n: int = 60) -> Gaussians:
    rng = np.random.default_rng(seed)
    return from_points(rng.normal(size=(n, 3)) * 0.12 + at, rng.random((n, 3)), opacity=0.8)


SHOWN = Union(blob(0, (-0.3, 0.2, 0.4)), blob(1, (0, 0, 0.3)), np.eye(3), 0.0, CAMERA)
PLACE = torch.tensor([0.25, 0.0, 0.0])


def prior() -> Prior:
    with torch.no_grad():
        truth = SHOWN.image(torch.tensor(1.0), PLACE)[0]
    return Prior(GaussianScore(truth, 0.0, SCHEDULE), lambda image: image, guidance=0.0)


@pytest.mark.parametrize("wrong", [0.97, 1.03])
def test_a_scale_inside_the_bounds_is_found(wrong: float) -> None:
    found, at = settled(lambda v: SHOWN.image(v[0], PLACE), prior(), np.array([wrong]), TAU, 120, 0)
    assert abs(found[0] - 1.0) <= 0.002 and not at[0]


def test_a_scale_outside_ends_at_its_bound() -> None:
    found, at = settled(lambda v: SHOWN.image(v[0], PLACE), prior(), np.array([0.8]), TAU, 200, 0)
    assert 0.8 + 0.95 * TAU / 2 <= found[0] <= 0.8 + TAU / 2 and at[0]


def test_a_location_is_found_and_what_lies_beyond_is_reported() -> None:
    image = lambda v: SHOWN.image(torch.tensor(1.0), v)  # noqa: E731
    true = PLACE.double().numpy()
    found, at = settled(image, prior(), true + np.array([0.03, -0.02, 0.01]), TAU, 200, 0)
    assert np.abs(found - true).max() <= 0.002 and not at.any()
    far, bounds = settled(image, prior(), true + np.array([0.2, 0, 0]), TAU, 200, 0)
    assert bounds[0] and 0.95 * TAU / 2 <= true[0] + 0.2 - far[0] <= TAU / 2
    assert np.abs(far - true - np.array([0.2, 0, 0])).max() <= TAU / 2
    rest = [tensor.clone() for tensor in SHOWN.rest.tensors().values()]
    SHOWN.image(torch.tensor(1.0, requires_grad=True), PLACE).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(rest, SHOWN.rest.tensors().values(), strict=True))
    assert all(tensor.grad is None for tensor in SHOWN.actor.tensors().values())
