"""Rules of guidance: how one step is pulled towards the warp. Each leaves frames of weight 0 as they are.

Tensors are [B, C, F, h, w], weights [1, 1, F, 1, 1]. NVS-Solver (You et al., ICLR 2025); the `repo_` rules
are those of its released code, slips included, for parity.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.model.guided.schedules import Schedule


@dataclass(frozen=True)
class Settings:
    """Numbers of the rules; see `guided_sample`."""

    iterations: int = 5
    lr: float = 0.02
    clamp: float = 0.2
    omega: float = 4.0
    until: float = 5.5
    products: Literal["transpose", "symmetric"] = "transpose"
    tile_row: int = 32
    soften: float = 0.0


@dataclass(frozen=True)
class Problem:
    """A denoiser on a schedule, and what is known of its result."""

    denoiser: Any
    schedule: Schedule
    warp: Tensor
    """[B or 1, C, F, h, w], 0 where unseen."""
    seen: Tensor
    """bool [B or 1, 1, F, h, w]"""
    settings: Settings
    generator: torch.Generator | None
    table: npt.NDArray[np.float64]
    """Weights [N, F]."""
    whole: Tensor
    """bool [B or 1, 1, F, h, w]: what the released rules take as given, hidden parts included."""
    two_views: bool
    """Whether the last frame is given too."""
    left_out: list[tuple[int, list[int]]] = field(default_factory=list)
    """Of "worldforge", appended to: a step, and the channels that kept the model's own estimate there."""

    @property
    def steps(self) -> int:
        """N."""
        return len(self.schedule.sigmas) - 1

    @property
    def prediction(self) -> str:
        """Space of the outputs that the schedule's steps take."""
        told = getattr(self.schedule, "prediction", None) or getattr(self.denoiser, "prediction", None)
        return told or "x0"

    def sigma(self, i: int) -> float:
        """Noise level before step i."""
        return float(self.schedule.sigmas[i])

    def shares(self, i: int, least: float = 0.0) -> Tensor:
        """Weights of step i in float64 [1, 1, F, 1, 1], at least `least`: counts are cut off from them."""
        return torch.from_numpy(self.table[i].clip(least, 1.0)).to(self.warp.device).view(1, 1, -1, 1, 1)

    def output(self, x: Tensor, i: int) -> Tensor:
        """The denoiser's output at the state x before step i, in the schedule's space."""
        if hasattr(self.denoiser, "output"):
            return self.denoiser.output(x, i)  # type: ignore[no-any-return]
        x0 = self.denoiser(self.schedule.to_ve(x, i), self.sigma(i))
        return self.schedule.from_x0(x0.to(x.dtype), i, x)

    def clean(self, x_ve: Tensor, i: int) -> Tensor:
        """The clean estimate at a variance-exploding state; gradients flow if the denoiser lets them."""
        if hasattr(self.denoiser, "output"):
            x = self.schedule.from_ve(x_ve, i)
            return self.schedule.to_x0(self.denoiser.output(x, i).to(x.dtype), i, x)
        return self.denoiser(x_ve, self.sigma(i)).to(x_ve.dtype)  # type: ignore[no-any-return]


