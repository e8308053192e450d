"""Node maps of a row of numbers, joined to torch's autograd; `row_maps_reference` is the slow twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.node_maps import maps_backward, maps_of
from orbit4d.recon4d.deformation.skinning import MAP


def row_maps(row: Tensor, nodes: Tensor) -> Tensor:
    """Maps [K, 16] (see `skinning`) of nodes [K, 3] that a row [K, 6] moves: 3 of a shift, 3 imaginary parts
    of a quaternion with real part 1. Gradients reach the row alone. Zeros are the identity.

    Other devices and dtypes than float32 on the CPU take the twin's way.
    """
    if row.device.type != "cpu" or row.dtype != torch.float32:
        return row_maps_reference(row, nodes)
    return _RowMaps.apply(row, nodes)  # type: ignore[no-any-return, no-untyped-call]  # no types


def row_maps_reference(row: Tensor, nodes: Tensor) -> Tensor:
    """`row_maps` in plain torch operations."""
    quats = F.normalize(F.pad(row[:, 3:], (1, 0), value=1.0), dim=-1)
    linear = rotations.to_matrix(quats) - torch.eye(3, device=row.device, dtype=row.dtype)
    offsets = row[:, :3] - (linear @ nodes.unsqueeze(-1)).squeeze(-1)
    turns = torch.cat([quats[:, :1] - 1.0, quats[:, 1:]], dim=1)
    return torch.cat([linear.flatten(1), offsets, turns], dim=1)


class _RowMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, row: Tensor, nodes: Tensor) -> Tensor:
        out, at = row.detach().contiguous().numpy(), nodes.detach().contiguous().numpy()
        quats, maps = np.empty((len(out), 4), np.float32), np.empty((len(out), MAP), np.float32)
        maps_of(out, at, quats, maps)
        ctx.kept = (out, at, quats)
        return torch.from_numpy(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        grad = np.zeros(ctx.kept[0].shape, np.float32)
        maps_backward(*ctx.kept, outputs[0].contiguous().numpy(), grad)
        return torch.from_numpy(grad), None
