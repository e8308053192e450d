"""Vertices predicted by joints: the smaller packing of skinned and rigid actions.

Each different vertex is a sum over a few joints of weight · matrix(t, joint) · basis. Basis and weights come
from Blender's rig; the matrices are fitted to the vertices by least squares, so that the rig need not be
understood beyond its weights, and the whole steps that the prediction misses by are stored beside. That makes
it exact for any motion, and small where joints explain it.

Everything is summed in a fixed order: encoder and reader, and two machines, get the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit
from orbit4d.datasets.geometry.vertices import Quantised

_BASIS_BITS = 22
#: Joints beyond which the fit would take longer than it saves.
MOST_JOINTS = 256


@dataclass(frozen=True)
class Skin:
    """How `U` vertices hang on `J` joints."""

    basis: npt.NDArray[np.int32]
    """[U, 3] whole steps of 1 / 2^22 of the largest extent around the middle."""
    starts: npt.NDArray[np.int32]
    """[U + 1] where each vertex's weights begin."""
    joint: npt.NDArray[np.uint16]
    """[E]"""
    weight: npt.NDArray[np.uint16]
    """[E] in 65535ths."""
    matrices: npt.NDArray[np.float32]
    """[T, J, 3, 4] from the basis to whole steps of the vertices."""

    def predicted(self) -> npt.NDArray[np.int32]:
        """[T, U, 3]"""
        return _predict(self.basis, self.starts, self.joint, self.weight, self.matrices)


def fit_skin(found: Quantised, basis: npt.NDArray[np.float64], coo: npt.NDArray[np.float64]) -> Skin | None:
    """A skin for the vertices of `found`, from the rig's `basis` [V, 3] and weights `coo` [E, 3] (vertex,
    joint, weight) over the vertices before welding; None where there are too many joints.
    """
    n_joints = int(coo[:, 1].max(initial=-1)) + 1
    if not 0 < n_joints <= MOST_JOINTS or not np.isfinite(basis).all():
        return None
    first = np.full(found.steps.shape[1], -1, np.int64)
    first[found.weld[::-1]] = np.arange(len(found.weld))[::-1]
    order = np.argsort(coo[:, 0], kind="stable")
    vertex = coo[order, 0].astype(np.int64)
    begins, ends = np.searchsorted(vertex, first), np.searchsorted(vertex, first, side="right")
    rows = np.concatenate([order[a:b] for a, b in zip(begins, ends)])
    starts = np.concatenate([[0], np.cumsum(ends - begins)]).astype(np.int32)
    places = basis[first]
    middle, extent = 0.5 * (places.min(0) + places.max(0)), float(np.ptp(places, axis=0).max()) or 1.0
    steps = np.rint((places - middle) / extent * (1 << _BASIS_BITS)).astype(np.int32)
    joint = coo[rows, 1].astype(np.uint16)
    weight = np.rint(coo[rows, 2].clip(0.0, 1.0) * 65535.0).astype(np.uint16)
    matrices = _fit(steps, starts, joint, weight, n_joints, found.steps)
    if not np.isfinite(matrices).all():
        return None
    return Skin(steps, starts, joint, weight, matrices)


def skin_blocks(skin: Skin, found: Quantised) -> dict[str, tuple[npt.NDArray[Any], str]]:
    """Blocks of a container that hold the vertices of `found`."""
    return {
        "skin_basis": (skin.basis, "delta+zigzag+split+zstd"),
        "skin_counts": (np.diff(skin.starts).astype(np.uint16), "split+zstd"),
        "skin_joint": (skin.joint, "split+zstd"),
        "skin_weight": (skin.weight, "split+zstd"),
        "skin_matrices": (skin.matrices, "split+zstd"),
        "skin_misses": (found.steps - skin.predicted(), "zigzag+split+zstd"),
    }