def direct(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """`dgs`: the clean estimate is blended with the warp where it is seen."""
    schedule = problem.schedule
    with torch.no_grad():
        raw = problem.output(x, i)
        mu = schedule.to_x0(raw, i, x)
        x0 = torch.where(problem.seen, torch.lerp(mu, problem.warp, weights), mu)
        return schedule.step(kept(raw, schedule.from_x0(x0, i, x), weights), i, x)


def posterior(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """`posterior`: the state moves down the gradient of the distance, taken through the network."""
    schedule, settings = problem.schedule, problem.settings
    state = schedule.to_ve(x, i).detach()
    with torch.enable_grad():
        state.requires_grad_(True)
        mu = followed(problem.clean(state, i))
        pull = torch.where(problem.seen, weights, torch.zeros_like(weights))
        loss = (pull * (mu - problem.warp).square()).sum((1, 2, 3, 4)) / pull.sum((1, 2, 3, 4)).clamp(
            min=1e-30
        )
        (gradient,) = torch.autograd.grad(loss.sum() / mu.shape[1], state)
    raw = schedule.from_x0(mu.detach(), i, x)
    # Independent of the number of steps: the published 0.02 belongs to 100 of them.
    size = settings.lr * (100 / problem.steps) * problem.sigma(i) ** 0.5
    moved = state.detach() - size * unit_deviation(gradient)
    return _from(problem, i, kept(x, schedule.from_ve(moved, i), weights), raw, weights)


def repo_direct(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """`repo-dgs`: the seen values nearest to the warp are replaced by it, a share of them as the weight
    says.
    """
    schedule = problem.schedule
    # Of two views the release floors the weights here too.
    shares = problem.shares(i, problem.settings.clamp if problem.two_views else 0.0)
    with torch.no_grad():
        raw = problem.output(x, i)
        mu = schedule.to_x0(raw, i, x)
        x0 = torch.where(chosen(problem, mu, shares), problem.warp, mu)
        return schedule.step(kept(raw, schedule.from_x0(x0, i, x), weights), i, x)


def repo_posterior(problem: Problem, i: int, x: Tensor, weights: Tensor) -> Tensor:
    """`repo-posterior`: the released gradient does not pass the network, so it moves what the warp sees
    only.
    """
    schedule, settings = problem.schedule, problem.settings
    with torch.no_grad():
        state = schedule.to_ve(x, i)
        # Frames without weight keep the whole output; else the conditional branch is enough.
        raw: Tensor | None = None
        if bool((weights == 0).any()) or not hasattr(problem.denoiser, "conditional"):
            raw = problem.output(x, i)
        floored = problem.shares(i, settings.clamp)
        gradient = torch.zeros_like(state)
        for rows, columns in reversed(tiles(state.shape[-2], state.shape[-1], settings.tile_row)):
            cut = {k: getattr(problem, k)[..., rows, columns] for k in ("warp", "seen", "whole")}
            part = replace(problem, **cut)
            mu = _conditional(problem, i, state, raw, rows, columns)
            away = torch.where(chosen(part, mu, floored), mu - part.warp, torch.zeros_like(mu))
            gradient[..., rows, columns] = unit_deviation(away)
        moved = state - settings.lr * problem.sigma(i) ** 0.5 * gradient
        return _from(problem, i, kept(x, schedule.from_ve(moved, i), weights), raw, weights)


def tiles(h: int, w: int, tile_row: int) -> list[tuple[slice, slice]]:
    """Windows of latents [h, w] in which the released code takes its gradient, earlier ones over later ones.

    Four of a full-size latent of 72 x 128, which are selected and scaled each for itself; else the whole.
    """
    if (h, w) != (72, 128):
        return [(slice(0, h), slice(0, w))]
    return [
        (rows, columns)
        for columns in (slice(0, 72), slice(56, 128))
        for rows in (slice(0, 40), slice(tile_row, 72))
    ]


def _conditional(
    problem: Problem, i: int, state: Tensor, raw: Tensor | None, rows: slice, columns: slice
) -> Tensor:
    """The clean estimate without classifier-free guidance in a window, seen by the network alone where it
    can be.
    """
    denoiser, sigma = problem.denoiser, problem.sigma(i)
    whole = (rows.stop - rows.start, columns.stop - columns.start) == tuple(state.shape[-2:])
    if not whole and hasattr(denoiser, "conditional_window"):
        found: Tensor = denoiser.conditional_window(state[..., rows, columns], sigma, rows, columns)
    elif hasattr(denoiser, "conditional"):
        found = denoiser.conditional(state, sigma)[..., rows, columns]
    else:
        assert raw is not None
        found = problem.schedule.to_x0(raw, i, problem.schedule.from_ve(state, i))[..., rows, columns]
    return found.to(state.dtype)


def chosen(problem: Problem, mu: Tensor, weights: Tensor) -> Tensor:
    """Which values the released code replaces [B, C, F, h, w].

    Per frame all C h w distances are sorted, 0 where hidden; the first `int(w (C n - m)) + m` are taken, m
    the number of hidden pixels. There are C m hidden values, not m: the share of seen values is less than w,
    and an index of 0 wraps around to the largest distance. Both belong to the rule.
    """
    b, c, f, h, w = mu.shape
    seen = problem.seen.expand(b, 1, f, h, w)
    distance = torch.where(seen, (mu - problem.warp).abs(), torch.zeros_like(mu))
    rows = distance.permute(0, 2, 1, 3, 4).reshape(b, f, -1)
    ordered = rows.sort(-1).values
    hidden = (~seen).sum((1, 3, 4))
    share = weights.view(1, f).expand(b, f)
    taken = (share * (c * h * w - hidden)).long() + hidden
    cut = ordered.gather(-1, ((taken - 1) % rows.shape[-1])[..., None])
    picked = (rows <= cut).reshape(b, f, c, h, w).permute(0, 2, 1, 3, 4) & seen
    return picked | problem.whole


def followed(mu: Tensor) -> Tensor:
    """An estimate as it is. ValueError where autograd did not follow the denoiser."""
    if not mu.requires_grad:
        raise ValueError("this mode takes gradients through the denoiser, which autograd does not follow")
    return mu


def unit_deviation(gradient: Tensor) -> Tensor:
    """Each sample divided by its standard deviation (unbiased, over all elements); 0 where that is 0."""
    spread = gradient.flatten(1).std(1).view(-1, 1, 1, 1, 1)
    return torch.where(spread > 0, gradient / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0)


def kept(raw: Tensor, guided: Tensor, weights: Tensor) -> Tensor:
    """The guided values where a frame has a weight, the raw ones of the others, to the bit."""
    return torch.where(weights == 0, raw, guided)


def _from(problem: Problem, i: int, x: Tensor, raw: Tensor | None, weights: Tensor) -> Tensor:
    """A plain step from a state that was moved: evaluated again."""
    with torch.no_grad():
        output = problem.output(x, i)
        return problem.schedule.step(output if raw is None else kept(raw, output, weights), i, x)
