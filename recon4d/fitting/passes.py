"""Losses that can be compared: those of whole passes over the views, never one view's against another's.

An easy view has a third of a hard one's loss, so the loss of a step says first of all which view was drawn. A
mean over the views as each was last drawn says how the fit stands, and two such means compare when every view
was drawn between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.images.measures import decibels
from orbit4d.recon4d.fitting.fused_loss import SOLID, Judged

#: A pass counts as better when its loss is below the best one's times this.
_BETTER = 0.999
#: Views one after the other that show nothing of the object, after as many that did: it has left them all.
LOST = 50


@dataclass
class Passes:
    """What the views' losses were, and how long whole passes have not become better."""

    latest: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Loss and PSNR in dB of every view when it was last drawn, by the view's index."""
    drawn: set[int] = field(default_factory=set)
    """Views of the pass under way."""
    best: float = math.inf
    """Lowest mean loss of a whole pass."""
    best_step: int = 0
    stalled: int = 0
    """Steps between the best pass and the last whole one; 0 until there are two."""
    met: int = 0
    """Views in which solid pixels of the object met solid ones of the image, so far."""
    missed: int = 0
    """Views since the last of them whose image has solid pixels, and none was met."""

    @property
    def lost(self) -> bool:
        """Whether the object was in the views and is in none any more, where no gradient brings it back."""
        return self.met >= LOST and self.missed >= LOST

    @property
    def loss(self) -> float:
        """Mean over the views drawn so far, each as it was last drawn; NaN before the first."""
        return _mean([loss for loss, _ in self.latest.values()])

    @property
    def psnr(self) -> float:
        """Likewise, dB."""
        return _mean([psnr for _, psnr in self.latest.values()])

    def note(self, view: int, loss: float, psnr: float, step: int, n_views: int) -> None:
        """Take down what view `view` of `n_views` gave at `step`; ends the pass when it was the last one."""
        self.latest[view] = (loss, psnr)
        self.drawn.add(view)
        if len(self.drawn) < n_views:
            return
        self.drawn.clear()
        if self.loss < self.best * _BETTER:
            self.best, self.best_step = self.loss, step
        self.stalled = step - self.best_step

    def meet(self, solid: float, truth: Tensor) -> None:
        """Take down how many solid pixels a drawn view and its image [H, W, 4] share."""
        if solid:
            self.met, self.missed = self.met + 1, 0
        elif bool((truth[..., 3] > float(SOLID)).any()):
            self.missed += 1

    def begun_anew(self) -> Passes:
        """Without losses, which do not compare any more; whether the object is in the views is kept."""
        return Passes(met=self.met, missed=self.missed)

    def record(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "latest": {view: list(pair) for view, pair in self.latest.items()},
            "drawn": sorted(self.drawn),
            "best": self.best,
            "best_step": self.best_step,
            "stalled": self.stalled,
            "met": self.met,
            "missed": self.missed,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Passes:
        """Inverse of `record`."""
        latest = {view: (loss, psnr) for view, (loss, psnr) in record["latest"].items()}
        best, best_step, stalled = (record[name] for name in ("best", "best_step", "stalled"))
        met, missed = record.get("met", 0), record.get("missed", 0)
        return cls(latest, set(record["drawn"]), best, best_step, stalled, met, missed)


def compare(color: Tensor, alpha: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean absolute difference of premultiplied RGBA, and PSNR on white in dB, of one view.

    color [H, W, 3] and alpha [H, W, 1] are what was drawn, truth is [H, W, 4]. Unlike the loss that is
    descended, neither depends on the background that the step drew, nor on terms that only some steps have.
    """
    found = judge(color, alpha, truth)
    return found.loss, found.psnr


def judge(color: Tensor, alpha: Tensor, truth: Tensor) -> Judged:
    """`compare`, with what the exposure wants to know: the twin of `Comparison.judged`."""
    return judged_from(judge_sums(color, alpha, truth).tolist())


@torch.no_grad()
def judge_sums(color: Tensor, alpha: Tensor, truth: Tensor) -> Tensor:
    """[5] for `judged_from`, on the images' device."""
    colour_off, alpha_off = color - truth[..., :3], alpha - truth[..., 3:]
    loss = (3 * colour_off.abs().mean() + alpha_off.abs().mean()) / 4
    mse = (colour_off - alpha_off).square().mean()
    solid = ((alpha > float(SOLID)) & (truth[..., 3:] > float(SOLID))).to(color.dtype)
    return torch.stack([loss, mse, (color * solid).sum(), (truth[..., :3] * solid).sum(), solid.sum()])


def judged_from(numbers: Sequence[float]) -> Judged:
    """From mean absolute and mean squared difference, and the sums where both mattes are solid."""
    loss, mse, *solid = numbers
    return Judged(loss, decibels(mse), *solid)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
