"""The motion reconstruction loss, held against its formula written out by hand."""

from __future__ import annotations

import pytest
import torch

from orbit4d.model.diffusion.losses import (
    add_noise,
    diffusion_loss,
    motion_of_latents,
    motion_reconstruction_loss,
    residual_estimate,
)
from orbit4d.model.diffusion.schedule import make_scheduler


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 3, 5, 6, generator=generator) for _ in range(3)]


def test_motion_is_the_mean_over_frames_of_squared_norms(latents):
    z, static, _ = latents
    for b in range(2):
        by_hand = sum(torch.linalg.vector_norm(z[b, :, i] - static[b, :, i]) ** 2 for i in range(3)) / 3
        assert motion_of_latents(z, static)[b].item() == pytest.approx(by_hand.item(), rel=1e-5)
    per_element = motion_of_latents(z, static, per_element=True)
    torch.testing.assert_close(per_element * (4 * 5 * 6), motion_of_latents(z, static))
    assert motion_of_latents(z, z).abs().max() == 0


def test_loss_is_the_squared_difference_of_the_two_motions(latents):
    z0, estimate, static = latents
    expected = (motion_of_latents(z0, static) - motion_of_latents(estimate, static)) ** 2
    torch.testing.assert_close(motion_reconstruction_loss(z0, estimate, static), expected)
    per_element = motion_reconstruction_loss(z0, estimate, static, per_element=True)
    torch.testing.assert_close(per_element * (4 * 5 * 6) ** 2, expected)
    weight = torch.tensor([0.0, 2.0])
    torch.testing.assert_close(
        motion_reconstruction_loss(z0, estimate, static, weight=weight), expected * weight
    )


def test_loss_vanishes_for_equal_motion_of_another_shape(latents):
    """It measures how much moves, not where: a shuffled motion costs nothing."""
    z0, _, static = latents
    moved = static + (z0 - static).flip(-1)
    assert motion_reconstruction_loss(z0, moved, static).max() < 1e-6
    assert motion_reconstruction_loss(z0, static, static).min() > 1


def test_gradients_pull_a_still_estimate_towards_more_motion(latents):
    z0, estimate, static = latents
    weak = (static + 0.1 * (estimate - static)).requires_grad_()
    motion_reconstruction_loss(z0, weak, static).sum().backward()
    stepped = weak.detach() - 1e-4 * weak.grad
    before, after = (motion_of_latents(x, static) for x in (weak.detach(), stepped))
    assert (after > before).all()
    assert torch.isfinite(weak.grad).all()


def test_diffusion_loss_is_per_sample(latents):
    output, target, _ = latents
    expected = torch.stack([torch.nn.functional.mse_loss(output[b], target[b]) for b in range(2)])
    torch.testing.assert_close(diffusion_loss(output, target), expected)


@pytest.mark.parametrize("step", [5, 300, 900, 999])
def test_the_residual_guess_is_the_best_linear_one(step):
    """Over x0 that scatter around the source, no other factor on x_t - a * source comes nearer, and what is
    left has unit variance in the network's units."""
    generator = torch.Generator().manual_seed(0)
    scheduler, t = make_scheduler("image", "sample"), torch.tensor([step])
    source = torch.full((1, 4, 8, 32, 32), 0.4)
    clean = source + 0.25 * torch.randn(source.shape, generator=generator)
    noise = torch.randn(source.shape, generator=generator)
    noisy = add_noise(scheduler, clean, noise, t)
    nothing = torch.zeros_like(source)
    guess = residual_estimate(scheduler, nothing, source, noisy, t, 0.25)
    unit = residual_estimate(scheduler, nothing + 1, source, noisy, t, 0.25) - guess
    left = (clean - guess) / unit
    assert left.std().item() == pytest.approx(1.0, abs=0.02)
    if step < 900:  # later x_t shows so little that the factor is lost in the draw
        away = guess - source
        for factor in (0.9, 1.1):
            assert (clean - guess).square().mean() < (clean - source - factor * away).square().mean()
