"""How deep paths run that one camera sees at each time: where they are seen, they say which way they go.

A joint lets what hangs on it swing about an axis, so a path is nearly a line: of 219 actions of 32 CC0
characters that end where they began, a point's path has 94 % of its variance in one direction and 5 % in a
second (`docs/measured/recon4d.md`). A fit of images knows nothing of it, and where images say nothing paths
stay short: it finds 0.6 to 0.7 of their depth. Here each node has a covariance of its own over the three
directions, learned from its path, which says in turn how deep the path runs. Making the covariance of an
estimate the prior of the next one lowers the rank of the paths (log-det heuristic: Fazel, Hindi and Boyd
2003; as reweighted least squares: Mohan and Fazel 2012).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Standard deviations, in edges of the object (1): of a path before anything is seen; of what is seen.
LENGTH, SEEN = 0.15, 0.005
#: Times that the covariance before anything is seen counts as, in the mean with the times of the path.
BEFORE = 0.1
ROUNDS = 20
#: Times of a long video from which directions are learned, and numbers of matrices in memory at once.
MOST, ROOM = 48, 8_000_000
#: Second moment of the rays in the direction in which they have the second largest. An arc of a third of a
#: turn has 0.29, a quarter 0.18, a whole turn 0.5.
ROUND = 0.25


def likely_paths(shift: Tensor, rays: Tensor, seen: Tensor, prior: Tensor, alike: Tensor) -> Tensor:
    """Paths [K, T, 3] that keep their places across the rays, and are as deep as is likely.

    Args:
        shift: [K, T, 3] paths, of which what runs along the rays is not believed.
        rays: [K, T, 3] unit vectors from the cameras to the nodes.
        seen: [T], which times are seen; at the others paths are what the seen ones let expect.
        prior: [T, T] covariance of a coordinate over time, 0 where nothing moves.
        alike: [K, K] how far a node has its directions in common with each other one; rows add up to 1.

    Float64; other units than edges of the object are not known here.
    """
    across = across_rays(rays)
    looks = across * seen[None, :, None, None]
    places = torch.einsum("ktij,ktj->kti", looks, shift)
    some = slice(None, None, -(-shift.shape[1] // MOST))
    free = int((prior.diagonal()[some] > 1e-6).sum())
    before = BEFORE * LENGTH**2 * torch.eye(3, dtype=shift.dtype)
    spread = LENGTH**2 * torch.eye(3, dtype=shift.dtype).expand(len(shift), 3, 3)
    for _ in range(ROUNDS - 1):
        _, scatter = _expected(looks[:, some], places[:, some], prior[some, some], spread)
        spread = (torch.einsum("jk,kab->jab", alike, scatter) + before) / (free + BEFORE)
        # What rounding makes of a symmetric matrix would grow by half an order of magnitude a round.
        spread = (spread + spread.mT) / 2
    path, _ = _expected(looks, places, prior, spread)
    along = (path * rays).sum(-1, keepdim=True) * rays
    kept = torch.einsum("ktij,kti->ktj", across, torch.einsum("ktij,ktj->kti", across, shift)) + along
    return torch.where(seen[None, :, None], kept, path)


def _expected(looks: Tensor, places: Tensor, prior: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Paths [K, T, 3] to expect, each by its covariance [3, 3] over directions, and scatters [K, 3, 3].

    Scatters are sums over white coordinates of time, by which those covariances are estimated.
    """
    t = len(prior)
    over_time = prior.repeat_interleave(2, 0).repeat_interleave(2, 1)
    noise = SEEN**2 * torch.eye(2 * t, dtype=prior.dtype)
    paths, scatters = [], []
    at_once = max(1, ROOM // (2 * t) ** 2)
    for look, place, own in zip(looks.split(at_once), places.split(at_once), spread.split(at_once)):
        flat = look.flatten(1, 2)
        weights = torch.linalg.solve((flat @ own @ flat.mT) * over_time + noise, place.reshape(-1, 2 * t, 1))
        pulls = (flat * weights).unflatten(1, (t, 2)).sum(2)
        paths.append(prior @ pulls @ own)
        scatters.append(own @ (pulls.mT @ prior @ pulls) @ own)
    return torch.cat(paths), torch.cat(scatters)


def goes_round(rays: Tensor) -> bool:
    """Whether rays [K, S, 3] come from so many sides that a line is seen from where it is not foreshortened:
    an arc of a third of a turn or more."""
    flat = rays.flatten(0, -2)
    return float(torch.linalg.eigvalsh(flat.mT @ flat / len(flat))[1]) > ROUND


def across_rays(rays: Tensor) -> Tensor:
    """Two unit vectors [..., 2, 3] across each ray [..., 3] and across each other."""
    # Begun from the axis that the ray is furthest from.
    axis = torch.nn.functional.one_hot(rays.abs().argmin(-1), 3).to(rays.dtype)
    first = torch.nn.functional.normalize(torch.linalg.cross(rays, axis), dim=-1)
    return torch.stack([first, torch.linalg.cross(rays, first)], dim=-2)
