"""Deterministic inversion: a clean sample walked up the schedule along a model's own estimates (DDIM)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orbit4d.model.distill.score_model import coefficients


def step_between(alphas_cumprod: Tensor, y: Tensor, noise: Tensor, t: Tensor, to: Tensor) -> Tensor:
    """The state at `to` [B] on the line that `noise` at t [B] means: alpha' (y - sigma n) / alpha + sigma'
    n.
    """
    alpha, sigma = coefficients(alphas_cumprod, t, y)
    alpha_to, sigma_to = coefficients(alphas_cumprod, to, y)
    return alpha_to * (y - sigma * noise) / alpha + sigma_to * noise


def inverted(
    noise: Callable[[Tensor, Tensor], Tensor], alphas_cumprod: Tensor, y: Tensor, end: int, stride: int
) -> Tensor:
    """The state at index `end`, from y [B, ...] at index 0 in steps of `stride` (the last one shorter).

    `noise(y, t)` is taken at the current index; there are ceil(end / stride) calls, none where `end` is 0.
    """
    at = 0
    while at < end:
        to = min(at + stride, end)
        here, there = (torch.full((len(y),), k, dtype=torch.int64) for k in (at, to))
        y = step_between(alphas_cumprod, y, noise(y, here), here, there)
        at = to
    return y
