"""Adam (Kingma and Ba 2015) over one flat array that all parameters are views of.

On the CPU a kernel takes fixed pieces of it, so that the result does not depend on the number of threads, and
`torch.optim`, whose import takes a second, is not needed. `update_reference` is the slow twin, and the way of
tensors elsewhere: a dozen launches, none of which waits for the device. Matrices of a group may move by Muon
instead (`orthogonalise`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d import muon
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.simd import take_next

EPS = 1e-15
#: 1 - beta1 and 1 - beta2 of one view an update.
FORGET1, FORGET2 = 0.1, 0.001
#: Parameters in one piece of work.
PIECE = 8192


@dataclass
class Group:
    """A run of the flat array whose parameters share a rate and a count of updates."""

    name: str
    start: int
    stop: int
    base: float
    """Rate at the start of a fit."""
    rate: float
    """Rate of the next update."""
    updates: int = 0
    """Updates so far: bias correction needs a count of its own where a group joins later."""
    matrices: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Start and shape of the matrices that Muon moves, whose momentum is their first moment."""
    muon: float = 0.0
    """Muon's rate where `rate` is `base`; the two rise and fall together."""

    def runs(self) -> list[tuple[int, int]]:
        """What Adam moves: starts and stops, without the matrices."""
        found, at = [], self.start
        for start, (rows, columns) in sorted(self.matrices.items()):
            found.append((at, start))
            at = start + rows * columns
        return [run for run in [*found, (at, self.stop)] if run[0] < run[1]]


