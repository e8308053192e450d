"""A step of a field of paths on the CPU without autograd."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.recon4d.deformation.node_motion import SkinnedMotion
from orbit4d.recon4d.deformation.paths import path_kernels
from orbit4d.recon4d.deformation.paths.path_field import PathField

Float = npt.NDArray[np.float32]


class PathMotion(SkinnedMotion):
    """Of a `PathField`, whose table is `values`, flat. Its own operations are the slow twin."""

    field: PathField

    def __init__(self, field: PathField, values: Float, n: int) -> None:
        super().__init__(field, n)
        self.table = values.reshape(field.table.shape)
        self.root, self.units = field.spread.numpy(), field.units.numpy()
        self._shares: dict[tuple[float, ...], Float] = {}
        self._room: dict[int, tuple[Float, Float, Float, Float]] = {}
        self._asked: tuple[float, ...] = ()

    def outputs(self, times: tuple[float, ...]) -> tuple[Float, Float]:
        self._asked = times
        if times not in self._shares:
            with torch.no_grad():
                self._shares[times] = self.field.shares(torch.tensor(times)).numpy()
        rows, wide, out, grad_out = self._buffers(len(times))
        path_kernels.blend(self._shares[times], self.table, rows)
        path_kernels.spread(self.root, rows, wide)
        np.multiply(wide.reshape(len(wide), len(times), -1).swapaxes(0, 1), self.units, out=out)
        return out, grad_out

    def pull_outputs(self, gradient: Float) -> None:
        rows, wide, _, grad_out = self._buffers(len(self._asked))
        np.multiply(grad_out.swapaxes(0, 1), self.units, out=wide.reshape(len(wide), len(self._asked), -1))
        path_kernels.spread(self.root, wide, rows)
        path_kernels.blend_backward(self._shares[self._asked], rows, gradient.reshape(self.table.shape))

    def _buffers(self, times: int) -> tuple[Float, Float, Float, Float]:
        if times not in self._room:
            k, d = self.table.shape[1:]
            flat, deep = (k, times * d), (times, k, d)
            self._room[times] = (
                np.empty(flat, np.float32), np.empty(flat, np.float32), np.empty(deep, np.float32),
                np.empty(deep, np.float32),
            )  # fmt: skip
        return self._room[times]
