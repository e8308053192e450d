"""What moving vertices say about a clip: motion, its rigid part, rhythm, frame, silhouette, torn skin.

Pure numpy over sampled positions `vertices` [T, V, 3] (world, any unit) at `seconds` [T]; runs inside the
Blender child and in tests without it. Lengths are divided by the *diameter*: twice the largest distance of a
vertex from the centroid at the first time, so scaling and moving the asset as a whole changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import DEFAULT_FOV_X_DEG, DEFAULT_RADIUS

Array = npt.NDArray[np.floating]

#: Views of the default orbit, and its half field of view as a tangent.
N_VIEWS = 24
HALF_TAN = float(np.tan(np.radians(DEFAULT_FOV_X_DEG) / 2.0))
#: Cells a side of the grid on which silhouettes are counted.
GRID = 32
#: Points that stand for a surface.
N_SURFACE = 8192
#: Stands for a ratio without bound. Finite, because JSON and histograms are.
UNBOUNDED = 1e9
#: An edge is torn when it is this many times longer than the pose as a whole grew ...
TORN_RATIO = 3.0
#: ... and longer than this share of the rest pose's diameter.
TORN_LENGTH = 0.15


def diameter(points: Array) -> float:
    """Twice the largest distance of a vertex from the centroid, points [V, 3]."""
    if len(points) == 0:
        return 0.0
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    return float(2.0 * np.sqrt(_squares(centred).max()))


def _squares(vectors: Array) -> Array:
    """Squared lengths of [..., 3]; einsum, since numpy sums over an axis of three several times slower."""
    return np.einsum("...k,...k->...", vectors, vectors)


def _rms(vectors: Array) -> float:
    """Root mean square length of [V, 3], in double precision."""
    flat = vectors.astype(np.float64).ravel()
    return float(np.sqrt(flat @ flat / max(len(vectors), 1)))


def _ratio(top: float, bottom: float) -> float:
    """top / bottom, at most UNBOUNDED: an asset may start as a point and then grow."""
    if bottom * UNBOUNDED > top:
        return float(top / bottom)
    return 0.0 if top == 0.0 else UNBOUNDED


def rms_displacement(vertices: Array) -> Array:
    """[T]: root of the mean over vertices of the squared distance from the first time."""
    # Positions are float32; so is their difference, exactly enough. The sum runs in double precision.
    return np.array([_rms(pose - vertices[0]) for pose in vertices])


def motion_geometry(vertices: Array) -> float:
    """Largest RMS displacement from the first time, in diameters of the first time."""
    return relative(float(rms_displacement(vertices).max()), vertices[0])


def relative(length: float, points: Array) -> float:
    """`length` in diameters of points [V, 3]."""
    return _ratio(length, diameter(points))


def procrustes(source: Array, target: Array) -> tuple[Array, Array]:
    """Rotation [3, 3] and translation [3] that bring `source` [V, 3] closest to `target` [V, 3].

    Kabsch's solution of the orthogonal Procrustes problem, without reflection.
    """
    a, b = source.astype(np.float64), target.astype(np.float64)
    centre_a, centre_b = a.mean(axis=0), b.mean(axis=0)
    u, _, vt = np.linalg.svd((a - centre_a).T @ (b - centre_b))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u @ flip @ vt).T
    return rotation, centre_b - rotation @ centre_a


def rigid_split(vertices: Array, most_times: int = 49) -> tuple[float, float, float]:
    """(motion_rigid, motion_nonrigid, turn in degrees): how much of the motion is one body's.

    Each time is fitted by a rotation and a translation of the first. `motion_rigid` is the largest RMS
    displacement of the fits, `motion_nonrigid` the largest RMS residual, both in diameters; the turn is the
    largest rotation angle. At most `most_times` times are fitted, evenly chosen, the last one included.
    """
    size = diameter(vertices[0])
    steps = np.unique(np.linspace(0, len(vertices) - 1, min(most_times, len(vertices))).round().astype(int))
    if len(steps) < 2:
        return 0.0, 0.0, 0.0
    first = vertices[0].astype(np.float64)
    later = vertices[steps[1:]].astype(np.float64)
    centre, centres = first.mean(axis=0), later.mean(axis=1, keepdims=True)
    # `procrustes` of all times at once; about the centroids, the translation falls out of the residual.
    first, later = first - centre, later - centres
    u, _, vt = np.linalg.svd(first.T @ later)
    flip = np.ones((len(later), 3))
    flip[:, 2] = np.where(np.linalg.det(u @ vt) < 0.0, -1.0, 1.0)
    rotation = np.transpose((u * flip[:, None]) @ vt, (0, 2, 1))
    fitted = first @ np.transpose(rotation, (0, 2, 1))
    residual = max(_rms(pose) for pose in later - fitted)
    rigid = max(_rms(pose) for pose in fitted - first + (centres - centre))
    turn = np.degrees(np.arccos(np.clip((np.trace(rotation, axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0)))
    return _ratio(rigid, size), _ratio(residual, size), float(turn.max())


def speed_and_jerk(vertices: Array, seconds: Sequence[float]) -> tuple[float, float, float]:
    """(mean speed, largest speed, RMS jerk) in diameters per second (per second cubed), RMS over vertices.

    Differences of neighbouring samples; jerk needs at least four samples and is 0 below.
    """
    times = np.asarray(seconds, np.float64)
    size = diameter(vertices[0])
    if len(times) < 2 or not size > 0.0:
        return 0.0, 0.0, 0.0
    steps = np.maximum(np.diff(times), 1e-9)
    moved = np.array([_rms(b - a) for a, b in itertools.pairwise(vertices)])
    speed = moved / steps / size
    jerk = 0.0
    if len(times) >= 4:
        third = [
            _rms(d - 3.0 * c + 3.0 * b - a)
            for a, b, c, d in zip(vertices, vertices[1:], vertices[2:], vertices[3:])
        ]
        jerk = float(np.sqrt(np.mean(np.square(np.array(third) / steps.mean() ** 3 / size))))
    return float(moved.sum() / steps.sum() / size), float(speed.max()), jerk


def rhythm(vertices: Array, seconds: Sequence[float], most_vertices: int = 500, most_times: int = 97):
    """(periodicity in [0, 1], period in seconds, loop_gap): does the motion repeat itself?

    For each lag the RMS distance between poses that lag apart is averaged; it rises from 0, and falls back
    where the motion repeats. Periodicity is 1 - (lowest value after the highest) / highest, and the period
    the lag of that lowest value (0 without one). `loop_gap` is the distance between the last and the first
    pose over the largest distance from the first: 0 for a clip that loops.
    """
    pick = np.unique(
        np.linspace(0, vertices.shape[1] - 1, min(most_vertices, vertices.shape[1])).round().astype(int)
    )
    steps = np.unique(np.linspace(0, len(vertices) - 1, min(most_times, len(vertices))).round().astype(int))
    poses = vertices[steps][:, pick].astype(np.float64).reshape(len(steps), -1)
    times = np.asarray(seconds, np.float64)[steps]
    if len(poses) < 4:
        return 0.0, 0.0, 0.0
    norms = (poses**2).sum(axis=1)
    distance = np.sqrt(np.maximum(norms[:, None] + norms[None] - 2.0 * poses @ poses.T, 0.0))
    loop_gap = _ratio(float(distance[-1, 0]), float(distance[0].max()))
    lags = np.array([np.diagonal(distance, k).mean() for k in range(len(poses) * 3 // 4 + 1)])
    top = int(np.argmax(lags))
    if top + 1 >= len(lags) or not lags[top] > 0.0:
        return 0.0, 0.0, loop_gap
    low = top + 1 + int(np.argmin(lags[top + 1 :]))
    return float(1.0 - lags[low] / lags[top]), float(times[low] - times[0]), loop_gap


def boxes(vertices: Array) -> Array:
    """[T, 2, 3]: lowest and highest corner of the axis-aligned box of each time."""
    return np.stack([box_of(pose) for pose in vertices])


def box_of(points: Array) -> Array:
    """[2, 3]: lowest and highest corner of points [V, 3]; one column at a time, which numpy does faster."""
    columns = [points[:, k] for k in range(3)]
    return np.array([[c.min() for c in columns], [c.max() for c in columns]], np.float64)


def union_growth(box: Array) -> float:
    """Longest edge of the union of `box` [T, 2, 3] over the longest edge of the first one."""
    union = box[:, 1].max(axis=0) - box[:, 0].min(axis=0)
    return _ratio(float(union.max()), float((box[0, 1] - box[0, 0]).max()))


def drift(box: Array) -> float:
    """How far the box's centre leaves its first place, in longest edges of the first box."""
    centre = box.mean(axis=1)
    away = np.sqrt(_squares(centre - centre[0]).max())
    return _ratio(float(away), float((box[0, 1] - box[0, 0]).max()))


