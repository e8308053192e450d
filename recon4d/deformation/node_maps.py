"""From what the network says of the nodes to their maps, the field's two penalties, and back (numba)."""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.jit import jit

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


@jit
def maps_of(out, nodes, quats, maps):
    """Unit quaternions [K, 4] and maps [K, 16] (see `skinning`) from out [K, 6]; zeros are the identity."""
    for k in range(nodes.shape[0]):
        x, y, z = out[k, 3], out[k, 4], out[k, 5]
        shrink = _ONE / np.sqrt(_ONE + x * x + y * y + z * z)
        w, x, y, z = shrink, x * shrink, y * shrink, z * shrink
        quats[k, 0], quats[k, 1], quats[k, 2], quats[k, 3] = w, x, y, z
        m = maps[k]
        m[0], m[1], m[2] = -_TWO * (y * y + z * z), _TWO * (x * y - w * z), _TWO * (x * z + w * y)
        m[3], m[4], m[5] = _TWO * (x * y + w * z), -_TWO * (x * x + z * z), _TWO * (y * z - w * x)
        m[6], m[7], m[8] = _TWO * (x * z - w * y), _TWO * (y * z + w * x), -_TWO * (x * x + y * y)
        # x -> R (x - n) + n + t, written as x + (R - 1) x + (t - (R - 1) n).
        for row in range(3):
            turned = m[3 * row] * nodes[k, 0] + m[3 * row + 1] * nodes[k, 1] + m[3 * row + 2] * nodes[k, 2]
            m[9 + row] = out[k, row] - turned
        m[12], m[13], m[14], m[15] = w - _ONE, x, y, z


@jit
def rigidity(out, nodes, maps, pairs, weight, grad_out, grad_maps):
    """Mean over pairs of |n_b - n_a + t_b - t_a - R_a (n_b - n_a)|²; adds weight times its gradient."""
    total, scale = 0.0, _TWO * weight / np.float32(len(pairs))
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        for row in range(3):
            apart = out[b, row] - out[a, row]
            for c in range(3):
                apart -= maps[a, 3 * row + c] * (nodes[b, c] - nodes[a, c])
            total += apart * apart
            pull = scale * apart
            grad_out[b, row] += pull
            grad_out[a, row] -= pull
            for c in range(3):
                grad_maps[a, 3 * row + c] -= pull * (nodes[b, c] - nodes[a, c])
    return total / len(pairs)


@jit
def smoothness(out, weight, grad_out):
    """Mean over nodes of |before - 2 now + after|², out [3 or 4, K, 6] at now, before, after; likewise."""
    n = out.shape[1]
    total, scale = 0.0, _TWO * weight / np.float32(n)
    for k in range(n):
        for row in range(3):
            bent = out[1, k, row] - _TWO * out[0, k, row] + out[2, k, row]
            total += bent * bent
            grad_out[0, k, row] -= _TWO * scale * bent
            grad_out[1, k, row] += scale * bent
            grad_out[2, k, row] += scale * bent
    return total / n


@jit
def maps_backward(out, nodes, quats, grad_maps, grad_out):
    """Add the gradient by out [K, 6] of the maps whose own is grad_maps [K, 16]."""
    g = np.empty(9, np.float32)
    for k in range(nodes.shape[0]):
        for row in range(3):
            pull = grad_maps[k, 9 + row]
            grad_out[k, row] += pull
            for c in range(3):
                g[3 * row + c] = grad_maps[k, 3 * row + c] - pull * nodes[k, c]
        w, x, y, z = quats[k, 0], quats[k, 1], quats[k, 2], quats[k, 3]
        dw = grad_maps[k, 12] + _TWO * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
        dx = grad_maps[k, 13] + _TWO * (
            y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]) - _TWO * x * (g[4] + g[8])
        )
        dy = grad_maps[k, 14] + _TWO * (
            x * (g[1] + g[3]) + z * (g[5] + g[7]) + w * (g[2] - g[6]) - _TWO * y * (g[0] + g[8])
        )
        dz = grad_maps[k, 15] + _TWO * (
            x * (g[2] + g[6]) + y * (g[5] + g[7]) + w * (g[3] - g[1]) - _TWO * z * (g[0] + g[4])
        )
        along = w * dw + x * dx + y * dy + z * dz
        # w is 1 / length before it was normalised.
        grad_out[k, 3] += w * (dx - along * x)
        grad_out[k, 4] += w * (dy - along * y)
        grad_out[k, 5] += w * (dz - along * z)
