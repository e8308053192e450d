"""Distances of point clouds: Chamfer distance, F-score, normal consistency.

Definitions: ActionBench (actionmesh, evaluate_dataset.py) for the Chamfer distance, Tatarchenko et al. 2019
for the F-score, Occupancy Networks (Mescheder et al. 2019) for normal consistency. Nearest neighbours come
from scipy's KD-tree in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from orbit4d.datasets.core.cores import usable_cores

Array = npt.NDArray[np.float64]

#: Seeds of the published choice of queries: of the prediction, of the truth.
QUERY_SEEDS = (44, 45)


def cloud(points: npt.ArrayLike, name: str = "points") -> Array:
    """A point cloud as float64 [N, 3]. ValueError where it is empty, not finite or of another shape."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise ValueError(f"{name}: needs a point cloud [N, 3] of at least one point, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has coordinates that are not finite")
    return array


def nearest(points: Array, queries: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Distance to and index of the nearest of `points` [N, 3] for `queries` [Q, 3]: [Q], [Q]."""
    distance, index = tree(points).query(queries, workers=usable_cores())
    return np.asarray(distance), np.asarray(index, dtype=np.int64)


def tree(points: Array) -> cKDTree:
    """KD-tree of [N, 3]. Not balanced: on 100,000 surface points twice as fast to build, queries as fast."""
    return cKDTree(points, balanced_tree=False, compact_nodes=False)


def chosen(points: Array, limit: int | None, seed: int) -> Array:
    """At most `limit` of the points, by the published permutation; all of them where `limit` is None."""
    if limit is None or len(points) <= limit:
        return points
    return points[np.random.RandomState(seed).permutation(len(points))[:limit]]


def chamfer_of(a: Array, b: Array, queries: int | None = None) -> float:
    """Chamfer distance of checked clouds; `queries` limits the points of each side that ask."""
    to_a, _ = nearest(a, chosen(b, queries, QUERY_SEEDS[1]))
    to_b, _ = nearest(b, chosen(a, queries, QUERY_SEEDS[0]))
    return float(to_a.mean() + to_b.mean())


def chamfer(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Chamfer distance of two point clouds, in their unit.

    `mean_q min_p |b_q - a_p| + mean_p min_q |a_p - b_q|`: Euclidean (not squared), the sum of both directions
    (not their half), every point a query. That is CD of ActionBench (actionmesh, evaluate_dataset.py) without
    its limit of 10,000 queries a side.

    Args:
        a: [N, 3]
        b: [M, 3]

    Raises:
        ValueError: for an empty cloud, another shape or coordinates that are not finite.
    """
    return chamfer_of(cloud(a, "a"), cloud(b, "b"))


def f_score(predicted: npt.ArrayLike, truth: npt.ArrayLike, tau: float) -> float:
    """F-score at distance `tau` (in the clouds' unit), in [0, 1]; 0 where precision and recall are 0.

    Precision is the share of `predicted` [N, 3] nearer than `tau` to `truth` [M, 3], recall the reverse
    (Tatarchenko et al. 2019). Motion-80 takes tau 0.02 of a box whose longest edge is 2.

    Raises:
        ValueError: for clouds as in `chamfer`, or a `tau` that is not positive.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
    a, b = cloud(predicted, "predicted"), cloud(truth, "truth")
    precision = float((nearest(b, a)[0] < tau).mean())
    recall = float((nearest(a, b)[0] < tau).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def normal_consistency(
    predicted: npt.ArrayLike,
    predicted_normals: npt.ArrayLike,
    truth: npt.ArrayLike,
    truth_normals: npt.ArrayLike,
    *,
    signed: bool = False,
) -> float:
    """Agreement of normals at nearest points: the mean of both directions of `|n(p) . n(nearest(p))|`.

    Points and unit normals are [N, 3] and [M, 3]. In [0, 1]; `signed` leaves the absolute value out, which
    tells an inverted surface: in [-1, 1]. Occupancy Networks (Mescheder et al. 2019).

    Raises:
        ValueError: for clouds as in `chamfer`, or normals of another shape or of length 0.
    """
    a, b = cloud(predicted, "predicted"), cloud(truth, "truth")
    n_a = _units(predicted_normals, a, "predicted_normals")
    n_b = _units(truth_normals, b, "truth_normals")
    forth = (n_a * n_b[nearest(b, a)[1]]).sum(1)
    back = (n_b * n_a[nearest(a, b)[1]]).sum(1)
    if not signed:
        forth, back = np.abs(forth), np.abs(back)
    return float((forth.mean() + back.mean()) / 2)


def _units(normals: npt.ArrayLike, points: Array, name: str) -> Array:
    array = cloud(normals, name)
    length = np.linalg.norm(array, axis=1, keepdims=True)
    if len(array) != len(points) or not (length > 0).all():
        raise ValueError(f"{name}: needs one normal for each of {len(points)} points, none of length 0")
    return np.asarray(array / length)
