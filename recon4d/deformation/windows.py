"""Gaussians that each live in a window of time and move on a straight line in it: what a .4dgs file holds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.gaussians import Gaussians

#: Share of the clip by which a time may miss the beginning of a window and still be in it: k / n of the span
#: is not the k-th of n sums.
SNAP = 1e-9
#: Opacities are kept below this, so that their logits are finite.
_OPAQUE = 1 - 1e-6


class WindowField(Deformation):
    """M Gaussians, of which those are there at a time whose window holds it.

    Args:
        count: M.
        span: seconds from time 0 to time 1.
        cutoff: share of its opacity below which a Gaussian that fades is not there.
    """

    motion: Tensor
    """[M, 3] units of the scene a second."""
    peak: Tensor
    """[M] seconds at which a Gaussian stands where it is stored, and is most opaque."""
    fading: Tensor
    """[M] 1 / seconds of the bell that opacity follows; 0 never fades."""
    window: Tensor
    """[M, 2] seconds, half open."""

    def __init__(self, count: int, span: float = 1.0, cutoff: float = 0.05) -> None:
        super().__init__()
        self.config = {"kind": "windows", "count": count, "span": span, "cutoff": cutoff}
        self.register_buffer("motion", torch.zeros(count, 3))
        self.register_buffer("peak", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("fading", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("window", torch.zeros(count, 2, dtype=torch.float64))

    def bind(self, means: Tensor) -> None:
        if len(means) != len(self.motion):
            raise ValueError(f"windows of {len(self.motion)} Gaussians, the scene holds {len(means)}")
        self.bound_means = means

    def shown(self, time: float) -> tuple[Tensor, Tensor]:
        """Indices [V] of the Gaussians that are there at `time` in [0, 1], and shares [V] of their opacity.

        At the very end those that are there just before it: windows are half open.
        """
        span = self.config["span"]
        eps = SNAP * span
        last = float(self.window[:, 1].max()) if len(self.window) else span
        t = min(time * span + eps, last - eps)
        share = torch.exp(-0.5 * ((t - self.peak) * self.fading).square())
        there = (self.window[:, 0] <= t) & (t < self.window[:, 1]) & (share >= self.config["cutoff"])
        index = torch.nonzero(there)[:, 0]
        return index, share[index]

    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        index, share = self.shown(time)
        here = Gaussians(**{name: tensor[index] for name, tensor in gaussians.tensors().items()})
        since = (time * self.config["span"] - self.peak[index]).unsqueeze(1)
        means = here.means + (self.motion[index] * since).to(here.means)
        if not bool((share < 1).any()):
            return replace(here, means=means)
        opacity = (here.opacities.double() * share).clamp(1 - _OPAQUE, _OPAQUE)
        return replace(here, means=means, logits=torch.logit(opacity).to(here.logits))
