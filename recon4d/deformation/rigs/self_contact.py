"""How much of a posed surface lies against a part that other joints move: there a binding can go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix, vstack
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from orbit4d.recon4d.deformation.surface import SkinnedSurface

Floats = npt.NDArray[np.float64]

#: Distance, as a share of the longest edge of the box, at which surfaces touch: that of the Gaussians to it.
TOUCH = 0.02
#: Way along the surface, in `TOUCH`, beyond which two places are not neighbours.
_AROUND = 4.0
#: Weights that two places share at most, where what moves one does not move the other.
_SHARED = 0.1
#: Points that are looked at.
_MOST = 4000


def self_contact(surface: SkinnedSurface, posed: Floats) -> float:
    """Share of a surface's area at `posed` [V, 3] that lies within `TOUCH` of a part it is not joined to.

    A part is another one where the way to it along the surface is long and other joints move it, so eyes in
    a head, a cloth on a leg and a knee's two sides are none.
    """
    places, weights, area, graph = _sampled(surface, posed)
    touch = TOUCH * float(np.ptp(posed, axis=0).max())
    if not touch > 0:
        return 1.0
    pairs = cKDTree(places).query_pairs(touch, output_type="ndarray")
    if not len(pairs):
        return 0.0
    shared = np.asarray(weights[pairs[:, 0]].minimum(weights[pairs[:, 1]]).sum(axis=1)).ravel()
    pairs = pairs[shared < _SHARED]
    far = _apart(graph, pairs, _AROUND * touch)
    touched = np.zeros(len(places), bool)
    touched[pairs[far].ravel()] = True
    return float(area[touched].sum() / max(float(area.sum()), 1e-300))


def _sampled(surface: SkinnedSurface, posed: Floats) -> tuple[Floats, Any, Floats, Any]:
    """(places [P, 3], weights [P, J] sparse, area [P], graph [P, P] of ways): vertices that lie together as
    one, and the middles of triangles."""
    modelled = surface.vertices
    size = max(float(np.ptp(modelled, axis=0).max()), 1e-300)
    _, first, one = np.unique(
        np.round(modelled / (1e-5 * size)).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    faces = one.reshape(-1)[surface.faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    if len(faces) > _MOST:
        faces = faces[np.random.default_rng(0).choice(len(faces), _MOST, replace=False)]
    corners = posed[first][faces]
    middles = corners.mean(axis=1)
    faces_area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    n, f = len(first), len(faces)
    rows = np.repeat(np.arange(n), surface.index.shape[1])
    joints = int(surface.index.max()) + 1
    own = csr_matrix(
        (surface.weights[first].ravel(), (rows, surface.index[first].ravel())), shape=(n, joints)
    )
    spread = csr_matrix((np.full(3 * f, 1 / 3), (np.repeat(np.arange(f), 3), faces.ravel())), shape=(f, n))
    weights = vstack([own, spread @ own]).tocsr()
    places = np.concatenate([posed[first], middles])
    a = np.concatenate([faces[:, [0, 1, 2]].ravel(), np.repeat(n + np.arange(f), 3)])
    b = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces.ravel()])
    ways = np.linalg.norm(places[a] - places[b], axis=1)
    graph = coo_matrix((np.maximum(ways, 1e-12), (a, b)), shape=(n + f, n + f)).tocsr()
    area = np.concatenate([np.zeros(n), faces_area])
    return places, weights, area, graph


def _apart(graph: Any, pairs: npt.NDArray[np.int64], most: float) -> npt.NDArray[np.bool_]:
    """[M] whether the way along the surface between the two places of each pair is longer than `most`."""
    found = np.ones(len(pairs), bool)
    starts, number = np.unique(pairs[:, 0], return_inverse=True)
    for low in range(0, len(starts), 256):
        some = starts[low : low + 256]
        ways = dijkstra(graph, directed=False, indices=some, limit=most)
        rows = np.flatnonzero((number >= low) & (number < low + len(some)))
        found[rows] = ~np.isfinite(ways[number[rows] - low, pairs[rows, 1]])
    return found
