"""Density control: who multiplies, who goes, and what survives of the optimiser's memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.density import Density, DensityState
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.settings import PRESETS, DensitySettings
from orbit4d.recon4d.fitting.state import new_fit, replace_gaussians
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.inputs.loading import load_frames

S = DensitySettings(every=10, grow_gradient=1.0, split_scale=0.02, prune_opacity=0.01, max_gaussians=100)


def gaussians(scales: list[float], opacities: list[float]) -> Gaussians:
    n = len(scales)
    return Gaussians(
        means=torch.arange(n, dtype=torch.float32).unsqueeze(1).repeat(1, 3),
        log_scales=torch.tensor(scales).log().unsqueeze(1).repeat(1, 3),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        logits=torch.logit(torch.tensor(opacities)),
        colors=torch.linspace(0, 1, n).unsqueeze(1).repeat(1, 3),
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_small_ones_are_cloned_large_ones_split_faint_ones_go() -> None:
    # quiet, small and wanted, large and wanted, faint
    before = gaussians([0.01, 0.01, 0.1, 0.01], [0.5, 0.5, 0.5, 0.001])
    state = DensityState(torch.tensor([0.0, 4.0, 4.0, 0.0]), torch.full((4,), 2.0))
    after, origin = Density(S).round(before, state, generator())
    # the quiet one, the small one twice, and two halves of the large one
    assert origin.tolist() == [0, 1, -1, -1, -1]
    torch.testing.assert_close(after.means[2], before.means[1])
    torch.testing.assert_close(after.scales[3:], torch.full((2, 3), 0.1 / 1.6))
    assert (after.means[3:] - before.means[2]).norm(dim=1).max() < 0.5, "halves lie within the old one"
    assert not torch.equal(after.means[3], after.means[4])


def test_the_neediest_grow_where_room_is_short() -> None:
    before = gaussians([0.01] * 6, [0.5] * 6)
    state = DensityState(torch.tensor([2.0, 9.0, 3.0, 8.0, 4.0, 5.0]), torch.ones(6))
    after, origin = Density(replace(S, max_gaussians=8)).round(before, state, generator())
    assert len(after) == 8
    assert sorted(after.means[origin < 0, 0].tolist()) == [1.0, 3.0]


def test_gradients_count_only_where_a_gaussian_was_seen() -> None:
    state = DensityState.empty(2)
    means2d = torch.zeros(1, 2, 2, requires_grad=True)
    (means2d * torch.tensor([3.0, 4.0])).sum().backward()
    Density(S).observe(state, means2d, torch.tensor([[[1, 1], [0, 0]]]), width=2, height=2)
    assert state.gradient.tolist() == [5.0, 0.0] and state.seen.tolist() == [1.0, 0.0]


def test_rounds_take_place_in_their_part_of_the_stage() -> None:
    density = Density(replace(S, every=10, start=0.2, stop=0.5))
    assert [step for step in range(101) if density.due(step, 100)] == [20, 30, 40, 50]
    assert not Density(DensitySettings(every=0)).due(0, 100)


def test_fading_leaves_nobody_opaque() -> None:
    g = gaussians([0.01] * 3, [0.9, 0.5, 0.005])
    Density(S).fade(g)
    torch.testing.assert_close(g.opacities, torch.tensor([0.02, 0.02, 0.005]))


def test_survivors_keep_their_moments_in_adam() -> None:
    fit = new_fit(gaussians([0.01, 0.01, 0.1], [0.5, 0.001, 0.5]), PRESETS["fast"], 0)
    names = [name for name in fit.adam.groups if name != "field"]
    fit.adam.row(0).copy_(2 * fit.adam.values)
    fit.adam.step(1, names)
    kept = fit.adam.part(fit.adam.first, "means").view(-1, 3).clone()
    assert kept.abs().sum() > 0
    state = DensityState(torch.tensor([0.0, 0.0, 9.0]), torch.ones(3))
    replace_gaussians(fit, *Density(S).round(fit.gaussians, state, generator()))
    moments = fit.adam.part(fit.adam.first, "means").view(-1, 3)
    assert [fit.adam.groups[name].updates for name in (*names, "field")] == [1] * len(names) + [0]
    assert fit.gaussians.means.data_ptr() == fit.adam.part(fit.adam.values, "means").data_ptr()
    torch.testing.assert_close(moments[0], kept[0])
    assert len(moments) == 3 and (moments[1:] == 0).all()
    assert len(fit.density.seen) == 3


def test_an_optimisation_grows_where_it_needs_to(moving_ball: dict[str, np.ndarray]) -> None:
    growing = DensitySettings(every=10, start=0.0, stop=1.0, grow_gradient=1e-5, max_gaussians=400)
    settings = replace(PRESETS["published"], n_gaussians=200, coarse_steps=30, fine_steps=20, density=growing)
    frames = load_frames(moving_ball["dynamic_orbit"])
    inputs = Inputs(frames, None, {}, [])
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, 0), settings, 0)
    optimize.optimise(fit, frames, None, settings)
    assert 200 < len(fit.gaussians) <= 400
    assert all(len(t) == len(fit.gaussians) for t in fit.gaussians.tensors().values())


def test_no_round_judges_by_fewer_steps_than_there_are_views() -> None:
    density = Density(replace(S, every=10, start=0.0, stop=1.0))
    assert [step for step in range(1, 101) if density.due(step, 100, 10)] == list(range(10, 101, 10))
    assert [step for step in range(1, 101) if density.due(step, 100, 24)] == [30, 60, 90]


def test_one_view_that_saw_a_gaussian_is_not_taken_for_its_mean() -> None:
    before = gaussians([0.01, 0.01], [0.5, 0.5])
    # 1.5 in one of fifty steps, and 1.5 on average of fifty
    state = DensityState(torch.tensor([1.5, 75.0]), torch.tensor([1.0, 50.0]))
    _, origin = Density(S).round(before, state, generator())
    assert origin.tolist() == [0, 1, -1], "only the second one multiplies"


def test_opacity_is_never_reset_where_nothing_is_left_to_mend_it() -> None:
    density = Density(replace(S, reset_every=25, start=0.1, stop=0.6))
    assert [step for step in range(1, 101) if density.fades(step, 100)] == [25, 50]
    assert not Density(S).fades(0, 100)


def test_centres_are_skinned_anew_after_the_last_round_too(
    one_thread: None, moving_ball: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DensitySettings(every=20, start=0.0, stop=0.1, grow_gradient=1e9)
    field = {"kind": "nodes", "n_nodes": 10, "width": 8}
    settings = replace(
        PRESETS["fast"], n_gaussians=60, coarse_steps=0, fine_steps=251, resolution=16, density=few,
        deformation=field,
    )  # fmt: skip
    frames = load_frames(moving_ball["dynamic_orbit"]).resized(16)
    inputs = Inputs(frames, None, {}, [])
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, 0), settings, 0)
    bound: list[int] = []
    bind = fit.field.bind
    monkeypatch.setattr(fit.field, "bind", lambda means: (bound.append(fit.step), bind(means))[1])
    optimize.optimise(fit, frames, None, settings)
    # So few Gaussians may lose the object; a field that is begun again binds them too.
    assert sorted(set(bound) - set(fit.restarts)) == [0, 20, 250]
