"""LPIPS as `datasets.lpips` defines it, some three times faster on a CPU: for measuring, not for training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.images.lpips import _LAYOUT, LPIPS
from orbit4d.evaluate.metrics.kernels import fits, lpips_distance, use_torch_threads
from orbit4d.evaluate.metrics.winograd import WinogradConv, suits


class FastLPIPS(nn.Module):
    """The distances of an `LPIPS`, by Winograd convolutions and one pass over each pair of features.

    Equal to it up to rounding (some 1e-7). Where the kernels do not apply it asks the slow twin.
    """

    def __init__(self, slow: LPIPS) -> None:
        super().__init__()
        self.slow = slow
        convs = [conv for conv in slow.convs if isinstance(conv, nn.Conv2d)]
        fast = all(suits(conv) for conv in convs)
        self.convs = [WinogradConv(conv, relu=True) for conv in convs] if fast else []
        self.weights = [weight.detach().contiguous() for weight in slow.linear]

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [B] of images [B, 3, H, W] in [0, 1]; H and W at least 32."""
        if not self.convs or not fits(a, b) or a.shape != b.shape or min(a.shape[2:]) < 32:
            return self.slow(a, b)
        # (2 x - 1 - shift) / scale in two passes.
        gain, offset = 2 / self.slow.scale, -(1 + self.slow.shift) / self.slow.scale
        x = torch.cat([a, b]).mul_(gain).add_(offset)
        total = a.new_zeros(len(a))
        convs, weights = iter(self.convs), iter(self.weights)
        for step in _LAYOUT[self.slow.net]:
            if isinstance(step, tuple):
                x = next(convs)(x)
            elif step == "tap":
                use_torch_threads()
                features = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2).numpy()
                total += torch.from_numpy(
                    lpips_distance(features[: len(a)], features[len(a) :], next(weights).numpy())
                )
            else:
                x = F.max_pool2d(x, 3 if step == "pool3" else 2, 2)
        return total
