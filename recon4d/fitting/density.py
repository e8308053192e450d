"""Adaptive density control: which Gaussians multiply, which go (Kerbl et al. 2023, 3DGS, section 5.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbit4d.recon4d import rotations
from orbit4d.recon4d.fitting.settings import DensitySettings
from orbit4d.recon4d.gaussians import Gaussians

#: A Gaussian's mean gradient is taken over at least this share of the steps in which others were on screen.
_LEAST_SEEN = 0.1


@dataclass
class DensityState:
    """What the strategy remembers between rounds."""

    gradient: Tensor
    """[N] sum of the norms of the projected centres' gradients, normalised image units."""
    seen: Tensor
    """[N] number of steps in which the Gaussian was on screen."""

    @classmethod
    def empty(cls, n: int, device: torch.device | None = None) -> DensityState:
        """Nothing seen yet."""
        return cls(torch.zeros(n, device=device), torch.zeros(n, device=device))


@dataclass(frozen=True)
class Density:
    """Splits, clones, prunes and fades Gaussians; keeps its own state apart from them."""

    settings: DensitySettings

    def observe(self, state: DensityState, means2d: Tensor, radii: Tensor, width: int, height: int) -> None:
        """After a backward pass: means2d [1, N, 2] with a `.grad` (or `.absgrad`), radii [1, N, 2]."""
        gradient = getattr(means2d, "absgrad", None)
        gradient = means2d.grad if gradient is None else gradient
        if gradient is None:
            return
        self.note(state, gradient[0], radii[0], width, height)

    def note(self, state: DensityState, gradient: Tensor, radii: Tensor, width: int, height: int) -> None:
        """`observe` of a view's gradient [N, 2] by the projected centres, and radii [N, 2]."""
        # In units of half the image, as 3DGS's threshold is.
        size = torch.hypot(gradient[:, 0] * (width / 2), gradient[:, 1] * (height / 2))
        # Masked by a product, which unlike an index does not wait for a device.
        visible = (radii > 0).all(-1).to(size.dtype)
        state.gradient += size * visible
        state.seen += visible

    def due(self, step: int, steps: int, n_views: int = 1) -> bool:
        """Whether a round follows step `step` of a stage of `steps` that draws from `n_views` views.

        No round judges by fewer steps than there are views: `every` is then taken as often as it needs.
        """
        every = self.settings.every
        every *= max(1, math.ceil(n_views / every)) if every else 1
        return bool(every) and step % every == 0 and self._within(step, steps)

    def fades(self, step: int, steps: int) -> bool:
        """Whether an opacity reset follows step `step`: where rounds take place, never at a stage's end."""
        every = self.settings.reset_every
        return bool(every) and step % every == 0 and self._within(step, steps)

    def _within(self, step: int, steps: int) -> bool:
        return self.settings.start * steps <= step <= self.settings.stop * steps

    @torch.no_grad()
    def round(
        self, gaussians: Gaussians, state: DensityState, generator: torch.Generator
    ) -> tuple[Gaussians, Tensor]:
        """New Gaussians, and for each the index of the one whose optimiser state it takes (−1: none)."""
        s = self.settings
        # What was on screen in a step or two is not judged by that view alone.
        least = max(1.0, _LEAST_SEEN * float(state.seen.max()))
        mean_gradient = state.gradient / state.seen.clamp(min=least)
        grow = mean_gradient > s.grow_gradient
        room = max(s.max_gaussians - len(gaussians), 0)
        if int(grow.sum()) > room:
            order = torch.where(grow, mean_gradient, torch.zeros_like(mean_gradient)).argsort(descending=True)
            grow = torch.zeros_like(grow)
            grow[order[:room]] = True
        large = gaussians.scales.max(-1)[0] > s.split_scale
        split, clone = grow & large, grow & ~large
        keep = (gaussians.opacities > s.prune_opacity) & ~split

        parts = [_take(gaussians, keep), _take(gaussians, clone)]
        origin = [torch.nonzero(keep)[:, 0], keep.new_full((int(clone.sum()),), -1, dtype=torch.long)]
        for _ in range(2):
            part = _take(gaussians, split)
            noise = torch.randn(part.means.shape, generator=generator).to(part.means.device)
            turned = rotations.to_matrix(torch.nn.functional.normalize(part.quats, dim=-1))
            part.means = part.means + (turned @ (noise * part.scales).unsqueeze(-1)).squeeze(-1)
            # Two halves of 1/1.6 the size each, as published.
            part.log_scales = part.log_scales - math.log(1.6)
            parts.append(part)
            origin.append(keep.new_full((len(part),), -1, dtype=torch.long))
        joined = Gaussians(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in Gaussians.names()}
        )
        return joined, torch.cat(origin)

    @torch.no_grad()
    def fade(self, gaussians: Gaussians) -> None:
        """Opacity reset: nobody stays more opaque than twice the pruning threshold."""
        limit = torch.tensor(2 * self.settings.prune_opacity)
        gaussians.logits.clamp_(max=float(torch.logit(limit)))


def _take(gaussians: Gaussians, mask: Tensor) -> Gaussians:
    return Gaussians(**{name: tensor.detach()[mask].clone() for name, tensor in gaussians.tensors().items()})
