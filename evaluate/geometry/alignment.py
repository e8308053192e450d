"""Alignment of a predicted cloud with the true one before they are compared, as ActionBench publishes it.

x -> (scale * x) @ rotation + shift, by Adam on the symmetric squared distance to the nearest points, from the
24 rotations that map a cube to itself. The published code keeps every start for all 200 steps at 10,000
points; here the worse starts are dropped on the way (the best 8 after 40 steps: final loss 0 to 1.5 % higher,
twice as fast), which the caller prints beside the number of points.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from orbit4d.evaluate.geometry.points import Array, tree

STEPS, LEARNING_RATE = 200, 0.01
#: After so many steps so many of the best starts continue.
DROP_AT, KEEP = 40, 8


@dataclass(frozen=True)
class Fit:
    """x -> (scale * x) @ rotation + shift of row vectors."""

    rotation: Array
    """[3, 3]"""
    scale: Array
    """[3], of the prediction's axes"""
    shift: Array
    """[3]"""
    loss: float
    """Symmetric mean squared distance to the nearest point after the fit."""

    def __call__(self, points: Array) -> Array:
        """Points [..., 3] moved."""
        return np.asarray((points * self.scale) @ self.rotation + self.shift)


def cube_rotations() -> Array:
    """The 24 rotations that map a cube to itself, the identity first: [24, 3, 3]."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return np.stack(found)


def align_clouds(predicted: Array, truth: Array, *, per_axis: bool = True) -> Fit:
    """The best alignment of `predicted` [P, 3] with `truth` [Q, 3] over all starts and steps.

    `per_axis` fits a scale for each axis (nine parameters), else one. Identity where that is exact already.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors of a few thousand numbers: a second thread costs five times the time
    try:
        return _aligned(predicted, truth, per_axis)
    finally:
        torch.set_num_threads(threads)


def _aligned(predicted: Array, truth: Array, per_axis: bool) -> Fit:
    asked = tree(truth)
    identity = Fit(np.eye(3), np.ones(3), np.zeros(3), float(_losses(_tensor(predicted)[None], truth, asked)))
    if identity.loss == 0:
        return identity
    starts = _Starts(cube_rotations(), per_axis)
    for step in range(STEPS):
        if step == DROP_AT:
            starts.keep(KEEP)
        starts.step(predicted, truth, asked)
    return min(identity, starts.best(), key=lambda f: f.loss)


class _Starts:
    """All starts of a fit at once: Adam treats each number by itself, so they do not meet."""

    def __init__(self, rotations: Array, per_axis: bool) -> None:
        count = len(rotations)
        self.initial = _tensor(rotations)
        self.six = torch.tensor([[1.0, 0, 0, 0, 1, 0]], dtype=torch.float64).repeat(count, 1)
        self.scale = torch.ones(count, 3 if per_axis else 1, dtype=torch.float64)
        self.shift = torch.zeros(count, 3, dtype=torch.float64)
        self.loss = torch.full((count,), float("inf"), dtype=torch.float64)
        self.found = torch.zeros(count, 15, dtype=torch.float64)
        self._begin()

    def _begin(self) -> None:
        parameters = [self.six, self.scale, self.shift]
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.adam = torch.optim.Adam(parameters, lr=LEARNING_RATE)

    def keep(self, count: int) -> None:
        """Continue with the starts whose best loss is lowest; the moments of Adam go with them."""
        best = self.loss.argsort()[:count]
        state = [self.adam.state[p] for p in (self.six, self.scale, self.shift)]
        for name in ("initial", "six", "scale", "shift", "loss", "found"):
            setattr(self, name, getattr(self, name).detach()[best].clone())
        self._begin()
        for parameter, old in zip((self.six, self.scale, self.shift), state, strict=True):
            self.adam.state[parameter] = {k: v[best] if v.ndim else v for k, v in old.items()}

    def step(self, predicted: Array, truth: Array, asked: cKDTree) -> None:
        """One step of Adam; what was best so far is kept."""
        rotation = self.initial @ _rotations(self.six)
        moved = (_tensor(predicted) * self.scale[:, None]) @ rotation + self.shift[:, None]
        losses = _losses(moved, truth, asked)
        now = torch.cat([rotation.flatten(1), self.scale.expand(-1, 3), self.shift], 1).detach()
        better = losses.detach() < self.loss
        self.found = torch.where(better[:, None], now, self.found)
        self.loss = torch.where(better, losses.detach(), self.loss)
        self.adam.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.adam.step()

    def best(self) -> Fit:
        """The best of all starts and steps."""
        at = int(self.loss.argmin())
        found = self.found[at].numpy()
        return Fit(found[:9].reshape(3, 3), found[9:12], found[12:], float(self.loss[at]))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _losses(moved: Tensor, truth: Array, asked: cKDTree) -> Tensor:
    """Symmetric squared distance to the nearest of clouds [S, P, 3], per start [S].

    Which point is the nearest counts as fixed, as in any ICP.
    """
    clouds = moved.detach().numpy()
    forth = torch.from_numpy(asked.query(clouds)[1])
    back = torch.from_numpy(np.stack([tree(at).query(truth)[1] for at in clouds]))
    real = _tensor(truth)
    one = (moved - real[forth]).square().sum(2).mean(1)
    other = (moved.gather(1, back[:, :, None].expand(-1, -1, 3)) - real).square().sum(2).mean(1)
    return one + other


def _rotations(six: Tensor) -> Tensor:
    """Rotations [S, 3, 3] of six numbers each (Zhou et al. 2019): the identity for (1, 0, 0, 0, 1, 0)."""
    x = torch.nn.functional.normalize(six[:, :3], dim=1)
    y = torch.nn.functional.normalize(six[:, 3:] - (x * six[:, 3:]).sum(1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], 1)
