"""A field of key times: a table of differences from the canonical Gaussians, linear between its keys.

The counterpart of Animate124's 64 grids that are blended in pairs (Zhao et al. 2023, arXiv 2311.14603), on
Gaussians. Over nodes each row moves a control node rigidly, as in `NodeField`; over Gaussians a Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.field import NodeSkin, Terms
from orbit4d.recon4d.deformation.row_maps import row_maps
from orbit4d.recon4d.deformation.skinning import skin
from orbit4d.recon4d.gaussians import Gaussians

#: Numbers that each head adds to a Gaussian.
HEADS = {"means": 3, "quats": 4, "log_scales": 3, "colors": 3, "logits": 1}
#: A time this near to a key, in keys, is the key: k / (K - 1) (K - 1) is not k for every K.
SNAP = 1e-9


class KeyframeField(NodeSkin):
    """`n_keys` key times, evenly over [0, 1].

    Args:
        n_keys: at least 2.
        over: "nodes" moves `n_nodes` control nodes rigidly (3 of a shift, 3 imaginary parts of a quaternion
            with real part 1), Gaussians follow `neighbours` of them. "gaussians" adds to each Gaussian's own
            parameters; their number is fixed by the first `bind`.
        heads: of "gaussians", the parameters that move: means, quats, log_scales, colors, logits.
        rows: of "gaussians", their number, for a field that is read back.

    InputError for fewer than two keys, another `over`, or an unknown head.
    """

    table: nn.Parameter
    """[K, rows, D] differences; 0 is the canonical scene."""

    def __init__(
        self,
        n_keys: int = 17,
        over: str = "nodes",
        heads: tuple[str, ...] = ("means", "quats"),
        n_nodes: int = 120,
        neighbours: int = 4,
        rows: int = 0,
    ) -> None:
        super().__init__(n_nodes if over == "nodes" else 0, neighbours)
        if n_keys < 2:
            raise InputError(f"a keyframes field needs at least 2 keys, got {n_keys}")
        if over not in ("nodes", "gaussians"):
            raise InputError(f"keyframes over {over!r}: choose nodes or gaussians")
        if unknown := set(heads) - set(HEADS):
            raise InputError(f"keyframes heads {sorted(unknown)}: choose from {', '.join(HEADS)}")
        self.config = {
            "kind": "keyframes",
            "n_keys": n_keys,
            "over": over,
            "heads": list(heads),
            "n_nodes": n_nodes,
            "neighbours": neighbours,
            "rows": rows,
        }
        width = 6 if over == "nodes" else sum(HEADS[name] for name in heads)
        self.table = nn.Parameter(torch.zeros(n_keys, n_nodes if over == "nodes" else rows, width))

    @torch.no_grad()
    def bind(self, means: Tensor) -> None:
        """Meet canonical centres [N, 3]. InputError for another number of Gaussians than the table moves."""
        if self.config["over"] == "nodes":
            super().bind(means)
            return
        self.bound_means = means.detach().clone()
        rows = self.table.shape[1]
        if rows == 0:
            self.config["rows"] = len(means)
            self.table.data = self.table.new_zeros(len(self.table), len(means), self.table.shape[2])
        elif rows != len(means):
            raise InputError(f"this keyframes field moves {rows} Gaussians, not {len(means)}")

    @staticmethod
    def blend(table: Tensor, time: float) -> Tensor:
        """The table [K, ...] at `time` in [0, 1]: linear between the two keys around it, [...].

        A key's own time gives its values to the bit. InputError for a time outside [0, 1].
        """
        if not 0 <= time <= 1:
            raise InputError(f"time {time}: a keyframes field knows 0 to 1")
        x = time * (len(table) - 1)
        if abs(x - round(x)) < SNAP:
            x = float(round(x))
        k = min(math.floor(x), len(table) - 2)
        return torch.lerp(table[k], table[k + 1], x - k)

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        row = self.blend(self.table, time)
        if self.config["over"] == "gaussians":
            added = self._added({"means": means, "quats": quats, "log_scales": log_scales}, row)
            return added["means"], added["quats"], added["log_scales"]
        moved, turned = skin(means, quats, row_maps(row, self.nodes), self._index, self._weights)
        return moved, turned, log_scales

    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        if self.config["over"] == "nodes":
            return super().move(gaussians, time)
        return replace(gaussians, **self._added(gaussians.tensors(), self.blend(self.table, time)))

    def _added(self, given: dict[str, Tensor], row: Tensor) -> dict[str, Tensor]:
        """The given parameters with their heads added."""
        moved, start = dict(given), 0
        for name in self.config["heads"]:
            part = row[:, start : start + HEADS[name]]
            start += HEADS[name]
            if name in moved:
                moved[name] = moved[name] + part.reshape(moved[name].shape)
        moved["quats"] = F.normalize(moved["quats"], dim=-1)
        return moved

    def with_midpoints(self) -> KeyframeField:
        """The same motion with 2 K - 1 keys."""
        options = {key: value for key, value in self.config.items() if key not in ("kind", "heads")}
        options["n_keys"] = 2 * self.config["n_keys"] - 1
        finer = KeyframeField(heads=tuple(self.config["heads"]), **options)
        finer.load_state_dict({**self.state_dict(), "table": _with_midpoints(self.table.detach())})
        if self.bound_means is not None:
            finer.bind(self.bound_means)
        return finer

    def regularisers(self, time: float, step: float) -> Terms:
        """time_tv: mean squared step between neighbouring keys. Over nodes also rigidity (see `NodeSkin`)."""
        terms = {"time_tv": keyframe_tv(self.table)}
        if self.config["over"] == "nodes":
            row = self.blend(self.table, time)
            shift, turn = row[:, :3], F.normalize(F.pad(row[:, 3:], (1, 0), value=1.0), dim=-1)
            terms["rigidity"] = self.rigidity(turn, shift)
        return terms


def keyframe_tv(table: Tensor) -> Tensor:
    """Variation over time of a table [K, ..., D]: mean over the K - 1 pairs of keys and the rows of the
    summed squared difference, []. 0 for equal keys, d . d for a ramp of d a key."""
    return (table[1:] - table[:-1]).square().sum(-1).mean()


def _with_midpoints(table: Tensor) -> Tensor:
    finer = table.new_empty(2 * len(table) - 1, *table.shape[1:])
    finer[::2] = table
    finer[1::2] = torch.lerp(table[:-1], table[1:], 0.5)
    return finer
