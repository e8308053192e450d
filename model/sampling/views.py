"""Sampling V synchronised videos: branches of guidance, the clean reference view, steps of any schedule.

    v = v(0, 0) + s_V [v(c_V, 0) - v(0, 0)] + s_T [v(c_V, c_T) - v(c_V, 0)]

c_V: view 0 is the clean reference at every step; absent, it is the reference with its own fixed start noise,
as in a tenth of training. c_T: the text; absent, the negative prompt. Without a reference this is ordinary
guidance between the two texts (Bai et al. 2025, arXiv 2412.07760).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orbit4d.model.guided.schedules import ScaledSchedule


class Predict(Protocol):
    """A network with everything but state, step and text put in."""

    def __call__(self, x: Tensor, step: int, known: Sequence[bool]) -> Tensor:
        """Prediction for x [n V, C, F, h, w]; `known[k]` says whether branch k of n is given the text."""


@dataclass(frozen=True)
class Branch:
    """One pass of a guided step."""

    weight: float
    """What its prediction counts for; the weights of a step sum to 1."""
    reference: bool
    """Whether view 0 is clean."""
    text: bool
    """Whether the text is given, not the negative prompt."""


def branches_of(
    text_scale: float, view_scale: float, reference: bool, text: bool = True
) -> tuple[Branch, ...]:
    """The branches whose weight is not 0. Without `text` (a network that takes none) branches that differ by
    the text alone are one; without `reference`, the same for the reference and `view_scale`."""
    if not reference:
        pairs = [Branch(1 - text_scale, False, False), Branch(text_scale, False, True)]
    else:
        pairs = [
            Branch(1 - view_scale, False, False),
            Branch(view_scale - text_scale, True, False),
            Branch(text_scale, True, True),
        ]
    if not text:
        weights: dict[bool, float] = {}
        for branch in pairs:
            weights[branch.reference] = weights.get(branch.reference, 0.0) + branch.weight
        pairs = [Branch(weight, seen, False) for seen, weight in weights.items()]
    return tuple(branch for branch in pairs if branch.weight)


@torch.no_grad()
def sample_views(
    predict: Predict,
    schedule: ScaledSchedule,
    noise: Tensor,
    branches: Sequence[Branch],
    clean: Tensor | None = None,
    together: int | None = None,
    on_step: Callable[[int, Tensor], None] = lambda step, x: None,
) -> Tensor:
    """Latents [V, C, F, h, w] of one scene, from noise [V, C, F, h, w].

    clean: [1, C, F, h, w] of the reference, which view 0 of the result is. together: branches in one batch;
    None: all of them, or one by one where a GPU's memory does not suffice.
    on_step: called with the number of each step and the state after it.
    """
    x = noise if clean is None else torch.cat([clean, noise[1:]])
    count = together or len(branches)
    for step in range(len(schedule.sigmas) - 1):
        try:
            output = _guided(predict, schedule, x, noise, branches, clean, step, count)
        except torch.OutOfMemoryError:
            if together is not None or count == 1:
                raise
            torch.cuda.empty_cache()
            count = 1
            output = _guided(predict, schedule, x, noise, branches, clean, step, count)
        x = schedule.step(output, step, x)
        if clean is not None:
            x = torch.cat([clean, x[1:]])
        on_step(step, x)
    return x


def _guided(
    predict: Predict,
    schedule: ScaledSchedule,
    x: Tensor,
    noise: Tensor,
    branches: Sequence[Branch],
    clean: Tensor | None,
    step: int,
    count: int,
) -> Tensor:
    views = len(x)
    total = torch.zeros_like(x)
    for first in range(0, len(branches), count):
        part = branches[first : first + count]
        rows = []
        for branch in part:
            if clean is None or branch.reference:
                rows.append(x)
            else:
                a, s = float(schedule.a[step]), float(schedule.s[step])
                rows.append(torch.cat([a * clean + s * noise[:1], x[1:]]))
        outputs = predict(torch.cat(rows), step, [branch.text for branch in part])
        for branch, output in zip(part, outputs.to(x.dtype).split(views)):
            total += branch.weight * output
    return total
