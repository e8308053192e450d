"""Inside or outside of a closed mesh, by the winding number.

Along a ray the winding number of a closed, oriented surface is its signed crossings: those that enter less
those that leave. Triangles stand in a grid over the plane across the ray, so a point meets only the few above
it. Rays along three axes are averaged, so that a surface with a small hole errs at most in its shadow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit

Array = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]


def inside(points: Array, vertices: Array, faces: Faces) -> npt.NDArray[np.bool_]:
    """Whether points [N, 3] lie inside of the mesh of vertices [V, 3] and faces [M, 3]: [N]."""
    return np.asarray(np.abs(winding_number(points, vertices, faces)) > 0.5)


def winding_number(points: Array, vertices: Array, faces: Faces) -> Array:
    """Winding number of a closed surface around each of points [N, 3]: [N], 1 inside an outward mesh."""
    total = np.zeros(len(points))
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        triangles = np.ascontiguousarray(vertices[:, order][faces])
        starts, members, low, cell, shape = _grid(triangles[:, :, :2])
        x = np.ascontiguousarray(points[:, order])
        total += _crossings(x, triangles, starts, members, low, cell, shape[0], shape[1])
    return total / 3


def winding_number_reference(points: Array, vertices: Array, faces: Faces) -> Array:
    """The slow twin of `winding_number`: solid angles (van Oosterom and Strackee 1983), summed."""
    a, b, c = (vertices[faces[:, i]][None] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    triple = (a * np.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.asarray(2 * np.arctan2(triple, below).sum(1) / (4 * np.pi))


def _grid(flat: Array) -> tuple[Faces, Faces, Array, Array, tuple[int, int]]:
    """Cells of a square grid over triangles [M, 3, 2]: starts, members, its low corner, cell size, shape."""
    low, high = flat.min((0, 1)), flat.max((0, 1))
    side = int(np.clip(np.sqrt(len(flat)), 1, 1024))
    cell = np.maximum((high - low) / side, 1e-12)
    first = np.clip(((flat.min(1) - low) / cell).astype(np.int64), 0, side - 1)
    last = np.clip(((flat.max(1) - low) / cell).astype(np.int64), 0, side - 1)
    starts, members = _members(first, last, side)
    return starts, members, low, cell, (side, side)


@jit
def _members(first: Faces, last: Faces, side: int) -> tuple[Faces, Faces]:
    starts = np.zeros(side * side + 1, np.int64)
    for t in range(len(first)):
        for i in range(first[t, 0], last[t, 0] + 1):
            for j in range(first[t, 1], last[t, 1] + 1):
                starts[i * side + j + 1] += 1
    for k in range(side * side):
        starts[k + 1] += starts[k]
    fill = starts[:-1].copy()
    members = np.empty(starts[-1], np.int64)
    for t in range(len(first)):
        for i in range(first[t, 0], last[t, 0] + 1):
            for j in range(first[t, 1], last[t, 1] + 1):
                members[fill[i * side + j]] = t
                fill[i * side + j] += 1
    return starts, members


@jit
def _side(ax: float, ay: float, bx: float, by: float, x: float, y: float) -> bool:
    """Whether (x, y) is left of the edge a-b. Either direction of an edge asks the same sums, so that a point
    on the edge of two triangles belongs to exactly one."""
    if ax < bx or (ax == bx and ay < by):
        return (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    return not (ax - bx) * (y - by) - (ay - by) * (x - bx) > 0


@jit
def _crossings(
    points: Array, triangles: Array, starts: Faces, members: Faces, low: Array, cell: Array, nx: int, ny: int
) -> Array:
    out = np.zeros(len(points))
    for p in range(len(points)):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        i, j = int(np.floor((x - low[0]) / cell[0])), int(np.floor((y - low[1]) / cell[1]))
        if i < -1 or j < -1 or i > nx or j > ny:
            continue
        k = min(max(i, 0), nx - 1) * ny + min(max(j, 0), ny - 1)
        for m in range(starts[k], starts[k + 1]):
            a, b, c = triangles[members[m], 0], triangles[members[m], 1], triangles[members[m], 2]
            left = _side(a[0], a[1], b[0], b[1], x, y)
            if left != _side(b[0], b[1], c[0], c[1], x, y) or left != _side(c[0], c[1], a[0], a[1], x, y):
                continue
            u0, u1, u2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            v0, v1, v2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
            normal = u0 * v1 - u1 * v0
            if normal == 0.0:
                continue
            height = a[2] - ((u1 * v2 - u2 * v1) * (x - a[0]) + (u2 * v0 - u0 * v2) * (y - a[1])) / normal
            if height > z:
                out[p] += 1.0 if left else -1.0
    return out
