"""Control nodes on smooth paths: where one camera sees each time, what it does not see has to be likely.

An orbit shows a place from the side a quarter of a turn before and after it shows its depth. A network of
(node, time) fits what is seen at each time and bends in depth; paths of a Gaussian process in time, alike
where the surface hangs together, are interpolated there. And the times at which the video shows what the
static orbit shows are times of rest: motion is 0 there, and is followed from there in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.field import MovingNodes
from orbit4d.recon4d.deformation.paths.depths import goes_round, likely_paths
from orbit4d.recon4d.deformation.paths.prior import (
    along_the_surface,
    between_rests,
    covariance,
    root,
    time_blend,
)

#: Standard deviation of a node's shift, in edges of the object (1), and of its turn (tangent of half an
#: angle), for a table of ones; they say how far one step of Adam goes.
SHIFT, TURN = 0.15, 0.45
#: Length of the covariance in time by which depths are judged, of the clip (1). A path alone is smoother than
#: what a fit makes of it: 0.25 to 0.5 were tried.
DEPTH_SPAN = 0.4
#: Singular values below these shares of the largest count as 0: of nodes that move as one, of times of rest.
_TOGETHER, _RESTING = 0.03, 1e-4


class PathField(MovingNodes):
    """Control nodes whose paths over time are of a Gaussian process.

    Args:
        keys: T times, rising, 2 or more; between them paths are the process's interpolation.
        rests: times at which nothing has moved, whatever the field learns.
        n_nodes: K; picked by farthest-point sampling on the first `bind`.
        neighbours: nodes that a Gaussian follows.
        span: length of the covariance in time, of the clip (1).
        reach: its length along the surface, of the object's edge (1).

    A table of zeros is the canonical scene. InputError for fewer than two keys or keys that do not rise.
    """

    table: nn.Parameter
    """[T, K, 6] white coordinates: 3 of a shift, 3 imaginary parts of a quaternion with real part 1."""
    blend: Tensor
    """[T + R, T], see `time_blend`."""
    spread: Tensor
    """[K, K] symmetric root of the nodes' covariance, filled on the first `bind`."""

    def __init__(
        self,
        keys: Sequence[float],
        rests: Sequence[float] = (),
        n_nodes: int = 200,
        neighbours: int = 4,
        span: float = 0.25,
        reach: float = 0.08,
    ) -> None:
        super().__init__(n_nodes, neighbours)
        if len(keys) < 2 or any(b <= a for a, b in pairwise(keys)):
            raise InputError(f"a field of paths needs at least 2 rising key times, got {list(keys)}")
        self.config: dict[str, Any] = {
            "kind": "paths",
            "keys": list(keys),
            "rests": list(rests),
            "n_nodes": n_nodes,
            "neighbours": neighbours,
            "span": span,
            "reach": reach,
        }
        self.table = nn.Parameter(torch.zeros(len(keys), n_nodes, 6))
        at, still = torch.tensor(keys, dtype=torch.float64), torch.tensor(rests, dtype=torch.float64)
        self.register_buffer("blend", time_blend(at, still, span).float())
        self.register_buffer("spread", torch.eye(n_nodes))
        self.register_buffer("knots", torch.cat([at, still]).float(), persistent=False)
        self.register_buffer("units", torch.tensor([SHIFT] * 3 + [TURN] * 3), persistent=False)

    knots: Tensor
    units: Tensor

    @torch.no_grad()
    def bind(self, means: Tensor) -> None:
        fresh = not self.placed
        super().bind(means)
        if fresh:
            apart = along_the_surface(self.nodes)
            self.spread.copy_(root(covariance(apart, self.config["reach"])))

    def shares(self, times: Tensor) -> Tensor:
        """Weights [S, T] of the table's rows at times [S]; exactly 0 at a time of rest."""
        near = covariance((times[:, None] - self.knots[None]).abs(), self.config["span"]) @ self.blend
        resting = (times[:, None] == self.knots[None, len(self.table) :]).any(1, keepdim=True)
        return torch.where(resting, torch.zeros_like(near), near)

    def motions_at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Unit quaternions [S, K, 4] and translations [S, K, 3] of the nodes at times [S]."""
        out = self._rows(self.shares(times))
        return F.normalize(F.pad(out[..., 3:], (1, 0), value=1.0), dim=-1), out[..., :3]

    @torch.no_grad()
    def settle_depths(self, times: Tensor, centres: Tensor, seen: Tensor) -> None:
        """Make paths as deep as is likely, where they stay in the images (see `depths`).

        Nothing changes where the cameras hardly go round the object.

        Args:
            times: [S], rising; no fewer than the keys, or what is between them is lost.
            centres: [S, 3] of the cameras.
            seen: [S] on the CPU, which times the fit has looked at.
        """
        shares = self.shares(times)
        out = self._rows(shares).double()
        shift = out[..., :3].transpose(0, 1).cpu()
        away = self.nodes.cpu().double()[:, None] + shift - centres.cpu().double()
        rays = away / away.norm(dim=-1, keepdim=True)
        if not goes_round(rays[:, seen]):
            return
        rests = self.knots[len(self.table) :].cpu().double()
        prior = between_rests(times.cpu().double(), rests, DEPTH_SPAN)
        alike = self.spread.cpu().double().square()
        alike = alike / alike.sum(1, keepdim=True)
        likely = likely_paths(shift, rays, seen, prior, alike).transpose(0, 1).to(out)
        # The table that gives these paths; what space does not tell apart is left out.
        change = (likely - out[..., :3]) / self.units[:3].double()
        change = torch.linalg.pinv(self.spread.double(), rtol=_TOGETHER) @ change
        rows = torch.linalg.pinv(shares.double(), rtol=_RESTING) @ change.flatten(1)
        self.table[..., :3] += rows.unflatten(1, change.shape[1:]).to(self.table)

    def _rows(self, shares: Tensor) -> Tensor:
        """[S, K, 6] of weights [S, T] of the table's rows: 3 of a shift, 3 imaginary parts."""
        rows = (shares @ self.table.flatten(1)).unflatten(1, self.table.shape[1:])
        return (self.spread @ rows) * self.units
