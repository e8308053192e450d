"""Surfaces that hang on joints, and where on them a Gaussian lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.deformation.rigs.linear_skin import skin

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Joints that a Gaussian keeps, the heaviest.
MOST_JOINTS = 8
#: Points on the surface per Gaussian whose triangles are inspected.
_CANDIDATES = 24
#: Distance in units of the scene (the object's longest edge is about 1) beyond which a Gaussian is loose.
LOOSE = 0.1
#: How much farther a triangle seems that stands across a Gaussian's shortest axis.
_ACROSS = 0.5


@dataclass(frozen=True)
class SkinnedSurface:
    """V vertices as modelled, in the scene's world, F triangles, and the joints that move them."""

    vertices: Floats
    """[V, 3]"""
    faces: Ints
    """[F, 3]"""
    index: Ints
    """[V, K] joints."""
    weights: Floats
    """[V, K], rows sum to 1."""
    repaired: int = 0
    """Vertices without a usable weight, which took that of the nearest good one."""

    def posed(self, maps: Floats) -> Floats:
        """[V, 3] where they stand under joint maps [J, 4, 4]."""
        none = np.zeros((len(self.vertices), 3, 3))
        return skin(self.vertices, none, maps, self.index, self.weights)[0]


@dataclass(frozen=True)
class Binding:
    """Which joints N Gaussians follow."""

    index: Ints
    """[N, K]"""
    weights: Floats
    """[N, K]"""
    distance: Floats
    """[N] to the surface, scene units."""

    @property
    def loose(self) -> int:
        """Gaussians that lie farther from the surface than `LOOSE`."""
        return int((self.distance > LOOSE).sum())


def bind_to_surface(
    means: npt.NDArray[Any], shortest: npt.NDArray[Any] | None, surface: SkinnedSurface, posed: Floats
) -> Binding:
    """Joints and weights of the nearest point of the surface at `posed` [V, 3], blended over its triangle.

    means [N, 3]; shortest [N, 3], unit, are the Gaussians' thinnest axes: of two triangles about as near the
    one is taken whose normal agrees. None leaves it to the distance.
    """
    from scipy.spatial import cKDTree

    faces = surface.faces
    corners = posed[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    there = spread_out(area)
    if not there.all():
        faces, corners, normal, area = faces[there], corners[there], normal[there], area[there]
    normal = normal / np.maximum(area, 1e-300)[:, None]
    points, owner = _sampled(corners, area)
    k = min(_CANDIDATES, len(points))
    _, near = cKDTree(points).query(np.asarray(means, np.float64), k=k)
    candidates = owner[near.reshape(len(means), k)]
    bary, distance = nearest_on_triangles(np.asarray(means, np.float64)[:, None, :], corners[candidates])
    seeming = distance
    if shortest is not None:
        agree = np.abs(np.einsum("nki,ni->nk", normal[candidates], shortest))
        # A floor of a hundredth, so that what lies on one surface still minds the other's normal.
        seeming = (distance + 0.01) * (1.0 + _ACROSS * (1.0 - agree))
    row = np.arange(len(means))
    best = seeming.argmin(axis=1)
    chosen, bary, distance = candidates[row, best], bary[row, best], distance[row, best]
    index, weights = _blend(surface, faces[chosen], bary)
    return Binding(index, weights, distance)


def spread_out(area: Floats) -> npt.NDArray[np.bool_]:
    """[F] whether triangles have any area: those of a part that is scaled to nothing have none, and nothing
    that is seen belongs to them. All, where none has."""
    found = area > 1e-9 * np.median(area)
    return found if found.any() else np.ones(len(area), bool)


def _sampled(corners: Floats, area: Floats) -> tuple[Floats, Ints]:
    """Points on triangles and the triangle of each: about 60,000 by area, at least one of each triangle."""
    share = area / max(float(area.sum()), 1e-300)
    counts = np.maximum(1, np.ceil(60_000 * share)).astype(np.int64)
    owner = np.repeat(np.arange(len(corners)), counts)
    draws = np.random.default_rng(0).random((len(owner), 2))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    draws[first] = (4.0 / 9.0, 0.5)  # its centroid
    root = np.sqrt(draws[:, :1])
    bary = np.concatenate([1 - root, root * (1 - draws[:, 1:]), root * draws[:, 1:]], axis=1)
    return np.einsum("nk,nki->ni", bary, corners[owner]), owner


def nearest_on_triangles(points: Floats, corners: Floats) -> tuple[Floats, Floats]:
    """Barycentrics [..., 3] and distance [...] of the nearest points of triangles [..., 3, 3] (Ericson 2005,
    Real-Time Collision Detection, 5.1.5)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    den = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / den, (d00 * d21 - d01 * d20) / den
    inside = np.stack([1 - v - w, v, w], axis=-1)
    options = [np.where((inside >= 0).all(-1, keepdims=True), inside, np.nan)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        p, q = corners[..., i, :], corners[..., j, :]
        edge = q - p
        long = np.maximum((edge * edge).sum(-1), 1e-300)
        t = (((points - p) * edge).sum(-1) / long).clip(0, 1)
        option = np.zeros((*t.shape, 3))
        option[..., i], option[..., j] = 1 - t, t
        options.append(option)
    bary = np.stack(options)
    places = np.einsum("o...k,...ki->o...i", np.nan_to_num(bary), corners)
    distance = np.linalg.norm(places - points, axis=-1)
    distance[np.isnan(bary).any(-1)] = np.inf
    best = distance.argmin(axis=0)
    return (
        np.take_along_axis(bary, best[None, ..., None], 0)[0],
        np.take_along_axis(distance, best[None], 0)[0],
    )


def _blend(surface: SkinnedSurface, triangles: Ints, bary: Floats) -> tuple[Ints, Floats]:
    """The three corners' joints [N, ≤ 8] and weights, by their shares in the point."""
    joints = surface.index[triangles].reshape(len(triangles), -1)
    shares = (surface.weights[triangles] * bary[..., None]).reshape(len(triangles), -1)
    order = np.argsort(joints, axis=1, kind="stable")
    joints, shares = np.take_along_axis(joints, order, 1), np.take_along_axis(shares, order, 1)
    # One joint may come from several corners: the first place gathers them.
    for column in range(joints.shape[1] - 1, 0, -1):
        same = joints[:, column] == joints[:, column - 1]
        shares[same, column - 1] += shares[same, column]
        shares[same, column] = 0.0
    top = np.argsort(-shares, axis=1, kind="stable")[:, :MOST_JOINTS]
    index, weights = np.take_along_axis(joints, top, 1), np.take_along_axis(shares, top, 1)
    return index, weights / weights.sum(axis=1, keepdims=True)
