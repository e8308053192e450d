"""Flow matching's levels, weights and noising, against the released scheduler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from orbit4d.model import FlowTable, flow_levels
from orbit4d.model.diffusion.flow import flow_clean, flow_noised, flow_target


def test_levels_are_those_of_diffusers_given_plain_fractions() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, 51)[:-1])
    np.testing.assert_allclose(flow_levels(50), scheduler.sigmas.numpy(), atol=1e-6)
    assert flow_levels(50)[0] == 1 and flow_levels(50)[-1] == 0
    with pytest.raises(ValueError, match="needs steps"):
        flow_levels(0)


def test_table_weights_have_mean_one_and_leave_out_pure_noise() -> None:
    table = FlowTable.make()
    assert float(table.weights.mean()) == pytest.approx(1, abs=1e-5)
    assert float(table.weights[0]) == 0 and float(table.weights.max()) == pytest.approx(2.076, abs=1e-3)
    assert float((table.timesteps > 900).float().mean()) == pytest.approx(0.358, abs=1e-3)


def test_clean_estimate_undoes_noising() -> None:
    x0, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    sigma = torch.tensor([0.1, 0.5, 0.99])
    found = flow_clean(flow_target(x0, noise), flow_noised(x0, noise, sigma), sigma)
    torch.testing.assert_close(found, x0, atol=1e-5, rtol=0)


def test_released_schedule(shared: Path) -> None:
    stored = np.load(shared / "fixtures/syncammaster/schedule.npz")
    for steps in (4, 10, 50):
        np.testing.assert_allclose(flow_levels(steps)[:-1], stored[f"steps{steps}/sigmas"], atol=1e-6)
        np.testing.assert_allclose(
            flow_levels(steps)[:-1], stored[f"steps{steps}/timesteps"] / 1000, atol=1e-6
        )
    np.testing.assert_allclose(flow_levels(10, 3.0)[:-1], stored["shift3/sigmas10"], atol=1e-6)
    table = FlowTable.make()
    np.testing.assert_allclose(table.sigmas, stored["train/sigmas"], atol=1e-6)
    np.testing.assert_allclose(table.timesteps / 1000, stored["train/timesteps"] / 1000, atol=1e-6)
    np.testing.assert_allclose(table.weights, stored["train/weights"], atol=5e-6)
    x0, noise = (torch.from_numpy(stored[f"noising/{name}"]) for name in ("x0", "noise"))
    for index, x_t, weight in zip(stored["noising/index"], stored["noising/x_t"], stored["noising/weight"]):
        np.testing.assert_allclose(flow_noised(x0, noise, table.sigmas[index]), x_t, atol=1e-6)
        assert float(table.weights[index]) == pytest.approx(float(weight), abs=5e-6)
    np.testing.assert_allclose(flow_target(x0, noise), stored["noising/target"], atol=1e-6)
