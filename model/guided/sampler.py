"""One sampler for every denoiser and schedule, guided by a warp of what is known.

Counterpart of NVS-Solver (You et al., ICLR 2025). Where a step has no weight at all nothing is converted: the
network's output goes to the schedule as it is, so that weights of 0 are the unguided sampler to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.model.guided import modes, worldforge
from orbit4d.model.guided.exact_likelihood import exact_likelihood
from orbit4d.model.guided.modes import Problem, Settings
from orbit4d.model.guided.schedules import as_schedule, decreasing

Mode = Literal["dgs", "posterior", "exact-likelihood", "worldforge", "repo-dgs", "repo-posterior", "none"]
#: One guided step: the state after it.
Rule = Callable[[Problem, int, Tensor, Tensor], Tensor]

RULES: dict[str, Rule] = {
    "dgs": modes.direct,
    "posterior": modes.posterior,
    "exact-likelihood": exact_likelihood,
    "worldforge": worldforge.refined,
    "repo-dgs": modes.repo_direct,
    "repo-posterior": modes.repo_posterior,
}
MODES = (*RULES, "none")
#: What stands in for a rule where the level is infinite: the clean estimate is blended, or replaced.
AT_PURE_NOISE: dict[str, Rule] = {
    "posterior": modes.direct,
    "exact-likelihood": modes.direct,
    "worldforge": modes.direct,
    "repo-posterior": modes.repo_direct,
}


@dataclass(frozen=True)
class Guide:
    """What guides a sampler: a warp, what it sees, how far each step trusts it, and the rule."""

    warp: Tensor
    """Encoded warp [B or 1, C, F, h, w]; what is unseen is ignored."""
    seen: Tensor
    """bool [B or 1, 1, F, h, w]"""
    weights: npt.ArrayLike | Tensor | float | None
    """l / (1 + l) in [0, 1]: [N, F], a number, or None for 0."""
    mode: Mode = "dgs"
    settings: Settings = field(default_factory=Settings)
    evaluations: list[int] = field(default_factory=list)
    """Calls of the network, one number for each sampling that this guided."""
    left_out: list[tuple[int, list[int]]] = field(default_factory=list)
    """Of "worldforge": a step and the channels that kept the model's own estimate there, per sample."""

    def sample(
        self,
        denoiser: Any,
        schedule: Any,
        x: Tensor,
        generator: torch.Generator | None = None,
        callback: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """`guided_sample` with this guide; `generator` draws the noise of "worldforge"."""
        return guided_sample(
            denoiser, schedule, x, self.warp, self.seen, self.weights, self.mode, generator,
            **asdict(self.settings), callback=callback, left_out=self.left_out,
        )  # fmt: skip


def guided_sample(
    denoiser: Any,
    schedule: Any,
    x: Tensor,
    warp: Tensor | None,
    seen: Tensor | None,
    lam: npt.ArrayLike | Tensor | float | None,
    mode: Mode | None = None,
    generator: torch.Generator | None = None,
    *,
    iterations: int = 5,
    lr: float = 0.02,
    clamp: float = 0.2,
    omega: float = 4.0,
    until: float = 5.5,
    products: Literal["transpose", "symmetric"] = "transpose",
    tile_row: int = 32,
    soften: float = 0.0,
    callback: Callable[[int, Tensor], Tensor] | None = None,
    left_out: list[tuple[int, list[int]]] | None = None,
) -> Tensor:
    """Sample from noise to the schedule's last level, pulled towards a warp where it sees something.

    Args:
        denoiser: `denoiser(x, sigma) -> x0`, the clean estimate [B, C, F, h, w] of the variance-exploding
            state x = x0 + sigma n. It may carry `output(x, i)`, the network's output in the schedule's own
            space and for its own state (then nothing is converted in unguided steps), with `prediction`,
            "eps", "v", "x0" or "flow", of that output; and `conditional(x, sigma)`, an estimate without
            classifier-free guidance, for "repo-posterior".
        schedule: a `Schedule`, or N + 1 decreasing levels for Euler steps on the variance-exploding state.
        x: starting noise [B, C, F, h, w] in the schedule's own state (VE: sigmas[0] times unit noise).
        warp: encoded warp [B or 1, C, F, h, w]; what is unseen is ignored.
        seen: bool [B or 1, 1, F, h, w].
        lam: weights l / (1 + l) in [0, 1]: [N, F], a number, or None for 0 (see `guidance_weights`).
        mode: "dgs" (default): blends the clean estimate with the warp. "posterior": moves the state along the
            gradient of the distance, through the network. "exact-likelihood": conditional mean by conjugate
            gradients with products of the network's Jacobian; 0 iterations is PiGDM. "worldforge": recursive
            refinement and self-correction. "repo-dgs", "repo-posterior": as the released code of NVS-Solver.
            A first step from pure noise (an infinite level) blends as "dgs" does, or replaces as "repo-dgs".
        generator: of the draws of "worldforge"; without one torch's global stream is used.
        iterations: conjugate gradients. lr: step of the two posteriors. clamp: least weight of
            "repo-posterior". omega: self-correction of "worldforge", which guides while sigma is at least
            `until`. products: "symmetric" averages products with the Jacobian and its transpose. tile_row:
            where the lower tiles of "repo-posterior" begin in latents of 72 x 128 (24 for a video or two
            views). soften: latents over which "worldforge" fades what is seen towards its border.
        callback: `callback(i, x) -> x` after each step. left_out: takes, of "worldforge" on at least 16
            channels, a step and the channels that kept the model's own estimate, for each sample.

    Returns:
        x at the schedule's last level, float32 (float64 where x is): half precision stays in the denoiser.

    Raises:
        ValueError: for shapes that do not fit, levels that do not decrease, weights that are NaN or outside
            [0, 1], an unknown mode.
    """
    # Without `output` the denoiser says clean estimates, whatever it predicts inside.
    told = getattr(denoiser, "prediction", None) if hasattr(denoiser, "output") else None
    steps = as_schedule(schedule, told)
    levels = decreasing(steps.sigmas, loose=True)
    count = len(levels) - 1
    x = x if x.dtype == torch.float64 else x.float()
    if x.ndim != 5:
        raise ValueError(f"x: needs [B, C, F, h, w], got {tuple(x.shape)}")
    name = mode or "dgs"
    if name not in MODES:
        raise ValueError(f"mode: {', '.join(MODES)}; not {mode!r}")
    table = weight_table(None if name == "none" else lam, count, x.shape[2])
    settings = Settings(iterations, lr, clamp, omega, until, products, tile_row, soften)
    problem = _problem(denoiser, steps, x, warp, seen, table, settings, generator, name)
    problem = problem if left_out is None else replace(problem, left_out=left_out)
    for i in range(count):
        if table[i].any():
            weights = torch.from_numpy(table[i]).to(x.device, x.dtype).view(1, 1, -1, 1, 1)
            # Pure noise (VideoMV's image schedule may start there) has no variance-exploding view to move in.
            rule = RULES[name] if np.isfinite(levels[i]) else AT_PURE_NOISE.get(name, RULES[name])
            x = rule(problem, i, x, weights).detach()
        else:
            with torch.no_grad():
                x = steps.step(problem.output(x, i), i, x)
        if callback is not None:
            x = callback(i, x)
    return x


def weight_table(
    lam: npt.ArrayLike | Tensor | float | None, steps: int, frames: int
) -> npt.NDArray[np.float64]:
    """Weights as float64 [N, F]. ValueError for another shape, NaN, or numbers outside [0, 1]."""
    if isinstance(lam, Tensor):
        lam = lam.detach().double().cpu().numpy()
    table = np.asarray(0.0 if lam is None else lam, dtype=np.float64)
    if table.ndim != 0 and table.shape != (steps, frames):
        raise ValueError(f"lam: needs [{steps}, {frames}] (steps, frames) or a number, got {table.shape}")
    if np.isnan(table).any():
        raise ValueError("lam: has NaN: no root of the released rule is valid there, choose another v")
    if ((table < 0) | (table > 1)).any():
        raise ValueError("lam: weights are l / (1 + l), in [0, 1]")
    return np.broadcast_to(table, (steps, frames)).copy()


def _problem(
    denoiser: Any,
    steps: Any,
    x: Tensor,
    warp: Tensor | None,
    seen: Tensor | None,
    table: npt.NDArray[np.float64],
    settings: Settings,
    generator: torch.Generator | None,
    mode: str,
) -> Problem:
    b, c, f, h, w = x.shape
    if warp is None or seen is None:
        if table.any():
            raise ValueError("weights above 0 need a warp and what it sees")
        warp, seen = torch.zeros(1, c, f, h, w), torch.zeros(1, 1, f, h, w, dtype=torch.bool)
    if tuple(warp.shape) not in ((b, c, f, h, w), (1, c, f, h, w)):
        raise ValueError(f"warp: needs [{b} or 1, {c}, {f}, {h}, {w}], got {tuple(warp.shape)}")
    if tuple(seen.shape) not in ((b, 1, f, h, w), (1, 1, f, h, w)) or seen.dtype != torch.bool:
        raise ValueError(
            f"seen: needs bool [{b} or 1, 1, {f}, {h}, {w}], got {tuple(seen.shape)} {seen.dtype}"
        )
    mask = seen.to(x.device)
    warp = warp.to(x.device, x.dtype)
    if not torch.isfinite(torch.where(mask, warp, torch.zeros((), dtype=x.dtype, device=x.device))).all():
        raise ValueError("warp: is not finite where it is seen")
    # The released rules take the first frame as given, hidden parts included.
    whole = torch.zeros(1, 1, f, 1, 1, dtype=torch.bool, device=x.device)
    whole[:, :, 0] = mode.startswith("repo-")
    taken = (mask | whole) & torch.isfinite(warp).all(1, keepdim=True)
    known = torch.where(taken, warp, torch.zeros((), dtype=x.dtype, device=x.device))
    two_views = f > 1 and bool((table[:, -1] == 1).all()) and bool(mask[:, :, -1].all())
    return Problem(denoiser, steps, known, mask, settings, generator, table, taken & whole, two_views)
