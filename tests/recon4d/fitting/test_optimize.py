"""Who moves when: the stages of the optimiser, step by step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.paths.path_field import PathField
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
    last = fit.field.table if isinstance(fit.field, PathField) else fit.field.head.weight
    return bool(last.abs().sum() > 0)


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


@pytest.mark.parametrize(("rests", "first"), [([0.0], [0, 1]), ([0.0, 1.0], [0, 11]), ([4 / 11], [4])])
def test_times_join_in_outwards_from_the_times_of_rest(
    moving_ball: dict[str, np.ndarray], rests: list[float], first: list[int]
) -> None:
    pool = optimize.views(load_frames(moving_ball["dynamic_orbit"]))
    joined = [optimize._within_reach(pool, rests, progress) for progress in (0.0, 0.2, 0.4, 0.8, 1.0)]
    assert [view.index for view in joined[0]] == first
    assert joined[-1] == pool
    for before, after in pairwise(joined):
        assert {view.index for view in before} <= {view.index for view in after}


def test_what_joined_in_last_is_looked_at_more_often(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the half of the unrolling the six last times get half of the steps, and their share of the rest."""
    dynamic, static = (load_frames(moving_ball[rig]) for rig in ("dynamic_orbit", "static_orbit"))
    inputs = Inputs(dynamic, static.at_time(0.0), {}, [])
    settings = reconstruction.anchored(tiny_settings, inputs)
    assert settings.deformation["rests"] == [0.0]
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, 0), settings, 0)
    fit.stage = "fine"
    pools = (optimize.views(dynamic), optimize.views(static, len(dynamic)))
    half = settings.unroll_share / 2
    drawn = [optimize._choose(fit, pools, settings, half, True) for _ in range(2000)]
    inside = optimize._within_reach(pools[0], [0.0], 0.5)
    last = {view.index for view in inside[-optimize.FRONTIER :]}
    of_video = [view for view in drawn if view.index < len(dynamic)]
    assert {view.index for view in of_video} == {view.index for view in inside}
    # Of 2,000 draws; 4 standard deviations of each share are below 0.045.
    assert abs(sum(view.index in last for view in drawn) / 2000 - (0.5 + 0.375 * 6 / len(inside))) < 0.045
    assert abs(1 - len(of_video) / 2000 - 0.125) < 0.045
    late = {optimize._choose(fit, pools, settings, 0.99, True).index for _ in range(500)}
    assert late >= set(range(len(dynamic)))


def test_depths_settle_at_their_shares_from_the_times_that_joined_in(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[float], np.ndarray, list[bool]]] = []
    settle = PathField.settle_depths

    def noted(field: PathField, times: torch.Tensor, centres: torch.Tensor, seen: torch.Tensor) -> None:
        calls.append((times.tolist(), centres.numpy(), seen.tolist()))
        settle(field, times, centres, seen)

    monkeypatch.setattr(PathField, "settle_depths", noted)
    settings = replace(tiny_settings, coarse_steps=4, fine_steps=40, path_share=1.0)
    fitted(moving_ball, replace(settings, unroll_share=0.5, depth_shares=(0.25, 0.5, 1.0)))
    dynamic = load_frames(moving_ball["dynamic_orbit"])
    assert len(calls) == 3
    for times, centres, _ in calls:
        assert times == pytest.approx(list(dynamic.time))
        np.testing.assert_allclose(centres, [camera.position for camera in dynamic.cameras], atol=1e-5)
    # The ball's one time of rest is 0: half of the way there is half of the times.
    assert calls[0][2] == [time <= 0.6 for time in dynamic.time]
    assert all(calls[1][2]) and all(calls[2][2])
    calls.clear()
    fitted(moving_ball, replace(settings, depth_shares=()))
    assert not calls


def test_where_two_cameras_see_a_time_depths_are_theirs(
    moving_ball: dict[str, np.ndarray], tiny_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("depths were settled")

    monkeypatch.setattr(PathField, "settle_depths", never)
    field = PathField([0.0, 0.5, 1.0], [0.0], n_nodes=4)
    video = optimize.views(load_frames(moving_ball["dynamic_orbit"]))
    twice = [*video, replace(video[0], camera=video[6].camera)]
    optimize._settle_depths(field, twice, tiny_settings, 0.0, 1.0)
    with pytest.raises(AssertionError, match="settled"):
        optimize._settle_depths(field, video, tiny_settings, 0.0, 1.0)


@pytest.mark.parametrize("shares", [(0.0,), (0.4, 1.2), (float("nan"),)])
def test_shares_outside_the_stage_are_refused(tiny_settings: Any, shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="depth_shares"):
        replace(tiny_settings, depth_shares=shares)


def test_colours_learn_to_depend_on_the_view(
    tmp_path: Any, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    fit = fitted(moving_ball, replace(tiny_settings, coarse_steps=20, fine_steps=0, sh_degree=1))
    assert fit.gaussians.sh_degree == 1 and fit.gaussians.harmonics.abs().sum() > 0
    save_ply(fit.gaussians, tmp_path / "a.ply")
    torch.testing.assert_close(load_ply(tmp_path / "a.ply").harmonics, fit.gaussians.harmonics.detach())
