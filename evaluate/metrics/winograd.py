"""Convolutions with a quarter of the multiplications, for networks that are run but not trained on a CPU.

Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv 1509.09308): tiles of 6 x 6 inputs give 4 x 4 outputs by 36
products per channel pair instead of 144; a kernel of 5 has F(4x4, 5x5), 64 instead of 400. Others are made
3 x 3 first: a stride s moves s x s pixels into channels (a kernel of up to 3 s), a kernel of 6 becomes four
shifted copies of the input. So AlexNet's 11 x 11 of stride 4 is a 3 x 3 over 48 channels.

float32 results differ from the direct sum by rounding: about 1e-6 of the largest output.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.evaluate.metrics.kernels import use_torch_threads
from orbit4d.evaluate.metrics.winograd_kernels import (
    winograd8_back,
    winograd8_into,
    winograd_back,
    winograd_into,
)

#: Transform of a kernel along one axis; those of inputs and outputs are in `winograd_kernels`.
_G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
#: The same of F(4x4, 5x5), whose points are 0, ±1, ±2, ±1/2 and infinity: powers over the product of the
#: distances to the other points.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_G5 = [[p**k / math.prod(p - q for q in _POINTS if q != p) for k in range(5)] for p in _POINTS] + [
    [0.0, 0.0, 0.0, 0.0, 1.0]
]
#: Floats of transformed input that are worked on at a time: more would leave the cache.
_CHUNK = 1 << 20


class WinogradConv(nn.Module):
    """A drop-in for `conv`: float32, no groups, no dilation, square kernel; stride 1 and a kernel of up to 6,
    or stride s and a kernel of up to 3 s.
    """

    bias: Tensor

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        # A kernel of 5 has tiles of its own: 64 products where four copies by 3 x 3 take 144.
        self.five = self.kernel == 5 and self.stride == 1
        self.points = 64 if self.five else 36
        self.copies = 1 if self.stride > 1 or self.kernel <= 3 or self.five else 2
        side = 5 if self.five else 3 * self.stride * self.copies
        weight = conv.weight.detach().double()
        out, channels = weight.shape[:2]
        w = weight.new_zeros(out, channels, side, side)
        w[..., : self.kernel, : self.kernel] = weight
        if self.stride > 1:
            # [out, C, 3, s, 3, s] -> [out, s, s, C, 3, 3]
            w = w.unflatten(2, (3, -1)).unflatten(4, (3, -1)).permute(0, 3, 5, 1, 2, 4)
        elif self.copies > 1:
            # [out, C, copies, 3, copies, 3] -> [out, copies, copies, C, 3, 3]
            w = w.unflatten(2, (-1, 3)).unflatten(4, (-1, 3)).permute(0, 2, 4, 1, 3, 5)
        g = torch.tensor(_G5 if self.five else _G, dtype=torch.float64)
        # g w g^T in float64, then one matrix [out, C'] per place of the 6 x 6: [6, 6, out, C'].
        kernels = (g @ w.reshape(out, -1, g.shape[1], g.shape[1]) @ g.T).permute(2, 3, 0, 1).float()
        self.channels = kernels.shape[-1]
        # 36 (or 64) matrix products as one convolution of 1 x 1 in as many groups: oneDNN's is half as fast
        # again as calls of BLAS, once the weights lie as it wants them.
        dense = kernels.reshape(self.points * out, self.channels, 1, 1).contiguous()
        hint = [1, self.points * self.channels, 256, 1]
        self.kernels = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]  # stub lacks hint
            dense.to_mkldnn(), [0, 0], [1, 1], [1, 1], self.points, hint
        )
        self.register_buffer("bias", conv.get_parameter("bias").detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, out, H', W'], channels last in memory."""
        n, _, h, w = x.shape
        s, p = self.stride, self.padding
        high, wide = ((side + 2 * p - self.kernel) // s + 1 for side in (h, w))
        down, across = -(-high // 4), -(-wide // 4)
        # Rows and columns that whole tiles read, before pixels go into channels.
        reach = 3 * (self.copies - 1)
        reach = 2 if self.five else reach
        rows, columns = s * (4 * down + 2) + reach, s * (4 * across + 2) + reach
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, p, columns - w - p, p, rows - h - p))
        if s > 1:
            x = x.unflatten(1, (-1, s)).unflatten(3, (-1, s)).permute(0, 1, 3, 2, 4, 5).flatten(3)
        elif self.copies > 1:
            shifts = [(i, j) for i in (0, 3) for j in (0, 3)]
            x = torch.cat([x[:, i : rows - 3 + i, j : columns - 3 + j] for i, j in shifts], -1)
        use_torch_threads()
        x = x.contiguous()
        channels, out_channels = self.channels, self.bias.numel()
        out = x.new_empty(n, high, wide, out_channels)
        tiles = n * down * across
        # Odd sizes make oneDNN choose slow blockings.
        step = max(1, _CHUNK // (self.points * channels) // 64) * 64
        into, back = (winograd8_into, winograd8_back) if self.five else (winograd_into, winograd_back)
        for first in range(0, tiles, step):
            count = min(step, tiles - first)
            seen = x.new_empty(count, self.points, channels)
            into(x.numpy(), first, down, across, seen.numpy())
            # Channels last: [count, 36 C] in memory is [1, 36 C, count, 1] to a convolution.
            image = seen.view(1, count, 1, self.points * channels).permute(0, 3, 1, 2)
            product = torch.ops.mkldnn._convolution_pointwise(
                image, self.kernels, None, [0, 0], [1, 1], [1, 1], self.points, "none", [], ""
            )
            product = product.permute(0, 2, 3, 1).contiguous().view(count, self.points, out_channels)
            back(product.numpy(), self.bias.numpy(), self.relu, first, down, across, out.numpy())
        return out.permute(0, 3, 1, 2)


def suits(conv: nn.Conv2d) -> bool:
    """Whether `WinogradConv` can stand in for a convolution on this machine."""
    k, s = conv.kernel_size[0], conv.stride[0]
    square = len({*conv.kernel_size}) == len({*conv.stride}) == len({*conv.padding}) == 1
    plain = conv.groups == 1 and set(conv.dilation) == {1} and conv.padding_mode == "zeros"
    fits = k in (3, 5, 6) if s == 1 else 2 * s < k <= 3 * s
    here = torch.backends.mkldnn.is_available() and conv.weight.device.type == "cpu"
    return square and plain and fits and here and conv.bias is not None and conv.weight.dtype == torch.float32
