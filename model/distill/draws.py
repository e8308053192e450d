"""Draws of the timestep: one for a clip, over a closed range that may fall in the course of a run."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known

Anneal = Literal["none", "linear", "sqrt", "late"]
ANNEALS: tuple[Anneal, ...] = ("none", "linear", "sqrt", "late")


def draw_timesteps(
    generator: torch.Generator | None,
    n: int,
    t_range: tuple[float, float] = (0.02, 0.98),
    total: int = 1000,
    step: int = 0,
    steps: int = 1,
    anneal: Anneal = "none",
    t_end: float = 0.5,
    anneal_start: int = 5000,
) -> Tensor:
    """Timestep indices, int64 [n]: one for each sample, so one for all frames of a clip.

    Uniform over floor(total t_min) to floor(total t_max), both ends included.

    Args:
        generator: of the draws; None takes torch's global one.
        t_range: (t_min, t_max) as shares of `total`.
        total: length of the schedule's table.
        step, steps: where the run is, for `anneal`.
        anneal: "linear" moves t_max to `t_end`; "sqrt" draws nothing, t falls from t_max to t_min with the
            root of step / steps; "late" puts t_max to `t_end` from `anneal_start` on (ProlificDreamer).

    Raises:
        InputError: for a range that is not 0 <= min < max <= 1 or holds no index, or another anneal.
    """
    low, high = t_range
    if not 0 <= low < high <= 1:
        raise InputError(f"t range {low}, {high}: needs 0 <= min < max <= 1")
    if anneal not in ANNEALS:
        raise InputError(f"anneal {anneal!r}: {or_known(anneal, ANNEALS)}")
    done = min(1.0, step / max(steps, 1))
    if anneal == "sqrt":
        return torch.full((n,), _index(high - (high - low) * math.sqrt(done), total), dtype=torch.int64)
    end = max(t_end, low)
    if anneal == "linear":
        high = high + (min(end, high) - high) * done
    elif anneal == "late" and step >= anneal_start:
        high = min(end, high)
    first, last = _index(low, total), _index(high, total)
    if first > last:
        raise InputError(f"t range {t_range}: holds no index of {total}")
    device = generator.device if generator is not None else None
    return torch.randint(first, last + 1, (n,), generator=generator, device=device)


def _index(share: float, total: int) -> int:
    """floor(total share), with 0.29 x 100 as 29; at most the table's last index."""
    return min(math.floor(total * share + 1e-9), total - 1)
