"""From a table of white coordinates to the nodes' rows at a few times, and back (numba).

Two small matrix products, added in one order, so that they have the same bits on any number of threads.
"""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.jit import jit


@jit
def blend(shares, table, rows):
    """rows [K, S D] = shares [S, T] x table [T, K, D], the D numbers of each time side by side."""
    s, (t, k, d) = shares.shape[0], table.shape
    rows[:] = np.float32(0.0)
    for b in range(s):
        for a in range(t):
            share = shares[b, a]
            if share == np.float32(0.0):
                continue
            for i in range(k):
                for j in range(d):
                    rows[i, b * d + j] += share * table[a, i, j]


@jit
def blend_backward(shares, grad_rows, grad_table):
    """The gradient by the table, overwritten."""
    s, (t, k, d) = shares.shape[0], grad_table.shape
    grad_table[:] = np.float32(0.0)
    for a in range(t):
        for b in range(s):
            share = shares[b, a]
            if share == np.float32(0.0):
                continue
            for i in range(k):
                for j in range(d):
                    grad_table[a, i, j] += share * grad_rows[i, b * d + j]


@jit
def spread(root, rows, out):
    """out [K, C] = root [K, K] x rows [K, C]; the root is symmetric, so this is its own gradient too."""
    k, c = rows.shape
    out[:] = np.float32(0.0)
    for i in range(k):
        for a in range(k):
            weight = root[i, a]
            for j in range(c):
                out[i, j] += weight * rows[a, j]
