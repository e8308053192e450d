"""The motion reconstruction loss, held against its formula written out by hand."""

from __future__ import annotations

import pytest
import torch

from orbit4d.model.losses import diffusion_loss, motion_of_latents, motion_reconstruction_loss


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
