"""The conditional mean given the warp, for a denoiser that knows its own uncertainty.

The covariance of a clean sample given its noisy state is sigma^2 J, J the denoiser's Jacobian (Tweedie,
second order). So the mean given the warp too is mu + sigma^2 J' u with (A sigma^2 J A' + R) u = X - mu over
the seen values: solved by conjugate gradients, each product one backward pass. No iteration is PiGDM (Song et
al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orbit4d.model.guided.modes import Problem, followed, kept

Product = Callable[[Tensor], Tensor]


def exact_likelihood(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """One step towards the conditional mean.

    The warp's variance is R = r^2 (1 - w) / w with r^2 = sigma^2 / (1 + sigma^2), the variance of
    unit-variance data given its noisy state: with a single value that is exactly the weight w.
    """
    schedule, sigma = problem.schedule, problem.sigma(i)
    state = schedule.to_ve(x, i).detach()
    with torch.enable_grad():
        state.requires_grad_(True)
        mu = followed(problem.clean(state, i))
    used = (problem.seen & (weights > 0)).to(mu.dtype)
    spread = sigma**2 / (1 + sigma**2)
    noise = spread * (1 - weights) / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    noise = torch.where(used > 0, noise, torch.zeros_like(noise))
    gap = used * (problem.warp - mu.detach())

    def covariance(u: Tensor) -> Tensor:
        return sigma**2 * _product(problem, i, state, mu, u)

    moved = conjugate_gradients(covariance, gap, noise, used, spread, problem.settings.iterations)
    x0 = mu.detach() + moved
    raw = schedule.from_x0(mu.detach(), i, x)
    with torch.no_grad():
        return schedule.step(kept(raw, schedule.from_x0(x0, i, x), weights), i, x)


def conjugate_gradients(
    covariance: Product, gap: Tensor, noise: Tensor, used: Tensor, spread: float, iterations: int
) -> Tensor:
    """sigma^2 J' u for the u that solves (used sigma^2 J used + noise) u = gap, per sample of the batch.

    `iterations` + 1 products: those with the search directions add up to the one with u. A sample stops at a
    relative residual of 1e-12 in float64 and 1e-6 in float32, or where the curvature is not positive.
    """
    u = gap / (spread + noise)
    sum_ = covariance(u)
    if iterations == 0:
        return sum_
    residual = gap - used * sum_ - noise * u
    direction = residual
    limit = (1e-12 if gap.dtype == torch.float64 else 1e-6) ** 2 * _dot(gap, gap)
    square = _dot(residual, residual)
    for _ in range(iterations):
        going = square > limit
        if not going.any():
            break
        product = covariance(direction)
        bent = used * product + noise * direction
        curvature = _dot(direction, bent)
        going = going & (curvature > 0)
        step = torch.where(going, square / torch.where(going, curvature, torch.ones_like(curvature)), 0.0)
        sum_ = sum_ + step * product
        residual = residual - step * bent
        after = _dot(residual, residual)
        ratio = torch.where(going, after / torch.where(going, square, torch.ones_like(square)), 0.0)
        direction = residual + ratio * direction
        square = torch.where(going, after, torch.zeros_like(after))
    return sum_


def _product(problem: Problem, i: int, state: Tensor, mu: Tensor, u: Tensor) -> Tensor:
    """J' u by one backward pass; or half of J' u + J u, since a network's Jacobian is not symmetric."""
    (back,) = torch.autograd.grad(mu, state, u, retain_graph=True)
    if problem.settings.products == "transpose":
        return back
    both = torch.func.jvp(lambda s: problem.clean(s, i), (state.detach(),), (u,))
    return (back + both[1]) / 2


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3, 4), keepdim=True)
