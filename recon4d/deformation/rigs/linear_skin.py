"""Linear blend skinning of Gaussians: centres, whole covariances and the rotations within.

A Gaussian follows M = Σ weight · map of its joints: its centre becomes M x, its covariance L Σ Lᵀ with L the
linear part of M. Kernels on a few threads, and a slow twin.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.simd import take_next

#: Pieces of work, whatever the number of threads.
PIECES = 8
#: Newton steps of the polar decomposition, started from a map of determinant 1: beyond what float64 asks for
#: at a condition number of 1,000.
STEPS = 12

Array = npt.NDArray[Any]


class Bound(NamedTuple):
    """What `skin` takes, as arrays: Gaussians bound to joints."""

    means: Array
    covs: Array
    maps: Array
    joints: Array
    weights: Array


def skin(means: Any, covs: Any, maps: Any, index: Any, weights: Any) -> tuple[Any, Any, Any]:
    """(means, covs, rotations) of Gaussians that follow joints.

    means [N, 3], covs [N, 3, 3], maps [J, 4, 4] from where a Gaussian was bound to where it is (column
    vectors), index [N, K] of joints, weights [N, K] whose rows sum to 1. rotations [N, 3, 3] are the polar
    part of each blended linear map. numpy arrays or torch tensors, whose kind comes back; float64 is computed
    in float64, all else in float32. ValueError for shapes that do not fit, or an index outside the joints.
    """
    given = means
    arrays = [_numpy(a) for a in (means, covs, maps, weights)]
    double = arrays[0].dtype == np.float64
    kind = np.float64 if double else np.float32
    x, sigma, g, w = (np.ascontiguousarray(a, kind) for a in arrays)
    joints = np.ascontiguousarray(_numpy(index), np.int64)
    n = len(x)
    fits = x.shape == (n, 3) and sigma.shape == (n, 3, 3) and g.shape[1:] == (4, 4)
    if not (fits and joints.shape == w.shape and joints.ndim == 2 and len(joints) == n):
        raise ValueError("skin: needs means [N, 3], covs [N, 3, 3], maps [J, 4, 4], index and weights [N, K]")
    if joints.size and not (joints.min() >= 0 and joints.max() < len(g)):
        raise ValueError(f"skin: a joint of {int(joints.max())} among {len(g)}")
    moved, covered, turned = np.empty_like(x), np.empty_like(sigma), np.empty_like(sigma)
    threads.run(_skin, PIECES, Bound(x, sigma, g, joints, w), moved, covered, turned)
    return _like(given, moved), _like(given, covered), _like(given, turned)


def skin_reference(
    means: Array, covs: Array, maps: Array, index: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """`skin` by numpy, rotations by singular values."""
    blended = np.einsum("nk,nkij->nij", weights, maps[index])
    linear, offset = blended[:, :3, :3], blended[:, :3, 3]
    moved = np.einsum("nij,nj->ni", linear, means) + offset
    u, _, v = np.linalg.svd(linear)
    return moved, linear @ covs @ linear.transpose(0, 2, 1), u @ v


def spread(covs: Array, floor: float = 0.0) -> tuple[Array, Array]:
    """(standard deviations [N, 3], rotations [N, 3, 3] of determinant 1) of covariances [N, 3, 3].

    The order of the axes is free. Deviations are at least `floor`.
    """
    values, vectors = np.linalg.eigh(covs)
    vectors[np.linalg.det(vectors) < 0, :, 0] *= -1.0
    return np.maximum(np.sqrt(np.maximum(values, 0.0)), floor), vectors


def drawn(
    means: Array, covs: Array, maps: Array, index: Array, weights: Array, frames: Array, floor: float
) -> tuple[Array, Array, Array]:
    """(means [N, 3], quats [N, 4] w x y z, log_scales [N, 3]) that skinned Gaussians are drawn from.

    As `skin` with the eigen-decomposition of each covariance, float32. `frames` [N, 3, 3], rotations whose
    columns are the axes of the covariances as they were bound, only shorten it: turned along, they are nearly
    the axes wanted. Standard deviations are at least `floor`.
    """
    n = len(means)
    moved, quats, logs = (np.empty((n, size), np.float32) for size in (3, 4, 3))
    bound = Bound(means, covs, maps, index, weights)
    threads.run(_drawn, PIECES, bound, frames, floor, moved, quats, logs)
    return moved, quats, logs


def _numpy(a: Any) -> Array:
    return a.detach().cpu().numpy() if hasattr(a, "detach") else np.asarray(a)


def _like(given: Any, found: Array) -> Any:
    if not hasattr(given, "detach"):
        return found
    import torch

    return torch.from_numpy(found).to(given.device)


@jit
def _polar(m, r):  # type: ignore[no-untyped-def]
    """Write the orthogonal part of m [3, 3] into r by Newton's iteration R <- (R + R^-T) / 2."""
    det = (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )
    size = abs(det) ** (1.0 / 3.0)
    if not size > 0.0:
        for i in range(3):
            for j in range(3):
                r[i, j] = 1.0 if i == j else 0.0
        return
    for i in range(3):
        for j in range(3):
            r[i, j] = m[i, j] / size
    for _ in range(STEPS):
        a, b, c = r[0, 0], r[0, 1], r[0, 2]
        d, e, f = r[1, 0], r[1, 1], r[1, 2]
        g, h, k = r[2, 0], r[2, 1], r[2, 2]
        # Rows of the matrix of cofactors, which over the determinant is the inverse's transpose.
        p, q, s = e * k - f * h, f * g - d * k, d * h - e * g
        inverse = 1.0 / (a * p + b * q + c * s)
        most = 0.0
        for i in range(3):
            for j in range(3):
                if i == 0:
                    cofactor = p if j == 0 else (q if j == 1 else s)
                elif i == 1:
                    cofactor = c * h - b * k if j == 0 else (a * k - c * g if j == 1 else b * g - a * h)
                else:
                    cofactor = b * f - c * e if j == 0 else (c * d - a * f if j == 1 else a * e - b * d)
                value = 0.5 * (r[i, j] + cofactor * inverse)
                most = max(most, abs(value - r[i, j]))
                r[i, j] = value
        if most < 1e-15:
            break


