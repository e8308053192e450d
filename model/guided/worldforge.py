"""WorldForge's rule (Song et al., arXiv 2509.15130): fuse with the warp, re-noise, and correct the second
pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orbit4d.model.guided.gating.channels import LEAST_CHANNELS, channel_scores, left_out
from orbit4d.model.guided.modes import Problem, kept
from orbit4d.model.guided.soft_mask import soft_mask


def refined(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """One step by recursive refinement, while sigma is at least `until`; a plain step after.

    The clean estimate is fused with the warp where it is seen and noised again to the same level; the output
    there is pushed away from the first one, which the warp had not entered. Channels that the fusion makes
    move otherwise keep the model's own estimate, where there are at least 16.
    """
    schedule, sigma = problem.schedule, problem.sigma(i)
    with torch.no_grad():
        first = problem.output(x, i)
        if sigma < problem.settings.until:
            return schedule.step(first, i, x)
        mu = schedule.to_x0(first, i, x)
        fused = torch.where(problem.seen, torch.lerp(mu, problem.warp, weights * _softened(problem, x)), mu)
        fused = _gated(problem, i, mu, fused)
        noise = torch.randn(x.shape, generator=problem.generator, dtype=x.dtype, device=_home(problem, x))
        again = kept(x, schedule.from_ve(fused + sigma * noise.to(x.device), i), weights)
        second = problem.output(again, i)
        if problem.prediction == "flow":
            output = self_corrected(second, first, problem.settings.omega)
        else:
            # The published rule compares predictions of noise, whatever the network predicts.
            before = (schedule.to_ve(x, i) - mu) / sigma
            state = schedule.to_ve(again, i)
            after = (state - schedule.to_x0(second, i, again)) / sigma
            x0 = state - sigma * self_corrected(after, before, problem.settings.omega)
            output = schedule.from_x0(x0, i, again)
        return schedule.step(kept(first, output, weights), i, again)


def self_corrected(good: Tensor, worse: Tensor, omega: float) -> Tensor:
    """`good` pushed on along its part orthogonal to `worse` (DSG), per sample over all elements.

    good + omega sqrt(1 - c^2) (good - |good| / |worse| c worse), c the cosine between both.
    """
    flat_good, flat_worse = good.flatten(1), worse.flatten(1)
    norm_good, norm_worse = (v.norm(dim=1) for v in (flat_good, flat_worse))
    both = (norm_good * norm_worse).clamp(min=torch.finfo(good.dtype).tiny)
    cosine = ((flat_good * flat_worse).sum(1) / both).clamp(-1, 1)
    shape = (-1, *([1] * (good.ndim - 1)))
    ratio = norm_good / norm_worse.clamp(min=torch.finfo(good.dtype).tiny) * cosine
    across = good - ratio.view(shape) * worse
    return good + omega * (1 - cosine.square()).clamp(min=0).sqrt().view(shape) * across


def _gated(problem: Problem, i: int, mu: Tensor, fused: Tensor) -> Tensor:
    """The fused estimate [B, C, F, h, w] without the channels that it makes move otherwise, per sample."""
    if mu.shape[1] < LEAST_CHANNELS or not left_out(torch.ones(mu.shape[1]), i, problem.steps):
        return fused
    fused = fused.clone()
    for k, (own, mixed) in enumerate(zip(mu.detach().cpu(), fused.detach().cpu())):
        channels = left_out(channel_scores(own.numpy(), mixed.numpy()), i, problem.steps)
        fused[k, channels] = mu[k, channels]
        problem.left_out.append((i, channels))
    return fused


def _softened(problem: Problem, x: Tensor) -> Tensor:
    """What is seen fades towards its border over `soften` latents; 1 where that is 0."""
    if not problem.settings.soften > 0:
        return torch.ones((), dtype=x.dtype, device=x.device)
    mask = soft_mask(problem.seen.cpu().numpy(), problem.settings.soften)
    return torch.from_numpy(mask).to(x.device, x.dtype)


def _home(problem: Problem, x: Tensor) -> torch.device:
    return problem.generator.device if problem.generator is not None else x.device
