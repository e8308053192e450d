"""A loss whose gradient is a given one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor


class _Given(torch.autograd.Function):
    """A value that hands back a gradient that was computed elsewhere."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outputs[0] * gradient, None, None


def surrogate(z: Tensor, g: Tensor, reduction: Literal["sum_per_batch", "mean"] = "sum_per_batch") -> Tensor:
    """A scalar that hands `g` to `z` [B, ...] when it is differentiated.

    `sum_per_batch` has the value half of sum g^2 / B and the gradient g, to the bit; `mean` the value half of
    mean g^2 and the gradient g / numel. The network that made g is never differentiated.

    Raises:
        ValueError: for shapes that differ or another reduction.
    """
    if z.shape != g.shape:
        raise ValueError(f"a gradient of shape {tuple(g.shape)} cannot be handed to {tuple(z.shape)}")
    g = g.detach().to(z.dtype)
    half = g.square().sum() / 2
    if reduction == "sum_per_batch":
        return _Given.apply(z, g, half / len(z))  # type: ignore[no-any-return, no-untyped-call]  # no types
    if reduction == "mean":
        return _Given.apply(z, g / g.numel(), half / g.numel())  # type: ignore[no-any-return, no-untyped-call]
    raise ValueError(f"reduction: sum_per_batch or mean, not {reduction!r}")