@jit
def _blend(i, maps, index, weights, m):  # type: ignore[no-untyped-def]
    m[:] = 0.0
    for e in range(index.shape[1]):
        share = np.float64(weights[i, e])
        if share != 0.0:
            for a in range(3):
                for b in range(4):
                    m[a, b] += share * maps[index[i, e], a, b]


@jit
def _carried(i, means, covs, m, half, moved, sigma):  # type: ignore[no-untyped-def]
    """Place and covariance of Gaussian i under the map m [3, 4]; `half` [3, 3] is scratch."""
    for a in range(3):
        moved[i, a] = m[a, 0] * means[i, 0] + m[a, 1] * means[i, 1] + m[a, 2] * means[i, 2] + m[a, 3]
        for b in range(3):
            half[a, b] = m[a, 0] * covs[i, 0, b] + m[a, 1] * covs[i, 1, b] + m[a, 2] * covs[i, 2, b]
    for a in range(3):
        for b in range(3):
            sigma[a, b] = half[a, 0] * m[b, 0] + half[a, 1] * m[b, 1] + half[a, 2] * m[b, 2]


@jit
def _skin(counter, bound, moved, covered, turned):  # type: ignore[no-untyped-def]
    """`skin`; the last three are outputs."""
    means, covs, maps, index, weights = bound
    n = index.shape[0]
    m = np.empty((3, 4), np.float64)
    r = np.empty((3, 3), np.float64)
    half = np.empty((3, 3), np.float64)
    while True:
        piece = take_next(counter)
        if piece >= PIECES:
            break
        for i in range(n * piece // PIECES, n * (piece + 1) // PIECES):
            _blend(i, maps, index, weights, m)
            _carried(i, means, covs, m, half, moved, covered[i])
            _polar(m[:, :3], r)
            for a in range(3):
                for b in range(3):
                    turned[i, a, b] = r[a, b]


@jit
def _jacobi(s, v):  # type: ignore[no-untyped-def]
    """Diagonalise the symmetric s [3, 3] in place by Jacobi's rotations; v [3, 3] is turned along."""
    for _ in range(12):
        off = abs(s[0, 1]) + abs(s[0, 2]) + abs(s[1, 2])
        if off <= 1e-9 * (abs(s[0, 0]) + abs(s[1, 1]) + abs(s[2, 2])):
            break
        for p in range(2):
            for q in range(p + 1, 3):
                if s[p, q] == 0.0:
                    continue
                theta = (s[q, q] - s[p, p]) / (2.0 * s[p, q])
                t = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
                if theta < 0.0:
                    t = -t
                c = 1.0 / np.sqrt(t * t + 1.0)
                z = t * c
                for k in range(3):
                    a, b = s[k, p], s[k, q]
                    s[k, p], s[k, q] = c * a - z * b, z * a + c * b
                for k in range(3):
                    a, b = s[p, k], s[q, k]
                    s[p, k], s[q, k] = c * a - z * b, z * a + c * b
                for k in range(3):
                    a, b = v[k, p], v[k, q]
                    v[k, p], v[k, q] = c * a - z * b, z * a + c * b


@jit
def _quaternion(v, out):  # type: ignore[no-untyped-def]
    """w x y z of a rotation, by the largest part."""
    trace = v[0, 0] + v[1, 1] + v[2, 2]
    if trace > 0.0:
        s = np.sqrt(trace + 1.0) * 2.0
        out[0], out[1] = 0.25 * s, (v[2, 1] - v[1, 2]) / s
        out[2], out[3] = (v[0, 2] - v[2, 0]) / s, (v[1, 0] - v[0, 1]) / s
    else:
        i = 0
        if v[1, 1] > v[0, 0]:
            i = 1
        if v[2, 2] > v[i, i]:
            i = 2
        j, k = (i + 1) % 3, (i + 2) % 3
        s = np.sqrt(max(1.0 + v[i, i] - v[j, j] - v[k, k], 1e-30)) * 2.0
        out[0], out[1 + i] = (v[k, j] - v[j, k]) / s, 0.25 * s
        out[1 + j], out[1 + k] = (v[j, i] + v[i, j]) / s, (v[k, i] + v[i, k]) / s


@jit
def _drawn(counter, bound, frames, floor, moved, quats, logs):  # type: ignore[no-untyped-def]
    """`drawn`; the last three are outputs."""
    means, covs, maps, index, weights = bound
    n = means.shape[0]
    m, r = np.empty((3, 4)), np.empty((3, 3))
    half, sigma, v, d = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    q = np.empty(4)
    while True:
        piece = take_next(counter)
        if piece >= PIECES:
            break
        for i in range(n * piece // PIECES, n * (piece + 1) // PIECES):
            _blend(i, maps, index, weights, m)
            _carried(i, means, covs, m, half, moved, sigma)
            _polar(m[:, :3], r)
            for a in range(3):
                for b in range(3):
                    v[a, b] = (
                        r[a, 0] * frames[i, 0, b] + r[a, 1] * frames[i, 1, b] + r[a, 2] * frames[i, 2, b]
                    )
            # In these axes the covariance is nearly diagonal.
            for a in range(3):
                for b in range(3):
                    half[a, b] = sigma[a, 0] * v[0, b] + sigma[a, 1] * v[1, b] + sigma[a, 2] * v[2, b]
            for a in range(3):
                for b in range(3):
                    d[a, b] = v[0, a] * half[0, b] + v[1, a] * half[1, b] + v[2, a] * half[2, b]
            _jacobi(d, v)
            det = (
                v[0, 0] * (v[1, 1] * v[2, 2] - v[1, 2] * v[2, 1])
                - v[0, 1] * (v[1, 0] * v[2, 2] - v[1, 2] * v[2, 0])
                + v[0, 2] * (v[1, 0] * v[2, 1] - v[1, 1] * v[2, 0])
            )
            for a in range(3):
                if det < 0.0:
                    v[a, 0] = -v[a, 0]
                logs[i, a] = np.log(max(np.sqrt(max(d[a, a], 0.0)), floor))
            _quaternion(v, q)
            for a in range(4):
                quats[i, a] = q[a]
