"""What the packed formats share: unit quaternions, smallest-three packing, Morton order, finite logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

Array = npt.NDArray[Any]
#: Opacities are read into these bounds, so that their logits are finite.
OPACITY = 1e-6
#: By so much an opacity may leave [0, 1] as other programs round it.
ROUNDING = 1e-3
#: Bits of each axis in a Morton code.
_MORTON_BITS = 10


def unit_quats(gaussians: Gaussians) -> npt.NDArray[np.float64]:
    """[N, 4] rotations w x y z of length 1; one of length 0 is no rotation."""
    quats = gaussians.quats.detach().cpu().double().numpy()
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    return np.where(length > 0, quats / np.maximum(length, 1e-300), (1.0, 0.0, 0.0, 0.0))


def f_dc(gaussians: Gaussians) -> npt.NDArray[np.float64]:
    """[N, 3] constant harmonics."""
    return (gaussians.colors.detach().cpu().double().numpy() - 0.5) / SH_C0


def from_arrays(
    means: Array, log_scales: Array, quats: Array, opacities: Array, dc: Array, harmonics: Array | None = None
) -> Gaussians:
    """Gaussians of arrays as files have them: opacities in [0, 1], `dc` and `harmonics` coefficients."""
    o = np.clip(np.asarray(opacities, np.float64), OPACITY, 1 - OPACITY)

    def tensor(array: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    rest = np.zeros((len(means), 0, 3)) if harmonics is None else harmonics
    return Gaussians(
        means=tensor(means), log_scales=tensor(log_scales), quats=tensor(quats),
        logits=tensor(np.log(o / (1 - o))), colors=tensor(np.asarray(dc) * SH_C0 + 0.5),
        harmonics=tensor(rest),
    )  # fmt: skip


def positive_scales(scales: Array, name: str) -> Array:
    """Standard deviations [N, 3] of the file `name`, of which none is 0. InputError for negative ones."""
    values = np.asarray(scales, np.float64)
    if (values < 0).any():
        raise InputError(
            f"{name}: {int((values < 0).any(1).sum())} of {len(values)} Gaussians have a negative size; the "
            "file is damaged"
        )
    return np.maximum(values, 1e-30)


def shares(opacities: Array, name: str) -> Array:
    """Opacities [N] of the file `name`, within rounding of [0, 1]. InputError for others."""
    values = np.asarray(opacities, np.float64)
    out = (values < -ROUNDING) | (values > 1 + ROUNDING)
    if out.any():
        raise InputError(
            f"{name}: {int(out.sum())} of {len(values)} Gaussians have an opacity outside [0, 1]; the file "
            "is damaged"
        )
    return values


def largest_and_rest(quats: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Index [N] of the largest component, and the other three [N, 3] in order, its sign made positive."""
    largest = np.abs(quats).argmax(axis=1)
    rows = np.arange(len(quats))
    sign = np.where(quats[rows, largest] < 0, -1.0, 1.0)
    others = np.array([[j for j in range(4) if j != i] for i in range(4)])[largest]
    return largest, quats[rows[:, None], others] * sign[:, None]


def from_largest(largest: Array, rest: Array) -> Array:
    """Inverse of `largest_and_rest`: unit quaternions [N, 4]."""
    quats = np.zeros((len(rest), 4))
    others = np.array([[j for j in range(4) if j != i] for i in range(4)])[largest]
    rows = np.arange(len(rest))
    quats[rows[:, None], others] = rest
    quats[rows, largest] = np.sqrt(np.clip(1.0 - np.square(rest).sum(axis=1), 0.0, 1.0))
    return quats


def morton_order(means: Array) -> npt.NDArray[np.int64]:
    """Order along a Morton curve through the bounding box: neighbours in it are neighbours in space."""
    low, high = means.min(axis=0), means.max(axis=0)
    cells = (means - low) / np.maximum(high - low, 1e-12) * ((1 << _MORTON_BITS) - 1)
    grid = cells.astype(np.uint64)
    code = np.zeros(len(means), np.uint64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            bits = (grid[:, axis] >> np.uint64(bit)) & np.uint64(1)
            code |= bits << np.uint64(3 * bit + axis)
    return np.argsort(code, kind="stable").astype(np.int64)


def picked(gaussians: Gaussians, order: Array) -> Gaussians:
    """The Gaussians in another order, or some of them."""
    index = torch.from_numpy(np.ascontiguousarray(order, np.int64))
    return Gaussians(**{name: t.detach().cpu()[index] for name, t in gaussians.tensors().items()})