def steps_of(blocks: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
    """[T, U, 3] whole steps from the blocks of `skin_blocks`. ValueError where they do not fit."""
    starts = np.concatenate([[0], np.cumsum(blocks["skin_counts"], dtype=np.int64)]).astype(np.int32)
    skin = Skin(
        blocks["skin_basis"], starts, blocks["skin_joint"], blocks["skin_weight"], blocks["skin_matrices"]
    )
    misses = blocks["skin_misses"]
    n_times, n_joints = skin.matrices.shape[:2]
    if not (
        skin.matrices.shape[2:] == (3, 4)
        and misses.shape == (n_times, len(skin.basis), 3) == (n_times, len(starts) - 1, 3)
        and len(skin.joint) == len(skin.weight) == starts[-1]
        and (not len(skin.joint) or skin.joint.max() < n_joints)
    ):
        raise ValueError("a skin that does not fit")
    return skin.predicted() + misses


@jit
def _terms(i, basis, starts, joint, weight, places, values):  # type: ignore[no-untyped-def]
    """Fill the places and values of vertex `i` in its row of the equations; returns how many."""
    total = 0.0
    for e in range(starts[i], starts[i + 1]):
        total += weight[e]
    n = 0
    for e in range(starts[i], starts[i + 1]):
        share = weight[e] / total if total > 0.0 else 0.0
        for k in range(4):
            places[n] = 4 * joint[e] + k
            values[n] = share * (basis[i, k] / 4194304.0 if k < 3 else 1.0)
            n += 1
    return n


@jit
def _fit(basis, starts, joint, weight, n_joints, steps):  # type: ignore[no-untyped-def]
    """[T, J, 3, 4] float32: least squares by the normal equations, with a trace of the identity."""
    n_times, n_vertices, _ = steps.shape
    size = 4 * n_joints
    most = 0
    for i in range(n_vertices):
        most = max(most, starts[i + 1] - starts[i])
    places, values = np.empty(4 * most, np.int64), np.empty(4 * most)
    normal, right = np.zeros((size, size)), np.zeros((size, 3 * n_times))
    for i in range(n_vertices):
        n = _terms(i, basis, starts, joint, weight, places, values)
        for p in range(n):
            for q in range(n):
                normal[places[p], places[q]] += values[p] * values[q]
            for t in range(n_times):
                for k in range(3):
                    right[places[p], 3 * t + k] += values[p] * steps[t, i, k]
    for p in range(size):
        normal[p, p] += 1e-9 * n_vertices / n_joints + 1e-12
    _solve(normal, right)
    out = np.zeros((n_times, n_joints, 3, 4), np.float32)
    for p in range(size):
        for t in range(n_times):
            for k in range(3):
                out[t, p // 4, k, p % 4] = np.float32(right[p, 3 * t + k])
    return out


@jit
def _solve(normal, right):  # type: ignore[no-untyped-def]
    """Solve normal · x = right in place, by Cholesky's method; `normal` is symmetric and positive."""
    size, columns = right.shape
    for j in range(size):
        for k in range(j):
            if normal[j, k] != 0.0:
                for i in range(j, size):
                    normal[i, j] -= normal[i, k] * normal[j, k]
        root = np.sqrt(normal[j, j])
        for i in range(j, size):
            normal[i, j] /= root
    for i in range(size):
        for k in range(i):
            if normal[i, k] != 0.0:
                for c in range(columns):
                    right[i, c] -= normal[i, k] * right[k, c]
        for c in range(columns):
            right[i, c] /= normal[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            if normal[k, i] != 0.0:
                for c in range(columns):
                    right[i, c] -= normal[k, i] * right[k, c]
        for c in range(columns):
            right[i, c] /= normal[i, i]


@jit
def _predict(basis, starts, joint, weight, matrices):  # type: ignore[no-untyped-def]
    n_times, n_vertices = len(matrices), len(basis)
    out = np.empty((n_times, n_vertices, 3), np.int32)
    most = 0
    for i in range(n_vertices):
        most = max(most, starts[i + 1] - starts[i])
    places, values = np.empty(4 * most, np.int64), np.empty(4 * most)
    for i in range(n_vertices):
        n = _terms(i, basis, starts, joint, weight, places, values)
        for t in range(n_times):
            for k in range(3):
                total = 0.0
                for p in range(n):
                    total += values[p] * matrices[t, places[p] // 4, k, places[p] % 4]
                out[t, i, k] = np.int32(np.rint(min(max(total, -1073741824.0), 1073741824.0)))
    return out
