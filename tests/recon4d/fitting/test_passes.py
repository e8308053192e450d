"""When the fine stage may end: judged by whole passes over the views, never by one view."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.passes import LOST, Passes, compare
from orbit4d.recon4d.fitting.scores import failure
from orbit4d.recon4d.fitting.settings import LearningRates
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.inputs.loading import Frames, load_frames


def test_falling_losses_never_stall_however_uneven_the_views_are() -> None:
    rng = np.random.default_rng(5)
    scale = np.array([0.001, 1.0, 0.3, 7.0, 0.02])
    passes, stalls = Passes(), []
    # The easiest view comes first, as often as not several times.
    for step, view in enumerate([0, 0, *rng.integers(0, 5, 2000)], start=1):
        passes.note(int(view), float(scale[view]) * 0.9995**step, 20.0, step, 5)
        stalls.append(passes.stalled)
    assert max(stalls) < 100, "a pass over five views takes a dozen steps"
    assert passes.best == pytest.approx(scale.mean() * 0.9995**2000, rel=0.05)


def test_losses_that_stand_still_stall_from_the_first_whole_pass_on() -> None:
    passes = Passes()
    for step in range(1, 91):
        passes.note(step % 3, [0.1, 0.5, 0.2][step % 3], 20.0, step, 3)
    assert passes.best_step == 3 and passes.stalled == 87


def test_nothing_is_judged_before_every_view_was_drawn() -> None:
    passes = Passes()
    for step in range(1, 500):
        passes.note(step % 3, 0.1, 20.0, step, 4)
    assert passes.stalled == 0 and math.isinf(passes.best)
    assert passes.loss == pytest.approx(0.1), "the log has a loss all the same"
    assert math.isnan(Passes().loss)


def test_a_checkpoint_brings_a_pass_back_half_way() -> None:
    passes = Passes()
    for step in range(1, 12):
        passes.note(step % 5, 0.3 / step, 10.0 + step, step, 5)
    again = Passes.from_record(passes.record())
    assert again == passes and again.drawn


def test_a_view_is_compared_without_the_background_of_its_step() -> None:
    generator = torch.Generator().manual_seed(2)
    truth = torch.rand(7, 9, 4, generator=generator)
    assert compare(truth[..., :3], truth[..., 3:], truth) == (0.0, pytest.approx(100.0))
    color, alpha = torch.rand(7, 9, 3, generator=generator), torch.rand(7, 9, 1, generator=generator)
    loss, psnr = compare(color, alpha, truth)
    assert loss == pytest.approx(float((torch.cat([color, alpha], -1) - truth).abs().mean()), rel=1e-5)
    on_white = (color + 1 - alpha) - (truth[..., :3] + 1 - truth[..., 3:])
    assert psnr == pytest.approx(-10 * math.log10(float(on_white.square().mean())), rel=1e-5)


def uneven(rgba: np.ndarray) -> Frames:
    """A clip two thirds of whose views are seen from so wide an angle that the object is a dot."""
    frames = load_frames(rgba)
    h, w = frames.rgba.shape[1:3]
    images, cameras = [], []
    for i, (image, camera) in enumerate(zip(frames.rgba, frames.cameras)):
        if i % 3:
            small = image.reshape(h // 4, 4, w // 4, 4, 4).mean((1, 3))
            image = np.pad(small, ((h * 3 // 8,) * 2, (w * 3 // 8,) * 2, (0, 0)))
            camera = replace(camera, fl_x=camera.fl_x / 4, fl_y=camera.fl_y / 4)
        images.append(image)
        cameras.append(camera)
    return replace(frames, rgba=np.stack(images).astype(np.float32), cameras=tuple(cameras))


def run(frames: Frames, settings: Any, seed: int) -> Fit:
    inputs = Inputs(frames, None, {}, [])
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, seed), settings, seed)
    return optimize.optimise(fit, frames, None, settings)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hard_uneven_clip_runs_to_its_end(
    one_thread: None, moving_ball: dict[str, np.ndarray], tiny_settings: Any, seed: int
) -> None:
    settings = replace(tiny_settings, coarse_steps=40, fine_steps=420, patience=150, warmup_share=0.0)
    fit = run(uneven(moving_ball["dynamic_orbit"]), settings, seed)
    assert fit.step == 420
    assert set(fit.passes.latest) == set(range(12))


def test_a_fit_that_learns_nothing_ends_and_says_so(
    one_thread: None, tmp_path: Path, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    none = LearningRates(0, 0, 0, 0, 0, 0, 0)
    settings = replace(
        tiny_settings, coarse_steps=5, fine_steps=600, patience=60, warmup_share=0.2, rates=none
    )
    scene = reconstruct(moving_ball["dynamic_orbit"], tmp_path / "scene", settings=settings)
    rows = [json.loads(line) for line in (tmp_path / "scene" / "log.jsonl").read_text().splitlines()]
    stopped = scene.metrics["stopped"]
    steps = int(stopped.split()[2])
    # A fifth of 600 steps is at half the resolution, whose losses are not held against the full one's.
    assert 120 + 60 < steps < 600 and rows[-1]["step"] <= 5 + steps, stopped


def test_half_and_full_resolution_are_not_held_against_each_other(
    one_thread: None, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    frames = load_frames(moving_ball["dynamic_orbit"])
    settings = replace(tiny_settings, coarse_steps=0, fine_steps=160, warmup_share=0.5, patience=0)
    assert run(frames, settings, 0).passes.best_step > 80


def test_an_object_is_lost_when_no_view_has_it_any_more() -> None:
    solid, empty, smoke = torch.ones(2, 2, 4), torch.zeros(2, 2, 4), torch.full((2, 2, 4), 0.5)
    never, passes = Passes(), Passes()
    for _ in range(2 * LOST):
        never.meet(0.0, solid)
        passes.meet(3.0, solid)
    assert not never.lost, "what was never drawn solid is not lost"
    for _ in range(2 * LOST):
        passes.meet(0.0, empty)
        passes.meet(0.0, smoke)
    assert not passes.lost, "images without a solid pixel miss nothing"
    for _ in range(LOST):
        assert not passes.lost
        passes.meet(0.0, solid)
    assert passes.lost and Passes.from_record(passes.record()).lost
    passes.meet(1.0, solid)
    assert not passes.lost


def test_motion_that_throws_the_object_out_of_all_views_is_begun_anew(
    one_thread: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moving_ball: dict[str, np.ndarray],
    tiny_settings: Any,
) -> None:  # fmt: skip
    """Out of the views there is no gradient back: without a new beginning the fit ends with nothing."""
    settings = replace(tiny_settings, fine_steps=260)
    step, at = optimize.take_step, 100

    def thrown(fit: Fit, *arguments: Any) -> float:
        if fit.stage == "fine" and fit.step == at and not fit.restarts:
            with torch.no_grad():
                list(fit.field.parameters())[-1].copy_(torch.tensor([2.0] * 3 + [0.0] * 3))
        return step(fit, *arguments)

    monkeypatch.setattr(optimize, "take_step", thrown)
    ends = {}
    for most in (0, 3):
        monkeypatch.setattr(optimize, "MOST_RESTARTS", most)
        scene = reconstruct(moving_ball["dynamic_orbit"], tmp_path / str(most), settings=settings)
        ends[most] = scene.metrics
    assert ends[0]["failed"].startswith("the fit failed") and "restarted" not in ends[0]
    assert "begun again, at 0.5 of its rate" in ends[3]["restarted"] and "failed" not in ends[3]
    assert ends[3]["psnr_train"] > ends[0]["psnr_train"] + 4


def test_a_failed_fit_is_called_so(moving_ball: dict[str, np.ndarray]) -> None:
    frames = load_frames(moving_ball["dynamic_orbit"])
    white = frames.rgba[..., :3] + 1 - frames.rgba[..., 3:]
    nothing = np.mean([-10 * np.log10(np.square(1 - image).mean()) for image in white])
    assert "an empty image" in (failure(nothing + 0.9, frames, None) or "")
    assert failure(nothing + 1.1, frames, None) is None
    assert "as if the object stood still" in (failure(nothing + 4, frames, nothing + 5.1) or "")
    assert failure(nothing + 4, frames, nothing + 4.9) is None
