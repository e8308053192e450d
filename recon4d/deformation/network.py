"""The node field's network on the CPU: all nodes at all asked times in one pass, and its gradient (numba).

As torch operations it is a string of small matrix products whose calls take longer than their sums, and which
differ in the last digit with the number of torch's threads. Here a matrix product keeps eight rows of sixteen
columns in registers and adds in one order. `NodeField.motions` is the slow twin.

Kernels take loose arguments: with named tuples a pass back through the field, this and `skinning`, measured
1.79 ms against 1.64, 9 % more.

Parameters come as one flat array in the order in which the field registers them: place [W, E] and its bias,
moment [W, M] and its bias, depth - 1 times hidden [W, W] and bias, head [6, W] and bias. W is a multiple of
16. Row t·K + k of `hidden` [depth, R, W] is node k at time t; R is T·K raised to a multiple of 8.
"""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster.simd import (
    exp2,
    fma,
    load,
    maximum,
    minimum,
    reciprocal,
    splat,
    splat_at,
    store,
    total,
)

LANES = 16
#: Rows of a matrix product that are kept in registers together.
ROWS = 8
#: Numbers that the network says of a node: a translation, and the vector part of a quaternion.
OUTPUTS = 6

_LIMIT = np.float32(80.0)
_LOG2_E = np.float32(np.log2(np.e))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@jit
def product(a, a_at, a_row, a_inner, b, b_at, b_row, c, c_at, c_row, rows, inner, columns, bias):
    """c[i, j] = bias[j] + Σ_k a[i, k]·b[k, j] on flat arrays, each with its start and strides.

    Rows are a multiple of 8, columns of 16; an empty `bias` is none. Sums run over k in order.
    """
    for j in range(0, columns, LANES):
        start = load(bias, j) if len(bias) else splat(_ZERO)
        for i in range(0, rows, ROWS):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = start
            at = a_at + i * a_row
            for k in range(inner):
                x = load(b, b_at + k * b_row + j)
                here = at + k * a_inner
                s0 = fma(splat_at(a, here), x, s0)
                s1 = fma(splat_at(a, here + a_row), x, s1)
                s2 = fma(splat_at(a, here + 2 * a_row), x, s2)
                s3 = fma(splat_at(a, here + 3 * a_row), x, s3)
                s4 = fma(splat_at(a, here + 4 * a_row), x, s4)
                s5 = fma(splat_at(a, here + 5 * a_row), x, s5)
                s6 = fma(splat_at(a, here + 6 * a_row), x, s6)
                s7 = fma(splat_at(a, here + 7 * a_row), x, s7)
            to = c_at + i * c_row + j
            store(c, to, s0)
            store(c, to + c_row, s1)
            store(c, to + 2 * c_row, s2)
            store(c, to + 3 * c_row, s3)
            store(c, to + 4 * c_row, s4)
            store(c, to + 5 * c_row, s5)
            store(c, to + 6 * c_row, s6)
            store(c, to + 7 * c_row, s7)


@jit(forceinline=True)
def _silu(values, slopes, at):
    """Sixteen values x become x·σ(x); `slopes` receives the derivative."""
    x = load(values, at)
    bounded = maximum(minimum(x, splat(_LIMIT)), splat(-_LIMIT))
    gate = reciprocal(splat(_ONE) + exp2(splat(-_LOG2_E) * bounded))
    store(values, at, x * gate)
    store(slopes, at, gate * fma(x, splat(_ONE) - gate, splat(_ONE)))


@jit
def _transposed(values, at, rows, columns, out):
    """[rows, columns] at `at` to [columns, rows] at the start of `out`."""
    for i in range(rows):
        for j in range(columns):
            out[j * rows + i] = values[at + i * columns + j]