def first_frame_scale(box: Array) -> tuple[float, Array]:
    """(scale, centre [3]) that make the first box's longest edge 1 and centre it, as the published render
    does.
    """
    edge = float((box[0, 1] - box[0, 0]).max())
    return (1.0 / edge if edge > 0.0 else 1.0), box[0].mean(axis=0)


def _view_axes(n_views: int) -> tuple[Array, Array]:
    """Right and backward axis [n, 2] (x, y) of each view of the default orbit at elevation 0."""
    azimuth = 2.0 * np.pi * np.arange(n_views) / n_views
    return (
        np.stack([np.cos(azimuth), np.sin(azimuth)], axis=-1),
        np.stack([np.sin(azimuth), -np.cos(azimuth)], axis=-1),
    )


def out_of_frame(points: Array, n_views: int = N_VIEWS) -> Array:
    """[n_views]: for each view of the default orbit, the largest share of vertices outside the frame.

    `points` [T, V, 3] are normalised (see `first_frame_scale`); the largest is over times.
    """
    n_times, n_points = points.shape[:2]
    flat = points.reshape(-1, 3).astype(np.float64)
    # Most points can be nowhere outside: no view sees one further aside than from its tangent, nor further
    # up or down than from its nearest place to the camera. Only the others are inspected in every view.
    radius = np.sqrt(np.einsum("vk,vk->v", flat[:, :2], flat[:, :2]))
    with np.errstate(invalid="ignore"):
        near = radius <= HALF_TAN * np.sqrt(DEFAULT_RADIUS**2 - radius**2) * (1.0 - 1e-9)
    near &= np.abs(flat[:, 2]) <= HALF_TAN * (DEFAULT_RADIUS - radius) * (1.0 - 1e-9)
    [risky] = np.nonzero(~near)
    shares = np.zeros(n_views)
    if len(risky) == 0:
        return shares
    flat, step = flat[risky], risky // n_points
    right, back = _view_axes(n_views)
    for i in range(n_views):
        limit = HALF_TAN * (DEFAULT_RADIUS - flat[:, :2] @ back[i])
        # A point behind the camera has a negative limit and is outside by the same test.
        outside = np.maximum(np.abs(flat[:, :2] @ right[i]), np.abs(flat[:, 2])) > limit
        shares[i] = np.bincount(step[outside], minlength=n_times).max() / n_points
    return shares


