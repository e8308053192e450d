"""Guidance: the published formula's identities, the equality of spaces, and batched branches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orbit4d.model.diffusion.guidance import (
    Conditions,
    GuidanceWeights,
    classifier_free,
    guided_prediction,
    predict,
    push_away,
)
from orbit4d.model.diffusion.losses import convert_prediction
from orbit4d.model.diffusion.schedule import PREDICTIONS, make_scheduler


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 3, 4, 4, generator=generator) for _ in range(4)]


def test_without_the_base_w1_7_is_guidance_at_scale_8(outputs):
    full, uncond, base, _ = outputs
    guided = push_away(full, (7.0, uncond), (0.0, base))
    torch.testing.assert_close(guided, classifier_free(full, uncond, 8.0), rtol=1e-5, atol=1e-5)


def test_the_published_formula(outputs):
    full, uncond, base, _ = outputs
    expected = full + 7.0 * (full - uncond) + 0.5 * (full - base)
    assert torch.equal(push_away(full, (7.0, uncond), (0.5, base)), expected)
    assert (GuidanceWeights().conditions, GuidanceWeights().base) == (7.0, 0.5)


def test_agreeing_branches_are_left_alone(outputs):
    full = outputs[0]
    assert torch.equal(push_away(full, (7.0, full), (0.5, full)), full)
    assert push_away(full, (0.0, outputs[1])) is full
    assert torch.equal(classifier_free(full, full, 9.0), full)
    assert torch.equal(classifier_free(full, outputs[1], 0.0), outputs[1])


@pytest.mark.parametrize("kind", ["text", "image"])
def test_noise_velocity_and_clean_space_give_the_same_guidance(kind, outputs):
    full, uncond, base, x_t = outputs
    t = torch.tensor([201, 701])
    own = make_scheduler(kind)
    guided = push_away(full, (7.0, uncond), (0.5, base))
    for space in PREDICTIONS:
        there = [convert_prediction(own, output, x_t, t, space) for output in (full, uncond, base)]
        elsewhere = push_away(there[0], (7.0, there[1]), (0.5, there[2]))
        back = convert_prediction(make_scheduler(kind, space), elsewhere, x_t, t, own.config.prediction_type)
        torch.testing.assert_close(back, guided, rtol=0, atol=2e-4)


@pytest.fixture
def full(small_inputs):
    inputs = small_inputs("image")
    x_t, t = inputs.pop("sample"), inputs.pop("timestep")
    return x_t, t, Conditions(**inputs)


def test_branches_in_one_batch_are_the_branches_alone(small_unet, full):
    unet, (x_t, t, conditions) = small_unet("image", loud=True), full
    branches = [conditions, conditions.unconditional(), conditions.without_motion()]
    with torch.no_grad():
        together = predict(unet, x_t, t, branches)
        for branch, output in zip(branches, together):
            alone = predict(unet, x_t, t, [branch])[0]
            torch.testing.assert_close(output, alone, rtol=0, atol=1e-5)
        for size in (1, 3, 5):
            for a, b in zip(predict(unet, x_t, t, branches, max_batch=size), together):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_the_unconditional_branch_keeps_cameras_and_the_first_view(full):
    _, _, conditions = full
    negative = torch.full((1, 5, 48), 2.0)
    branch = conditions.unconditional(negative)
    assert branch.camera is conditions.camera
    assert branch.image_latents is conditions.image_latents
    assert branch.motion is None
    assert branch.image_embeddings is None
    assert torch.equal(branch.encoder_hidden_states, negative.expand(2, -1, -1))
    assert conditions.unconditional().encoder_hidden_states.abs().max() == 0


def test_guided_prediction_is_the_formula_over_three_passes(small_unet, full):
    unet, base = small_unet("image", loud=True), small_unet("image", loud=True, seed=1)
    x_t, t, conditions = full
    negative = torch.full((1, 5, 48), 0.5)
    with torch.no_grad():
        guided = guided_prediction(unet, x_t, t, conditions, negative, base)
        a = predict(unet, x_t, t, [conditions])[0]
        b = predict(unet, x_t, t, [conditions.unconditional(negative)])[0]
        c = predict(base, x_t, t, [conditions.without_motion()])[0]
    torch.testing.assert_close(guided, a + 7.0 * (a - b) + 0.5 * (a - c), rtol=0, atol=2e-4)


def test_motion_guidance_pushes_away_from_the_still_clip(small_unet, full):
    """And leaves alone what is conditioned on m = 0, or no motion at all."""
    unet, (x_t, t, conditions) = small_unet("image", loud=True), full
    weights = GuidanceWeights(0.0, 0.0, 1.5)
    with torch.no_grad():
        told = predict(unet, x_t, t, [conditions])[0]
        still = predict(unet, x_t, t, [replace(conditions, motion=torch.zeros(2))])[0]
        guided = guided_prediction(unet, x_t, t, conditions, weights=weights)
        assert (told - still).abs().max() > 1e-3
        torch.testing.assert_close(guided, told + 1.5 * (told - still), rtol=0, atol=1e-4)
        for motion in (torch.zeros(2), torch.full((2,), float("nan"))):
            same = replace(conditions, motion=motion)
            plain = predict(unet, x_t, t, [same])[0]
            torch.testing.assert_close(
                guided_prediction(unet, x_t, t, same, weights=weights), plain, rtol=0, atol=1e-5
            )


def test_branches_of_weight_zero_are_not_run(small_unet, full):
    unet, base = small_unet("image", loud=True), small_unet("image", seed=1)
    x_t, t, conditions = full
    batches = {"own": [], "base": []}
    unet.register_forward_pre_hook(
        lambda _m, _a, kw: batches["own"].append(len(kw["sample"])), with_kwargs=True
    )
    base.register_forward_pre_hook(
        lambda _m, _a, kw: batches["base"].append(len(kw["sample"])), with_kwargs=True
    )
    for weights, own, other in (
        (GuidanceWeights(), [4], [2]),
        (GuidanceWeights(base=0.0), [4], []),
        (GuidanceWeights(conditions=0.0), [2], [2]),
        (GuidanceWeights(conditions=0.0, base=0.0), [2], []),
        (GuidanceWeights(motion=2.0), [6], [2]),
    ):
        batches["own"].clear()
        batches["base"].clear()
        with torch.no_grad():
            guided = guided_prediction(unet, x_t, t, conditions, base=base, weights=weights)
        assert (batches["own"], batches["base"]) == (own, other)
    with torch.no_grad():
        plain = predict(unet, x_t, t, [conditions])[0]
        weights = GuidanceWeights(conditions=0.0, base=0.0)
        guided = guided_prediction(unet, x_t, t, conditions, base=base, weights=weights)
    assert torch.equal(guided, plain)


def test_one_network_as_its_own_base_runs_all_branches_in_one_pass(small_unet, full):
    unet, twin = small_unet("image", loud=True), small_unet("image", loud=True)
    x_t, t, conditions = full
    with torch.no_grad():
        shared = guided_prediction(unet, x_t, t, conditions, base=unet)
        apart = guided_prediction(unet, x_t, t, conditions, base=twin)
    torch.testing.assert_close(shared, apart, rtol=0, atol=1e-4)


def test_an_image_base_sees_the_first_view_of_the_static_orbit(small_unet, small_inputs):
    inputs = small_inputs("static3d")
    inputs.pop("sample"), inputs.pop("timestep")
    conditions = Conditions(**inputs).for_base(small_unet("image"))
    assert conditions.static_latents is None
    assert torch.equal(conditions.image_latents, inputs["static_latents"][:, :, 0])
    assert conditions.motion is None
    kept = Conditions(**inputs).for_base(small_unet("static3d"))
    assert kept.static_latents is inputs["static_latents"]


def test_a_frozen_base_may_have_another_precision(small_unet, full):
    unet, base = small_unet("image"), small_unet("image", seed=1)
    x_t, t, conditions = full
    with torch.no_grad():
        expected = guided_prediction(unet, x_t, t, conditions, base=base)
        mixed = guided_prediction(unet, x_t, t, conditions, base=base.to(torch.bfloat16))
    assert mixed.dtype == torch.float32
    assert (mixed - expected).abs().max() < 0.1 * expected.abs().max()


def test_branches_in_half_precision_are_combined_in_float32(small_unet, full):
    unet, (x_t, t, conditions) = small_unet("image", loud=True), full
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        a, b = predict(unet, x_t, t, [conditions, conditions.unconditional()])
        guided = guided_prediction(unet, x_t, t, conditions)
    assert a.dtype == torch.bfloat16
    assert torch.equal(guided, push_away(a.float(), (7.0, b.float())))


def test_branches_that_cannot_share_a_pass_are_named(small_unet, full):
    unet, (x_t, t, conditions) = small_unet("image"), full
    with pytest.raises(ValueError, match="camera must be given to all branches"):
        predict(unet, x_t, t, [conditions, Conditions(image_latents=conditions.image_latents)])
    longer = conditions.unconditional(torch.zeros(1, 9, 48))
    with pytest.raises(ValueError, match="encoder_hidden_states must have one shape"):
        predict(unet, x_t, t, [conditions, longer])
