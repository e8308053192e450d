"""Who moves when: the stages of the optimiser, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.gaussians import load_ply, save_ply
from orbit4d.recon4d.inputs.loading import load_frames


def fitted(moving_ball: dict[str, np.ndarray], settings: Any, with_static: bool = True) -> Fit:
    dynamic = load_frames(moving_ball["dynamic_orbit"])
    static = load_frames(moving_ball["static_orbit"]).at_time(0.0) if with_static else None
    inputs = Inputs(dynamic, static, {}, [])
    settings = reconstruction.anchored(settings, inputs)
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, 0), settings, 0)
    return optimize.optimise(fit, dynamic, static, settings)


def moves(fit: Fit) -> bool:
    return bool(fit.field.head.weight.abs().sum() > 0)


@pytest.mark.parametrize("with_static", [True, False])
def test_the_field_is_warmed_up_late_in_the_coarse_stage(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any, with_static: bool
) -> None:
    settings = replace(tiny_settings, coarse_steps=12, fine_steps=0)
    assert moves(fitted(moving_ball, replace(settings, deform_from=0.5), with_static))
    assert not moves(fitted(moving_ball, replace(settings, deform_from=1.1), with_static))


def test_the_video_joins_the_static_orbit_when_the_field_moves(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, bool]] = []
    choose = optimize._choose

    def noted(fit: Fit, pools: Any, settings: Any, progress: float, moving: bool) -> Any:
        view = choose(fit, pools, settings, progress, moving)
        seen.append((progress, any(view is one for one in pools[0])))
        return view

    monkeypatch.setattr(optimize, "_choose", noted)
    fitted(moving_ball, replace(tiny_settings, coarse_steps=40, fine_steps=0, deform_from=0.5))
    assert not any(of_video for progress, of_video in seen if progress < 0.5)
    late = [of_video for progress, of_video in seen if progress >= 0.5]
    assert any(late) and not all(late)


def test_moments_join_in_outwards_from_the_anchor(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    pool = optimize.views(load_frames(moving_ball["dynamic_orbit"]))
    field = {**tiny_settings.deformation, "anchor": 0.0}
    settings = replace(tiny_settings, deformation=field, unroll_share=0.5)
    counts = [len(optimize._within_reach(pool, settings, p)) for p in (0.0, 0.1, 0.2, 0.4, 0.5, 0.9)]
    assert counts == sorted(counts) and counts[0] == 2 and counts[-1] == len(pool)
    unanchored = replace(settings, deformation=tiny_settings.deformation)
    assert optimize._within_reach(pool, unanchored, 0.0) == pool


def test_colours_learn_to_depend_on_the_view(
    tmp_path: Any, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    fit = fitted(moving_ball, replace(tiny_settings, coarse_steps=20, fine_steps=0, sh_degree=1))
    assert fit.gaussians.sh_degree == 1 and fit.gaussians.harmonics.abs().sum() > 0
    save_ply(fit.gaussians, tmp_path / "a.ply")
    torch.testing.assert_close(load_ply(tmp_path / "a.ply").harmonics, fit.gaussians.harmonics.detach())
