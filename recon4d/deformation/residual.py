"""Control nodes plus a difference of each Gaussian from them, at key times: the field of many cameras.

Nodes reach only what a few hundred rigid motions blend to, and no colour. Where several cameras see every
time, what each Gaussian adds to them is seen too, and need not be guessed as in the video of one orbit.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.field import NodeField
from orbit4d.recon4d.gaussians import Gaussians

#: Numbers that each head adds to a Gaussian, and what one unit of the table is worth: one rate serves the
#: whole field, and Adam's steps are as large as its rate whatever the gradient.
HEADS = {"means": (3, 0.15), "colors": (3, 0.5)}
#: Most key times: a table of 10,000 Gaussians has 0.24 MB a key.
MOST_KEYS = 48


def key_times(times: Iterable[float]) -> list[float]:
    """The distinct times of training images, thinned evenly to `MOST_KEYS`, 2 or more."""
    found = sorted(set(times))
    if len(found) < 2:
        return [0.0, 1.0]
    if len(found) <= MOST_KEYS:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_KEYS - 1))] for i in range(MOST_KEYS)]


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a residual field's nodes alone; that of another field as it is."""
    if config["kind"] != "residual":
        return config
    return {k: v for k, v in config.items() if k not in ("keys", "rows", "heads")} | {"kind": "nodes"}


class ResidualField(NodeField):
    """A `NodeField` and a table of differences, linear between `keys`.

    Args:
        keys: at least 2 times, rising; before the first and after the last their differences stay.
        rows: number of Gaussians, fixed.
        heads: the parameters that differ: means, colors. (Files keep no length of a quaternion, so nothing
            can be added to one.)
        nodes: as `NodeField`; `neighbours`, `anchor` and so on. The anchor binds the nodes, not the table.

    The table is 0 at first, and the field then its nodes, to the bit. InputError for fewer than two keys,
    keys that do not rise, or an unknown head.
    """

    table: nn.Parameter
    """[K, N, D] differences in units of `HEADS`."""

    def __init__(
        self, keys: Sequence[float], rows: int, heads: Sequence[str] = ("means", "colors"), **nodes: Any
    ) -> None:
        super().__init__(**nodes)
        if len(keys) < 2 or any(b <= a for a, b in pairwise(keys)):
            raise InputError(f"a residual field needs at least 2 rising key times, got {list(keys)}")
        if unknown := set(heads) - set(HEADS):
            raise InputError(f"residual heads {sorted(unknown)}: choose from {', '.join(HEADS)}")
        self.config |= {"kind": "residual", "keys": list(keys), "rows": rows, "heads": list(heads)}
        self.keys = tuple(keys)
        self.columns: dict[str, tuple[int, int, float]] = {}
        at = 0
        for name in heads:
            width, unit = HEADS[name]
            self.columns[name] = (at, at + width, unit)
            at += width
        # A module's own parameters come before those of its layers: the table is the first.
        self.table = nn.Parameter(torch.zeros(len(keys), rows, at))

    def bind(self, means: Tensor) -> None:
        """Meet canonical centres [N, 3]. InputError for another number of Gaussians than the table moves."""
        if len(means) != self.table.shape[1]:
            raise InputError(f"this residual field moves {self.table.shape[1]} Gaussians, not {len(means)}")
        super().bind(means)

    def between(self, time: float) -> tuple[int, float]:
        """Number k of the key before `time`, and the share of key k + 1 there, in [0, 1]."""
        k = min(max(bisect.bisect_right(self.keys, time) - 1, 0), len(self.keys) - 2)
        share = (time - self.keys[k]) / (self.keys[k + 1] - self.keys[k])
        return k, min(max(share, 0.0), 1.0)

    def differences(self, time: float) -> dict[str, Tensor]:
        """What is added to each Gaussian at `time`, by parameter, [N, D]."""
        k, share = self.between(time)
        row = torch.lerp(self.table[k], self.table[k + 1], share)
        return {name: row[:, start:stop] * unit for name, (start, stop, unit) in self.columns.items()}

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        means, quats, log_scales = super().forward(means, quats, log_scales, time)
        added = self.differences(time).get("means")
        return means if added is None else means + added, quats, log_scales

    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        moved = super().move(gaussians, time)
        added = self.differences(time).get("colors")
        return moved if added is None else replace(moved, colors=moved.colors + added)
