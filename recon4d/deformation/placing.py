"""What moving nodes do in a step, as one module of tensors alone, so that it can be a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbit4d.recon4d.deformation.field import MovingNodes


class Placing(nn.Module):
    """Gaussians' parameters and a time to what the rasteriser draws, and the field's two penalties."""

    def __init__(self, field: MovingNodes) -> None:
        super().__init__()
        self.field = field

    def forward(
        self, means: Tensor, quats: Tensor, log_scales: Tensor, logits: Tensor, colors: Tensor, times: Tensor
    ) -> tuple[Tensor, ...]:
        """Means, quats, scales, opacities and colours at times[0]; with three times rigidity and smoothness.

        times [1] or [3] are now, a frame before and a frame after. Where before or after is now (a clip's
        ends) there is no smoothness: it is 0.
        """
        quats_at, shifts = self.field.motions_at(times)
        moved, turned = self.field.skinned(means, quats, quats_at[0], shifts[0])
        drawn = (moved, turned, log_scales.exp(), torch.sigmoid(logits), colors.clamp(0, 1))
        if len(times) == 1:
            return drawn
        bent = (shifts[1] - 2 * shifts[0] + shifts[2]).square().sum(-1).mean()
        inside = ((times[1] < times[0]) & (times[0] < times[2])).to(bent.dtype)
        return *drawn, self.field.rigidity(quats_at[0], shifts[0]), bent * inside