@jit
def forward(values, depth, width, places, n_nodes, n_places, moments, scratch, hidden, slopes, out):
    """What the network says: out [T, K, 6].

    places [K raised to 8, E raised to 16] and moments [T, M] are the encoded nodes and times; scratch holds
    max(W, E)·W + W + K·W floats. `hidden` and `slopes` [depth·R·W] are kept for `backward`.
    """
    times, n_moments = moments.shape
    padded = places.shape[0]
    rows = len(hidden) // (depth * width)
    turned = scratch[: max(width, n_places) * width]
    seen = scratch[len(turned) : len(turned) + padded * width]
    row = scratch[len(turned) + len(seen) : len(turned) + len(seen) + width]
    _transposed(values, 0, width, n_places, turned)
    at = width * n_places
    bias = values[at : at + width]
    product(
        places.reshape(-1), 0, places.shape[1], 1, turned, 0, width, seen, 0, width, padded, n_places, width,
        bias,
    )  # fmt: skip
    at += width
    for t in range(times):
        for j in range(width):
            value = values[at + width * n_moments + j]
            for m in range(n_moments):
                value += values[at + j * n_moments + m] * moments[t, m]
            row[j] = value
        for k in range(n_nodes):
            to = (t * n_nodes + k) * width
            for j in range(0, width, LANES):
                store(hidden, to + j, load(seen, k * width + j) + load(row, j))
                _silu(hidden, slopes, to + j)
    at += width * (n_moments + 1)
    for layer in range(1, depth):
        _transposed(values, at, width, width, turned)
        to = layer * rows * width
        bias = values[at + width * width : at + width * (width + 1)]
        product(
            hidden, to - rows * width, width, 1, turned, 0, width, hidden, to, width, rows, width, width, bias
        )
        for j in range(to, to + rows * width, LANES):
            _silu(hidden, slopes, j)
        at += width * (width + 1)
    last = (depth - 1) * rows * width
    for r in range(times * n_nodes):
        t, k = r // n_nodes, r % n_nodes
        for c in range(OUTPUTS):
            sums = splat(_ZERO)
            for j in range(0, width, LANES):
                sums = fma(load(hidden, last + r * width + j), load(values, at + c * width + j), sums)
            out[t, k, c] = total(sums) + values[at + OUTPUTS * width + c]


@jit
def backward(
    values, depth, width, places, n_nodes, n_places, moments, scratch, hidden, slopes, grad_out, pulled,
    other, gradient,
):  # fmt: skip
    """Gradient by every parameter from grad_out [T, K, 6] into `gradient`, laid out as `values`.

    pulled and other [R·W] are scratch; rows beyond T·K of both are zero and stay so.
    """
    times, n_moments = moments.shape
    padded, wide = places.shape
    rows = len(hidden) // (depth * width)
    none = values[:0]
    used = times * n_nodes
    at = len(values) - OUTPUTS * (width + 1)
    last = (depth - 1) * rows * width
    gradient[at:] = _ZERO
    for r in range(used):
        t, k = r // n_nodes, r % n_nodes
        for c in range(OUTPUTS):
            gradient[at + OUTPUTS * width + c] += grad_out[t, k, c]
        for j in range(0, width, LANES):
            h, back = load(hidden, last + r * width + j), splat(_ZERO)
            for c in range(OUTPUTS):
                pull, to = splat(grad_out[t, k, c]), at + c * width + j
                back = fma(pull, load(values, to), back)
                store(gradient, to, fma(pull, h, load(gradient, to)))
            store(pulled, r * width + j, back * load(slopes, last + r * width + j))
    for layer in range(depth - 1, 0, -1):
        at -= width * (width + 1)
        below = (layer - 1) * rows * width
        product(pulled, 0, 1, width, hidden, below, width, gradient, at, width, width, used, width, none)
        _column_sums(pulled, 0, used, width, gradient, at + width * width)
        product(pulled, 0, width, 1, values, at, width, other, 0, width, rows, width, width, none)
        for j in range(0, used * width, LANES):
            store(pulled, j, load(other, j) * load(slopes, below + j))
    # The first layer's two parts: summed over times for the places, over nodes for the moments.
    sums = scratch[: padded * width]
    sums[n_nodes * width :] = _ZERO
    by_place = scratch[padded * width : padded * width + width * wide]
    moment = width * (n_places + 1)
    gradient[:at] = _ZERO
    for t in range(times):
        start = t * n_nodes * width
        row = by_place[:width]
        _column_sums(pulled, start, n_nodes, width, row, 0)
        for j in range(width):
            gradient[moment + width * n_moments + j] += row[j]
            gradient[width * n_places + j] += row[j]
            for m in range(n_moments):
                gradient[moment + j * n_moments + m] += row[j] * moments[t, m]
        for j in range(n_nodes * width):
            sums[j] = pulled[start + j] if t == 0 else sums[j] + pulled[start + j]
    product(sums, 0, 1, width, places.reshape(-1), 0, wide, by_place, 0, wide, width, n_nodes, wide, none)
    for j in range(width):
        for e in range(n_places):
            gradient[j * n_places + e] = by_place[j * wide + e]


@jit
def _column_sums(values, at, rows, width, out, to):
    """out[to + j] = Σ over rows of values[at + row·width + j]."""
    for j in range(0, width, LANES):
        sums = splat(_ZERO)
        for r in range(rows):
            sums = sums + load(values, at + r * width + j)
        store(out, to + j, sums)