def surface_points(points: Array, triangles: npt.NDArray[np.integer], n: int = N_SURFACE) -> Array:
    """[n, 3]: points spread evenly over triangles [K, 3] of points [V, 3] by area, the same ones every time.

    Low-discrepancy (R2 sequence) inside each triangle, systematic over area, so that no random state is
    needed and a copy of the asset elsewhere gives copies of the points. The vertices where there is no area.
    """
    return _spread(points, triangles, n)[0]


def _spread(points: Array, triangles: npt.NDArray[np.integer], n: int) -> tuple[Array, Array, float]:
    """`surface_points`, the surface's normal at each (zeros without area), and its area."""
    corners = points[triangles].astype(np.float64)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    area = np.sqrt(_squares(normal))
    total = float(area.sum())
    if not total > 0.0:
        return points.astype(np.float64), np.zeros((len(points), 3)), 0.0
    which = np.searchsorted(np.cumsum(area) / total, (np.arange(n) + 0.5) / n).clip(0, len(triangles) - 1)
    u = np.modf(0.5 + 0.7548776662466927 * np.arange(n))[0]
    v = np.modf(0.5 + 0.5698402909980532 * np.arange(n))[0]
    over = u + v > 1.0
    u, v = np.where(over, 1.0 - u, u)[:, None], np.where(over, 1.0 - v, v)[:, None]
    places = a[which] * (1.0 - u - v) + b[which] * u + c[which] * v
    return places, normal[which] / np.maximum(area[which], 1e-300)[:, None], total / 2.0


