"""Colours from spherical harmonics and their hand-written gradient (numba)."""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster.simd import take_next

#: Gaussians per piece of work.
BLOCK = 1024

_C0 = np.float32(0.28209479177387814)
_C1 = np.float32(0.4886025119029199)
_C2 = tuple(
    np.float32(v) for v in (1.0925484305920792, 0.9461746957575601, 0.3153915652525201, 0.5462742152960396)
)
_C3 = tuple(
    np.float32(v)
    for v in (
        0.5900435899266435,
        2.890611442640554,
        2.285228997322329,
        0.4570457994644658,
        1.865881662950577,
        1.119528997770346,
        1.445305721320277,
    )
)
_ZERO, _ONE, _TWO, _THREE = (np.float32(v) for v in (0.0, 1.0, 2.0, 3.0))


@jit(forceinline=True)
def _direction(means, origin, i):
    """Unit vector from the camera to Gaussian i, and 1 / distance (0 where they coincide)."""
    x, y, z = means[i, 0] - origin[0], means[i, 1] - origin[1], means[i, 2] - origin[2]
    square = x * x + y * y + z * z
    inverse = _ZERO
    if square > _ZERO:
        inverse = _ONE / np.sqrt(square)
    return x * inverse, y * inverse, z * inverse, inverse


@jit(forceinline=True)
def _basis(x, y, z, degree, basis):
    """The polynomials of `reference.spherical_harmonics_basis` in one direction."""
    basis[0] = _C0
    if degree >= 1:
        basis[1], basis[2], basis[3] = -_C1 * y, _C1 * z, -_C1 * x
    if degree >= 2:
        basis[4], basis[5] = _C2[0] * x * y, -_C2[0] * y * z
        basis[6] = _C2[1] * z * z - _C2[2]
        basis[7], basis[8] = -_C2[0] * x * z, _C2[3] * (x * x - y * y)
    if degree >= 3:
        lobe = _C3[3] - _C3[2] * z * z
        basis[9] = -_C3[0] * y * (_THREE * x * x - y * y)
        basis[10] = _C3[1] * x * y * z
        basis[11] = lobe * y
        basis[12] = z * (_C3[4] * z * z - _C3[5])
        basis[13] = lobe * x
        basis[14] = _C3[6] * z * (x * x - y * y)
        basis[15] = -_C3[0] * x * (x * x - _THREE * y * y)


@jit(forceinline=True)
def _basis_gradient(x, y, z, degree, d):
    """Gradient of sum(basis · d) with respect to the direction, taken as a free vector."""
    gx = gy = gz = _ZERO
    if degree >= 1:
        gx, gy, gz = -_C1 * d[3], -_C1 * d[1], _C1 * d[2]
    if degree >= 2:
        gx += _C2[0] * (y * d[4] - z * d[7]) + _TWO * _C2[3] * x * d[8]
        gy += _C2[0] * (x * d[4] - z * d[5]) - _TWO * _C2[3] * y * d[8]
        gz += _TWO * _C2[1] * z * d[6] - _C2[0] * (y * d[5] + x * d[7])
    if degree >= 3:
        lobe, lobe_z = _C3[3] - _C3[2] * z * z, -_TWO * _C3[2] * z
        xx, yy, zz = x * x, y * y, z * z
        gx += -_C3[0] * np.float32(6.0) * x * y * d[9] + _C3[1] * y * z * d[10] + lobe * d[13]
        gx += _TWO * _C3[6] * z * x * d[14] - _C3[0] * _THREE * (xx - yy) * d[15]
        gy += -_C3[0] * _THREE * (xx - yy) * d[9] + _C3[1] * x * z * d[10] + lobe * d[11]
        gy += -_TWO * _C3[6] * z * y * d[14] + _C3[0] * np.float32(6.0) * x * y * d[15]
        gz += _C3[1] * x * y * d[10] + lobe_z * (y * d[11] + x * d[13])
        gz += (_THREE * _C3[4] * zz - _C3[5]) * d[12] + _C3[6] * (xx - yy) * d[14]
    return gx, gy, gz


@jit
def evaluate(counter, lobes, colors):
    """colors [N, 3] = max(0, 0.5 + basis · coefficients) of `arguments.Lobes`; 0 where `visible` is 0."""
    means, coefficients, origin, degree, visible = lobes
    n, used = means.shape[0], (degree + 1) * (degree + 1)
    blocks = (n + BLOCK - 1) // BLOCK
    basis = np.empty(16, np.float32)
    while True:
        block = take_next(counter)
        if block >= blocks:
            break
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            if visible[i, 0] == 0:
                colors[i, 0], colors[i, 1], colors[i, 2] = _ZERO, _ZERO, _ZERO
                continue
            x, y, z, _ = _direction(means, origin, i)
            _basis(x, y, z, degree, basis)
            red = green = blue = np.float32(0.5)
            for k in range(used):
                red += basis[k] * coefficients[i, k, 0]
                green += basis[k] * coefficients[i, k, 1]
                blue += basis[k] * coefficients[i, k, 2]
            colors[i, 0], colors[i, 1], colors[i, 2] = max(red, _ZERO), max(green, _ZERO), max(blue, _ZERO)


@jit
def evaluate_backward(counter, lobes, colors, grad_colors, gradients):
    """Add one camera's `arguments.LobeGradients`; that by the origin receives one sum per block."""
    means, coefficients, origin, degree, visible = lobes
    grad_coefficients, grad_means, grad_origin = gradients
    n, used = means.shape[0], (degree + 1) * (degree + 1)
    blocks = (n + BLOCK - 1) // BLOCK
    basis, pull = np.empty(16, np.float32), np.zeros(16, np.float32)
    geometry = grad_means.shape[0] > 0
    while True:
        block = take_next(counter)
        if block >= blocks:
            break
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            if visible[i, 0] == 0:
                continue
            # A colour clamped at 0 passes no gradient.
            red = grad_colors[i, 0] if colors[i, 0] > _ZERO else _ZERO
            green = grad_colors[i, 1] if colors[i, 1] > _ZERO else _ZERO
            blue = grad_colors[i, 2] if colors[i, 2] > _ZERO else _ZERO
            x, y, z, inverse = _direction(means, origin, i)
            _basis(x, y, z, degree, basis)
            for k in range(used):
                grad_coefficients[i, k, 0] += basis[k] * red
                grad_coefficients[i, k, 1] += basis[k] * green
                grad_coefficients[i, k, 2] += basis[k] * blue
            if not geometry or degree == 0:
                continue
            for k in range(used):
                c = coefficients[i, k]
                pull[k] = c[0] * red + c[1] * green + c[2] * blue
            gx, gy, gz = _basis_gradient(x, y, z, degree, pull)
            along = gx * x + gy * y + gz * z
            gx, gy, gz = (gx - along * x) * inverse, (gy - along * y) * inverse, (gz - along * z) * inverse
            grad_means[i, 0] += gx
            grad_means[i, 1] += gy
            grad_means[i, 2] += gz
            grad_origin[block, 0] -= gx
            grad_origin[block, 1] -= gy
            grad_origin[block, 2] -= gz
