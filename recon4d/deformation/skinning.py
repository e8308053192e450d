"""Gaussians that follow control nodes: the nodes' blended maps applied to each, and its gradient (numba).

As torch operations this takes longer than drawing the image does: a dense [N, K] product and thousands of
3 x 3 products. `skin_reference` is the slow twin. Arguments are loose as in `network`, for its reason.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d import rotations
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.simd import take_next

#: A node's map: 9 of a matrix (row by row), 3 of an offset, 4 of a quaternion, all relative to the identity.
MAP = 16
#: Pieces of work that the Gaussians are cut into, whatever the number of threads.
PIECES = 8


def skin(means: Tensor, quats: Tensor, maps: Tensor, index: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Move centres and turn rotations by blended node maps.

    means [N, 3], quats [N, 4] (w x y z, any length), maps [K, 16], index [N, k] int64 and weights [N, k]
    (rows sum to 1) of the nodes that a Gaussian follows. With L, o, r the weighted sums of the maps' parts:
    centres become x + L x + o, rotations (1 + r) q. Gradients reach means, quats and maps; they are summed in
    a fixed order. Other devices and dtypes than float32 on the CPU take the twin's way.
    """
    if means.device.type != "cpu" or means.dtype != torch.float32:
        return skin_reference(means, quats, maps, index, weights)
    return _Skin.apply(means, quats, maps, index, weights)


def skin_reference(
    means: Tensor, quats: Tensor, maps: Tensor, index: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """`skin` in plain torch operations, any floating dtype."""
    blend = (maps[index] * weights.unsqueeze(-1)).sum(1)
    linear, offset, turn = blend.split([9, 3, 4], dim=1)
    moved = means + (linear.unflatten(1, (3, 3)) @ means.unsqueeze(-1)).squeeze(-1) + offset
    return moved, rotations.multiply(torch.cat([turn[:, :1] + 1.0, turn[:, 1:]], dim=1), quats)


class _Skin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, maps, index, weights):
        inputs = [t.detach().contiguous().numpy() for t in (means, quats, maps, index, weights)]
        moved, turned = torch.empty_like(means), torch.empty_like(quats)
        threads.run(forward, PIECES, *inputs, moved.numpy(), turned.numpy())
        ctx.inputs = inputs
        return moved, turned

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_moved, grad_turned):
        means, quats, maps, _, _ = ctx.inputs
        grad_means, grad_quats = torch.empty(means.shape), torch.empty(quats.shape)
        grad_maps = np.zeros((PIECES, *maps.shape), np.float32)
        threads.run(
            backward, PIECES, *ctx.inputs, grad_moved.contiguous().numpy(), grad_turned.contiguous().numpy(),
            grad_means.numpy(), grad_quats.numpy(), grad_maps,
        )  # fmt: skip
        return grad_means, grad_quats, torch.from_numpy(grad_maps.sum(axis=0)), None, None


@jit
def forward(counter, means, quats, maps, index, weights, moved, turned):
    """`skin`; moved [N, 3] and turned [N, 4] are outputs."""
    n = means.shape[0]
    blend = np.empty(MAP, np.float32)
    while True:
        piece = take_next(counter)
        if piece >= PIECES:
            break
        for i in range(n * piece // PIECES, n * (piece + 1) // PIECES):
            blend[:] = np.float32(0.0)
            for j in range(index.shape[1]):
                node, share = index[i, j], weights[i, j]
                for c in range(MAP):
                    blend[c] += share * maps[node, c]
            x, y, z = means[i, 0], means[i, 1], means[i, 2]
            moved[i, 0] = x + (blend[0] * x + blend[1] * y + blend[2] * z + blend[9])
            moved[i, 1] = y + (blend[3] * x + blend[4] * y + blend[5] * z + blend[10])
            moved[i, 2] = z + (blend[6] * x + blend[7] * y + blend[8] * z + blend[11])
            a, b, c, d = np.float32(1.0) + blend[12], blend[13], blend[14], blend[15]
            w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
            turned[i, 0] = a * w - b * x - c * y - d * z
            turned[i, 1] = a * x + b * w + c * z - d * y
            turned[i, 2] = a * y - b * z + c * w + d * x
            turned[i, 3] = a * z + b * y - c * x + d * w


@jit
def backward(
    counter, means, quats, maps, index, weights, grad_moved, grad_turned, grad_means, grad_quats, grad_maps
):  # fmt: skip
    """Gradients of `skin`; grad_maps [PIECES or more, K, 16], zero before, receives one sum per piece."""
    n = means.shape[0]
    blend, pull = np.empty(MAP, np.float32), np.empty(MAP, np.float32)
    while True:
        piece = take_next(counter)
        if piece >= PIECES:
            break
        own = grad_maps[piece]
        for i in range(n * piece // PIECES, n * (piece + 1) // PIECES):
            blend[:] = np.float32(0.0)
            for j in range(index.shape[1]):
                node, share = index[i, j], weights[i, j]
                for c in range(MAP):
                    blend[c] += share * maps[node, c]
            gx, gy, gz = grad_moved[i, 0], grad_moved[i, 1], grad_moved[i, 2]
            grad_means[i, 0] = gx + (blend[0] * gx + blend[3] * gy + blend[6] * gz)
            grad_means[i, 1] = gy + (blend[1] * gx + blend[4] * gy + blend[7] * gz)
            grad_means[i, 2] = gz + (blend[2] * gx + blend[5] * gy + blend[8] * gz)
            x, y, z = means[i, 0], means[i, 1], means[i, 2]
            pull[0], pull[1], pull[2] = gx * x, gx * y, gx * z
            pull[3], pull[4], pull[5] = gy * x, gy * y, gy * z
            pull[6], pull[7], pull[8] = gz * x, gz * y, gz * z
            pull[9], pull[10], pull[11] = gx, gy, gz
            # turned = p q: the gradient of p is g q*, that of q is p* g.
            g0, g1, g2, g3 = grad_turned[i, 0], grad_turned[i, 1], grad_turned[i, 2], grad_turned[i, 3]
            w, x, y, z = quats[i, 0], -quats[i, 1], -quats[i, 2], -quats[i, 3]
            pull[12] = g0 * w - g1 * x - g2 * y - g3 * z
            pull[13] = g0 * x + g1 * w + g2 * z - g3 * y
            pull[14] = g0 * y - g1 * z + g2 * w + g3 * x
            pull[15] = g0 * z + g1 * y - g2 * x + g3 * w
            a, b, c, d = np.float32(1.0) + blend[12], -blend[13], -blend[14], -blend[15]
            grad_quats[i, 0] = a * g0 - b * g1 - c * g2 - d * g3
            grad_quats[i, 1] = a * g1 + b * g0 + c * g3 - d * g2
            grad_quats[i, 2] = a * g2 - b * g3 + c * g0 + d * g1
            grad_quats[i, 3] = a * g3 + b * g2 - c * g1 + d * g0
            for j in range(index.shape[1]):
                node, share = index[i, j], weights[i, j]
                for k in range(MAP):
                    own[node, k] += share * pull[k]
