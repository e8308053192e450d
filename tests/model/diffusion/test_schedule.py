"""Schedules against the upstream sampler's numbers, and the laws of noising and prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from orbit4d.model.diffusion.guidance import classifier_free
from orbit4d.model.diffusion.losses import (
    add_noise,
    clean_estimate,
    convert_prediction,
    offset_noise,
    prediction_target,
    signal_and_noise,
)
from orbit4d.model.diffusion.schedule import BASES, PREDICTIONS, betas, make_scheduler, refine

LIMIT = 1e-5  # float32 arithmetic over five steps; seen 2.4e-6


@pytest.fixture(params=["text", "image"])
def upstream(request, shared):
    name = {"text": "t2v", "image": "i2v"}[request.param]
    with np.load(shared / "fixtures" / "videomv" / f"schedule_{name}.npz") as file:
        return request.param, {key: torch.from_numpy(np.asarray(file[key])) for key in file}


def error(a, b):
    return (a.double() - b.double()).abs().max().item()


def test_tables_are_upstreams(upstream):
    kind, numbers = upstream
    assert error(torch.from_numpy(betas(kind)), numbers["betas"]) < 1e-12
    scheduler = make_scheduler(kind)
    assert error(scheduler.alphas_cumprod, numbers["alphas_cumprod"]) < 6e-8
    assert error(scheduler.final_alpha_cumprod, numbers["alphas_cumprod"][0]) < 6e-8


def test_ddim_trajectory_is_upstreams(upstream):
    kind, numbers = upstream
    scheduler = make_scheduler(kind)
    scheduler.set_timesteps(int(numbers["toy_steps"]))
    assert scheduler.timesteps.tolist() == numbers["ddim_timesteps"].tolist()
    x = numbers["noise"]
    for i, t in enumerate(scheduler.timesteps):
        step = scheduler.step(numbers["toy_a"].float() * x, t, x)
        x = step.prev_sample
        assert error(x, numbers["ddim_xt"][i]) < LIMIT
        assert error(step.pred_original_sample, numbers["ddim_x0"][i]) < LIMIT


def test_guided_trajectory_is_upstreams(upstream):
    kind, numbers = upstream
    scheduler = make_scheduler(kind)
    scheduler.set_timesteps(int(numbers["toy_steps"]))
    scale = float(numbers["cfg_scale"])
    assert scale == BASES[kind].guidance
    x = numbers["noise"]
    for i, t in enumerate(scheduler.timesteps):
        cond, uncond = (
            float(a) * x + float(b) * float(t) / 1000 for a, b in (numbers["cfg_cond"], numbers["cfg_uncond"])
        )
        x = scheduler.step(classifier_free(cond, uncond, scale), t, x).prev_sample
        assert error(x, numbers["cfg_xt"][i]) < LIMIT


def test_noising_and_velocity_are_upstreams(upstream):
    kind, numbers = upstream
    scheduler = make_scheduler(kind, "v_prediction")
    x0, noise, t = numbers["q_x0"], numbers["noise"], numbers["q_t"]
    assert error(add_noise(scheduler, x0, noise, t), numbers["q_xt"]) < LIMIT / 10
    assert error(prediction_target(scheduler, x0, noise, t), numbers["q_v_target"]) < LIMIT / 10
    assert error(scheduler.add_noise(x0, noise, t), numbers["q_xt"]) < LIMIT


# Laws -------------------------------------------------------------------------------------------------------


def test_what_each_base_was_trained_with():
    text, image = make_scheduler("text"), make_scheduler("image")
    assert (text.config.prediction_type, image.config.prediction_type) == ("epsilon", "v_prediction")
    assert text.alphas_cumprod[-1] > 0.004
    assert image.alphas_cumprod[-1] == 0
    assert make_scheduler("static3d").config == image.config
    for scheduler in (text, image):
        scheduler.set_timesteps(50)
        assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
        assert not scheduler.config.clip_sample
        assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0] < 1
    text.set_timesteps(7)
    assert text.timesteps.tolist() == [853, 711, 569, 427, 285, 143, 1]
    with pytest.raises(ValueError, match="schedule must be one of text, image"):
        make_scheduler("video")
    with pytest.raises(ValueError, match="prediction must be one of"):
        make_scheduler("text", "noise")


def test_refined_tables_survive_saving(tmp_path):
    scheduler = make_scheduler("image")
    scheduler.save_pretrained(tmp_path)
    again = DDIMScheduler.from_pretrained(tmp_path)
    assert not torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)
    refine(again)
    assert torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)
    assert torch.equal(again.final_alpha_cumprod, scheduler.final_alpha_cumprod)
    linear = DDIMScheduler(beta_schedule="linear")
    before = linear.alphas_cumprod.clone()
    assert torch.equal(refine(linear).alphas_cumprod, before)


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 2, 4, 4, generator=generator) for _ in range(2))
    return x0, noise, torch.tensor([1, 250, 700, 981])


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_perfect_prediction_gives_the_clean_latents_back(kind, prediction, drawn):
    x0, noise, t = drawn
    scheduler = make_scheduler(kind, prediction)
    x_t = add_noise(scheduler, x0, noise, t)
    target = prediction_target(scheduler, x0, noise, t)
    # From noise, rounding is multiplied by 1 / sqrt(ac), 46 at the worst of these steps.
    torch.testing.assert_close(clean_estimate(scheduler, target, x_t, t), x0, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        convert_prediction(scheduler, target, x_t, t, "v_prediction"),
        prediction_target(make_scheduler(kind, "v_prediction"), x0, noise, t),
        rtol=0,
        atol=2e-5,
    )
    if prediction != "sample":
        torch.testing.assert_close(
            convert_prediction(scheduler, target, x_t, t, "epsilon"), noise, rtol=0, atol=2e-5
        )


def test_conversions_are_inverse_to_one_another(drawn):
    x_t, output, t = drawn
    t = t.clamp(20, 900)
    for source in PREDICTIONS:
        for target in PREDICTIONS:
            there = convert_prediction(make_scheduler("text", source), output, x_t, t, target)
            back = convert_prediction(make_scheduler("text", target), there, x_t, t, source)
            torch.testing.assert_close(back, output, rtol=0, atol=2e-4)


def test_velocity_is_defined_at_zero_snr(drawn):
    x0, noise, _ = drawn
    t = torch.full((4,), 999)
    scheduler = make_scheduler("image")
    x_t = add_noise(scheduler, x0, noise, t)
    assert torch.equal(x_t, noise)
    estimate = clean_estimate(scheduler, prediction_target(scheduler, x0, noise, t), x_t, t)
    torch.testing.assert_close(estimate, x0)


def test_signal_and_noise_share_the_variance():
    signal, noise = signal_and_noise(make_scheduler("image"), torch.arange(1000), 2)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(1000, 1), rtol=0, atol=2e-7)
    assert (signal.diff(dim=0) < 0).all()


def test_half_precision_latents_are_noised_in_float32(drawn):
    x0, noise, t = drawn
    scheduler = make_scheduler("text")
    half = add_noise(scheduler, x0.bfloat16(), noise.bfloat16(), t)
    assert half.dtype == torch.float32
    expected = add_noise(scheduler, x0.bfloat16().float(), noise.bfloat16().float(), t)
    assert torch.equal(half, expected)


def test_offset_noise_is_one_constant_per_frame_and_channel(drawn):
    _, noise, _ = drawn
    generator = torch.Generator().manual_seed(1)
    added = offset_noise(noise, 0.1, generator) - noise
    constant = added[..., :1, :1]
    torch.testing.assert_close(added, constant.expand_as(added), rtol=0, atol=1e-6)
    assert constant.flatten().unique().numel() == constant.numel()
    assert offset_noise(noise, 0.0) is noise


def test_trailing_steps_start_from_pure_noise():
    scheduler = make_scheduler("image", "sample", "trailing")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    with pytest.raises(ValueError, match="spacing"):
        make_scheduler("image", spacing="middle")