class Adam:
    """The parameters of a fit, their moments, and the gradients of the views of one update.

    `values`, `first` and `second` are [P]; `leaves` holds the parameters by group, views of `values`. With
    several views an update the moments forget as many times as fast, so that they reach back over as many
    views as before (Malladi et al. 2022, arXiv 2205.10287; that rule's rates grow by the square root).
    """

    def __init__(self, groups: Sequence[tuple[str, float, Sequence[Tensor]]], views: int = 1) -> None:
        self.betas = (1 - views * FORGET1, 1 - views * FORGET2)
        self.groups: dict[str, Group] = {}
        self.leaves: dict[str, list[Tensor]] = {}
        tensors = [tensor for _, _, members in groups for tensor in members]
        self.values = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self.first, self.second = torch.zeros_like(self.values), torch.zeros_like(self.values)
        at = 0
        for name, rate, members in groups:
            start = at
            self.leaves[name] = []
            for tensor in members:
                view = self.values[at : at + tensor.numel()].view(tensor.shape)
                self.leaves[name].append(view.detach().requires_grad_())
                at += tensor.numel()
            self.groups[name] = Group(name, start, at, rate, rate)
        self._rows: list[Tensor] = []

    def orthogonalise(self, name: str, leaves: Sequence[int], rate: float) -> None:
        """Move these leaves of a group, by their numbers, by Muon; `rate` goes with the group's base rate.

        A rate of 0 leaves all to Adam. ValueError for a leaf that is no matrix.
        """
        group, at = self.groups[name], self.groups[name].start
        group.matrices, group.muon = {}, rate
        for i, leaf in enumerate(self.leaves[name]):
            if rate and i in leaves:
                rows, columns = leaf.shape
                group.matrices[at] = (rows, columns)
            at += leaf.numel()

    def row(self, view: int) -> Tensor:
        """[P] that receives the gradient of the `view`-th view of an update; not cleared in between."""
        while len(self._rows) <= view:
            self._rows.append(torch.zeros_like(self.values))
        return self._rows[view]

    def part(self, row: Tensor, name: str) -> Tensor:
        """The run of a group in a flat array."""
        group = self.groups[name]
        return row[group.start : group.stop]

    def put(self, row: Tensor, name: str, gradients: Sequence[Tensor | None]) -> None:
        """Write gradients by the leaves of a group (None: zero) into a flat array."""
        at = self.groups[name].start
        for leaf, gradient in zip(self.leaves[name], gradients):
            run = row[at : at + leaf.numel()]
            if gradient is None:
                run.zero_()
            else:
                run.copy_(gradient.reshape(-1))
            at += leaf.numel()

    @torch.no_grad()
    def step(self, views: int, names: Sequence[str]) -> None:
        """Update the groups by the mean of the first `views` rows, added up in order."""
        rows = [self.row(view) for view in range(views)]
        taken = [self.groups[name] for name in names]
        for group in taken:
            group.updates += 1
        if self.values.device.type != "cpu":
            update_reference(self.values, self.first, self.second, rows, taken, self.betas)
            return
        runs = [(group, run) for group in taken for run in group.runs()]
        table = np.array([run for _, run in runs], np.int64)
        steps = np.array([_sizes(group, self.betas) for group, _ in runs], np.float32)
        shares = np.array([1 - self.betas[0], self.betas[1], 1 - self.betas[1]], np.float32)
        flat = [tensor.numpy() for tensor in (self.values, self.first, self.second)]
        gradients = [row.numpy() for row in rows]
        pieces = -(-len(flat[0]) // PIECE)
        threads.run(
            _update,
            pieces,
            *flat,
            gradients[0],
            gradients[1] if views > 1 else gradients[0][:0],
            table,
            steps,
            shares,
        )
        threads.each(_by_muon(self.values, self.first, rows, taken, self.betas))

    def record(self) -> dict[str, Any]:
        """Moments and counts for a checkpoint, on the CPU."""
        counts = {name: group.updates for name, group in self.groups.items()}
        return {"first": self.first.cpu(), "second": self.second.cpu(), "updates": counts}

    def restore(self, record: dict[str, Any]) -> None:
        """Inverse of `record`. ValueError for a record of other parameters."""
        if record["first"].shape != self.first.shape or set(record["updates"]) != set(self.groups):
            raise ValueError("its optimiser belongs to other parameters")
        self.first.copy_(record["first"])
        self.second.copy_(record["second"])
        for name, count in record["updates"].items():
            self.groups[name].updates = count


def _sizes(group: Group, betas: tuple[float, float]) -> tuple[float, float]:
    """Rate over the first moment's correction, and 1 / √ of the second's."""
    n = group.updates
    return group.rate / (1 - betas[0] ** n), (1 - betas[1] ** n) ** -0.5


def update_reference(
    values: Tensor, first: Tensor, second: Tensor, rows: Sequence[Tensor], groups: Sequence[Group],
    betas: tuple[float, float],
) -> None:  # fmt: skip
    """One update in torch operations."""
    gradient = _mean(rows)
    for group in groups:
        rate, inverse = _sizes(group, betas)
        for start, stop in group.runs():
            run = slice(start, stop)
            first[run].lerp_(gradient[run], 1 - betas[0])
            second[run].mul_(betas[1]).addcmul_(gradient[run], gradient[run], value=1 - betas[1])
            below = (second[run].sqrt() * inverse).add_(EPS)
            values[run].addcdiv_(first[run], below, value=-rate)
    for move in _by_muon(values, first, rows, groups, betas):
        move()


def _mean(rows: Sequence[Tensor]) -> Tensor:
    """Added up in order."""
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total * (1 / len(rows)) if len(rows) > 1 else total


def _by_muon(
    values: Tensor, first: Tensor, rows: Sequence[Tensor], groups: Sequence[Group], betas: tuple[float, float]
) -> list[Callable[[], None]]:
    """What moves the groups' matrices, one by one."""
    found: list[Callable[[], None]] = []
    for group in groups:
        for start, shape in group.matrices.items():
            run = slice(start, start + shape[0] * shape[1])
            gradient = _mean([row[run] for row in rows]).view(shape)
            rate = group.muon * group.rate / group.base if group.base else 0.0
            value, momentum = values[run].view(shape), first[run].view(shape)
            found.append(partial(muon.update, value, momentum, gradient, rate, 1 - betas[0]))
    return found


_EPS, _HALF = np.float32(EPS), np.float32(0.5)


@jit
def _update(counter, values, first, second, one, other, table, steps, shares):
    """Groups `table` [G, 2], rate and 1 / √correction of each in `steps`; `other` is empty for one view.

    `shares` are 1 - beta1, beta2 and 1 - beta2.
    """
    n = len(values)
    pieces = (n + PIECE - 1) // PIECE
    new, old, square = shares[0], shares[1], shares[2]
    gradient = np.empty(PIECE, np.float32)
    while True:
        piece = take_next(counter)
        if piece >= pieces:
            break
        for g in range(len(table)):
            start, stop = max(table[g, 0], piece * PIECE), min(table[g, 1], (piece + 1) * PIECE)
            if stop <= start:
                continue
            size = stop - start
            a = one[start:stop]
            if len(other):
                b = other[start:stop]
                for i in range(size):
                    gradient[i] = (a[i] + b[i]) * _HALF
            else:
                gradient[:size] = a
            rate, inverse = steps[g, 0], steps[g, 1]
            value, m, v = values[start:stop], first[start:stop], second[start:stop]
            for i in range(size):
                x = gradient[i]
                m[i] += new * (x - m[i])
                v[i] = old * v[i] + square * (x * x)
                value[i] -= rate * m[i] / (np.sqrt(v[i]) * inverse + _EPS)
