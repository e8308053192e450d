"""What paths of an object are like before any image is seen: a Gaussian process over time and surface.

Covariances are Matern 5/2 (Rasmussen and Williams 2006, equation 4.17), the sum of a long one and one of a
third of its length. What is learned are its white coordinates: a step of Adam in them moves places and times
together as far as they belong together.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: Share of the variance that the short one of the two covariances has, and its length against the other's.
SHORT, SHORTER = 0.3, 1 / 3
#: Surface neighbours of a node; distances run from one to the next.
NEIGHBOURS = 6
#: Eigenvalues below this share of the largest are taken for 0.
_NOTHING = 1e-6
#: A distance at which nothing is left of a covariance, between parts that do not hang together.
_FAR = 100.0


def covariance(distance: Tensor, length: float) -> Tensor:
    """Covariance at distances of any shape and unit, 1 at 0; `length` in the same unit."""

    def matern(by: float) -> Tensor:
        a = math.sqrt(5.0) / by * distance
        return (1 + a + a.square() / 3) * torch.exp(-a)

    return (1 - SHORT) * matern(length) + SHORT * matern(length * SHORTER)


def root(matrix: Tensor, inverse: bool = False) -> Tensor:
    """The symmetric square root of a symmetric matrix [N, N], or of its pseudoinverse; what is negative or
    next to nothing in it counts as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > _NOTHING * values[-1]
    scaled = torch.where(kept, values, torch.ones_like(values)).pow(-0.5 if inverse else 0.5) * kept
    return (vectors * scaled) @ vectors.T


def along_the_surface(nodes: Tensor) -> Tensor:
    """Distances [K, K] of nodes [K, 3] by way of their nearest ones: a foot is far from the other foot.

    Float64 on the CPU; between parts that do not hang together the distance is very large.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    at = nodes.detach().cpu().double()
    k = len(at)
    apart, near = torch.cdist(at, at).topk(min(NEIGHBOURS + 1, k), largest=False)
    here = torch.arange(k).unsqueeze(1).expand_as(near)
    # A length of 0 would be no edge; nodes repeat where there are fewer points than nodes.
    lengths = apart.clamp(min=1e-9).numpy().ravel()
    graph = coo_array((lengths, (here.numpy().ravel(), near.numpy().ravel())), shape=(k, k))
    found = shortest_path(graph.tocsr(), directed=False)
    np.fill_diagonal(found, 0.0)
    return torch.from_numpy(np.where(np.isfinite(found), found, _FAR))


def between_rests(times: Tensor, rests: Tensor, length: float) -> Tensor:
    """[T, T]: covariances of a path at T times, given that it is 0 at R times of rest. Float64."""
    return _given(torch.cat([times, rests]).double(), len(times), length)[0]


def _given(knots: Tensor, t: int, length: float) -> tuple[Tensor, Tensor]:
    """[T, T] covariances of the first t knots given 0 at the R others, and the weights [R, T] of those."""
    whole = covariance((knots[:, None] - knots[None]).abs(), length)
    among, across, own = whole[:t, :t], whole[t:, :t], whole[t:, t:]
    settled = torch.linalg.solve(own, across) if t < len(knots) else across
    return among - across.T @ settled, settled


def time_blend(keys: Tensor, rests: Tensor, length: float) -> Tensor:
    """[T + R, T]: covariances of a time with T key times and R times of rest, times this, are the weights by
    which white coordinates at the keys make up a path's place at that time.

    The process is conditioned on being 0 at the times of rest. At a key the weights are a row of the square
    root of the keys' covariance, elsewhere its interpolation. Float64.
    """
    among, settled = _given(torch.cat([keys, rests]).double(), len(keys), length)
    white = root(among, inverse=True)
    return torch.cat([white, -settled @ white])