def shape_change(
    first: Array, later: Iterable[Array], triangles: npt.NDArray[np.integer], queries: int = 512
) -> float:
    """Largest RMS distance of the surface at `later` times, each [V, 3], from that of `first`, in diameters
    of `first`.

    What slides along itself - a plain wheel about its axle, a tank's track - hardly changes it, however far
    its vertices go. Distances are from N_SURFACE points of the first surface: along the normal of the nearest
    one (point to plane, Chen and Medioni 1992), or to that point itself where it lies so far off that the
    first surface must have ended before.
    """
    from scipy.spatial import cKDTree

    places, normals, area = _spread(first, triangles, N_SURFACE)
    if not area > 0.0:
        return 0.0
    beyond = 3.0 * np.sqrt(area / N_SURFACE)
    tree = cKDTree(places)
    largest = 0.0
    for points in later:
        moved = surface_points(points, triangles, queries)
        away, nearest = tree.query(moved)
        along = np.abs(np.einsum("vk,vk->v", moved - places[nearest], normals[nearest]))
        distance = np.where(away > beyond, away, along)
        largest = max(largest, float(np.sqrt(np.mean(distance**2))))
    return relative(largest, first)


def silhouette_coverage(points: Array, n_views: int = N_VIEWS, grid: int = GRID) -> Array:
    """[n_views]: share of the frame that normalised surface points [N, 3] cover, counted in grid x grid
    cells.
    """
    right, back = _view_axes(n_views)
    shares = np.empty(n_views)
    for i in range(n_views):
        depth = HALF_TAN * (DEFAULT_RADIUS - points[:, :2] @ back[i])
        with np.errstate(divide="ignore", invalid="ignore"):
            column = np.floor((points[:, :2] @ right[i] / depth + 1.0) * (grid / 2.0))
            row = np.floor((points[:, 2] / depth + 1.0) * (grid / 2.0))
        seen = (depth > 0.0) & (column >= 0) & (column < grid) & (row >= 0) & (row < grid)
        hit = np.zeros(grid * grid, bool)
        hit[(row[seen] * grid + column[seen]).astype(np.int64)] = True
        shares[i] = hit.mean()
    return shares


def edge_lengths(points: Array, edges: npt.NDArray[np.integer]) -> Array:
    """[E]: lengths of edges [E, 2] of points [V, 3]."""
    ends = np.take(points, edges.ravel(), axis=0).reshape(-1, 2, 3)
    return np.sqrt(_squares(ends[:, 1] - ends[:, 0]))


def torn_edges(lengths: Array, rest: Array, rest_diameter: float) -> float:
    """Largest share over times of edges that tear: exploded skins, weights gone wrong.

    `lengths` [T, E] against `rest` [E]. An edge is torn when it grew TORN_RATIO times more than the median
    edge did and is longer than TORN_LENGTH of the rest pose's diameter (both scaled by that median, so that
    an asset that grows as a whole is not torn).
    """
    keep = rest > 1e-6 * rest_diameter
    if not keep.any() or not rest_diameter > 0.0:
        return 0.0
    ratio = lengths[:, keep] / rest[keep]
    growth = np.maximum(np.median(ratio, axis=1, keepdims=True), 1e-9)
    torn = (ratio > TORN_RATIO * growth) & (lengths[:, keep] > TORN_LENGTH * rest_diameter * growth)
    return float(torn.mean(axis=1).max())
