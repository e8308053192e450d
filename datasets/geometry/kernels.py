"""Triangles against pixels: which one a pixel's centre sees, where on it, and which points it hides.

Everything is written in homogeneous pixels h = (column * z, row * z, z), z the depth along the view axis. For
the ray d = (column, row, 1) through a point of the image and a triangle a, b, c the numbers

    e_a = d · (h_b x h_c),  e_b = d · (h_c x h_a),  e_c = d · (h_a x h_b),  D = h_a · (h_b x h_c)

say all there is: the ray meets the triangle in front of the camera when every e has D's sign, at the depth
D / (e_a + e_b + e_c), and e over their sum are the barycentrics. That holds for triangles that reach behind
the camera too, so none is clipped or dropped. An edge that two triangles share gives the same numbers with
opposite signs, so no ray slips through between them. D is negative when the front is seen.

Sums are written out, since those of a library may be rounded differently on another machine. The twin that
tests hold these against casts each ray at every triangle (tests/datasets/geometry).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit

#: Depth in front of which nothing is seen.
NEAR = 1e-3
#: Of surfaces that lie this close together (share of the depth) the first triangle is seen.
COINCIDENT = 1e-6
#: A point is hidden by what is nearer than this share of its depth: above what float32 and quantising change,
#: below any gap that shows.
HIDDEN = 1e-4

#: Kinds of triangles at one time.
GONE, TWO_SIDED, SINGLE_SIDED = 0, 1, 2


class AlphaCells(NamedTuple):
    """Where surfaces are see-through, as kernels take it. `A` triangles have a map."""

    row: npt.NDArray[np.int32]
    """[M] row in `corners` of a triangle, -1 for one without a map."""
    corners: npt.NDArray[np.float32]
    """[A, 3, 2] texture places."""
    map_of: npt.NDArray[np.int32]
    """[A] row in `maps`."""
    maps: npt.NDArray[np.float64]
    """[K, 6] offset in `texels`, width, height, threshold, wrap, linear."""
    texels: npt.NDArray[np.uint8]
    """Alpha of all maps, bottom row first."""


class Posed(NamedTuple):
    """A mesh before a camera, as kernels take it."""

    h: npt.NDArray[np.float64]
    """[U, 3] vertices in homogeneous pixels."""
    faces: npt.NDArray[np.int32]
    """[M, 3]"""
    kind: npt.NDArray[np.uint8]
    """[M] GONE, SINGLE_SIDED or neither."""
    alpha: AlphaCells
    """Where surfaces are see-through."""


@jit
def homogeneous(vertices, view):  # type: ignore[no-untyped-def]
    """[U, 3] float64: `view` [3, 4] (intrinsics times world-to-camera) on `vertices` [U, 3]."""
    out = np.empty((len(vertices), 3), np.float64)
    for i in range(len(vertices)):
        x, y, z = np.float64(vertices[i, 0]), np.float64(vertices[i, 1]), np.float64(vertices[i, 2])
        for k in range(3):
            out[i, k] = view[k, 0] * x + view[k, 1] * y + view[k, 2] * z + view[k, 3]
    return out


@jit
def _edge(p, q):  # type: ignore[no-untyped-def]
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


@jit
def _alpha(texels, m, u, v):  # type: ignore[no-untyped-def]
    """Alpha in [0, 1] of a map `m` = (offset, width, height, threshold, wrap, linear) at a texture place."""
    offset, w, h, wrap = int(m[0]), int(m[1]), int(m[2]), int(m[4])
    if not (np.isfinite(u) and np.isfinite(v)):
        return 0.0
    if wrap == 0:
        u -= np.floor(u)
        v -= np.floor(v)
    if wrap == 2 and (u < 0.0 or u > 1.0 or v < 0.0 or v > 1.0):
        return 0.0
    x, y = min(max(u, -1.0), 2.0) * w, min(max(v, -1.0), 2.0) * h
    if m[5] == 0.0:
        column, row = int(np.floor(x)), int(np.floor(y))
        column, row = min(max(column, 0), w - 1), min(max(row, 0), h - 1)
        return texels[offset + row * w + column] / 255.0
    x, y = x - 0.5, y - 0.5
    left, low = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - left, y - low
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            column, row = left + dx, low + dy
            if wrap == 0:
                column, row = column % w, row % h
            else:
                column, row = min(max(column, 0), w - 1), min(max(row, 0), h - 1)
            weight = (fx if dx else 1.0 - fx) * (fy if dy else 1.0 - fy)
            total += weight * texels[offset + row * w + column] / 255.0
    return total


@jit
def _solid(alpha, m, ea, eb, ec):  # type: ignore[no-untyped-def]
    """Whether triangle `m` is there at the place of the weights (of any sum)."""
    which = alpha.row[m]
    if which < 0:
        return True
    total = ea + eb + ec
    corners = alpha.corners[which]
    u = (ea * corners[0, 0] + eb * corners[1, 0] + ec * corners[2, 0]) / total
    v = (ea * corners[0, 1] + eb * corners[1, 1] + ec * corners[2, 1]) / total
    entry = alpha.maps[alpha.map_of[which]]
    return _alpha(alpha.texels, entry, u, v) >= entry[3]


@jit
def _span(a, b, c, size):  # type: ignore[no-untyped-def]
    """First and last pixel whose centre lies between three places of an axis, within the image."""
    low, high = min(a, min(b, c)) - 0.5, max(a, max(b, c)) - 0.5
    if not (low <= size and high >= 0.0):
        return 0, -1
    return int(np.ceil(max(low, 0.0))), int(np.floor(min(high, size - 1.0)))


@jit
def _edges(h, f0, f1, f2, kind, out):  # type: ignore[no-untyped-def]
    """Into `out` [10]: what e_a, e_b, e_c of a triangle take of a ray, and D, all turned so that D is
    positive; D is 0 for a triangle that is not seen from this side, or edge on.
    """
    a0, a1, a2 = h[f0, 0], h[f0, 1], h[f0, 2]
    b0, b1, b2 = h[f1, 0], h[f1, 1], h[f1, 2]
    c0, c1, c2 = h[f2, 0], h[f2, 1], h[f2, 2]
    out[0], out[1], out[2] = b1 * c2 - b2 * c1, b2 * c0 - b0 * c2, b0 * c1 - b1 * c0
    out[3], out[4], out[5] = c1 * a2 - c2 * a1, c2 * a0 - c0 * a2, c0 * a1 - c1 * a0
    out[6], out[7], out[8] = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    D = a0 * out[0] + a1 * out[1] + a2 * out[2]
    if D < 0.0:
        for k in range(9):
            out[k] = -out[k]
    out[9] = 0.0 if (kind == SINGLE_SIDED and D > 0.0) or not np.isfinite(D) else abs(D)


@jit
def draw(posed, width, height):  # type: ignore[no-untyped-def]
    """(number of the triangle that each pixel's centre sees [H, W] int32, -1 where none, its depth)."""
    h, faces, kind, alpha = posed
    seen = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), np.inf)
    edges = np.empty(10)
    for m in range(len(faces)):
        if kind[m] == GONE:
            continue
        f0, f1, f2 = faces[m, 0], faces[m, 1], faces[m, 2]
        if max(h[f0, 2], max(h[f1, 2], h[f2, 2])) <= NEAR:
            continue
        left, right, top, bottom = 0, width - 1, 0, height - 1
        if min(h[f0, 2], min(h[f1, 2], h[f2, 2])) > NEAR:
            za, zb, zc = 1.0 / h[f0, 2], 1.0 / h[f1, 2], 1.0 / h[f2, 2]
            left, right = _span(h[f0, 0] * za, h[f1, 0] * zb, h[f2, 0] * zc, width)
            top, bottom = _span(h[f0, 1] * za, h[f1, 1] * zb, h[f2, 1] * zc, height)
            if left > right or top > bottom:
                continue
        _edges(h, f0, f1, f2, kind[m], edges)
        if edges[9] > 0.0:
            _fill(m, edges, left, right, top, bottom, alpha, seen, depth)
    return seen, depth


@jit
def _fill(m, edges, left, right, top, bottom, alpha, seen, depth):  # type: ignore[no-untyped-def]
    """Draw triangle `m`, of `edges`, where it is in front of what is there."""
    ax, ay, az, bx, by, bz = edges[0], edges[1], edges[2], edges[3], edges[4], edges[5]
    cx, cy, cz, D = edges[6], edges[7], edges[8], edges[9]
    cut = alpha.row[m] >= 0
    for i in range(top, bottom + 1):
        v = i + 0.5
        a0, b0, c0 = ay * v + az, by * v + bz, cy * v + cz
        for j in range(left, right + 1):
            u = j + 0.5
            ea, eb, ec = ax * u + a0, bx * u + b0, cx * u + c0
            if min(ea, min(eb, ec)) < 0.0:
                continue
            z = D / (ea + eb + ec)
            if z < depth[i, j] * (1.0 - COINCIDENT) and z >= NEAR:
                if cut and not _solid(alpha, m, ea, eb, ec):
                    continue
                depth[i, j] = z
                seen[i, j] = m


@jit
def weights(seen, h, faces):  # type: ignore[no-untyped-def]
    """[H, W, 3] float64: barycentrics of each pixel's centre on the triangle that it sees; 0 without one."""
    height, width = seen.shape
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            m = seen[i, j]
            if m < 0:
                continue
            u, v = j + 0.5, i + 0.5
            a, b, c = h[faces[m, 0]], h[faces[m, 1]], h[faces[m, 2]]
            ax, ay, az = _edge(b, c)
            bx, by, bz = _edge(c, a)
            cx, cy, cz = _edge(a, b)
            ea, eb, ec = ax * u + ay * v + az, bx * u + by * v + bz, cx * u + cy * v + cz
            total = ea + eb + ec
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = ea / total, eb / total, ec / total
    return out


@jit
def carry(triangles, barycentric, vertices, faces):  # type: ignore[no-untyped-def]
    """[N, 3] float64: places on `triangles` [N] by `barycentric` [N, 3]; 0 where the triangle is -1."""
    out = np.zeros((len(triangles), 3))
    for n in range(len(triangles)):
        m = triangles[n]
        if m < 0:
            continue
        for k in range(3):
            out[n, k] = (
                barycentric[n, 0] * vertices[faces[m, 0], k]
                + barycentric[n, 1] * vertices[faces[m, 1], k]
                + barycentric[n, 2] * vertices[faces[m, 2], k]
            )
    return out


@jit
def _front(h, f0, f1, f2):  # type: ignore[no-untyped-def]
    """D of a triangle: negative where its front is seen."""
    b0, b1, b2 = h[f1, 0], h[f1, 1], h[f1, 2]
    c0, c1, c2 = h[f2, 0], h[f2, 1], h[f2, 2]
    return h[f0, 0] * (b1 * c2 - b2 * c1) + h[f0, 1] * (b2 * c0 - b0 * c2) + h[f0, 2] * (b0 * c1 - b1 * c0)


@jit
def visible(points, triangles, barycentric, posed, width, height):  # type: ignore[no-untyped-def]
    """[N] uint8: whether the ray to each of `points` [N, 3] (homogeneous pixels) meets it first.

    `triangles` [N] and `barycentric` [N, 3] say on which surface each lies. The points are binned into cells
    of 2 x 2 pixels, and every triangle is compared with those in the cells that it reaches.
    """
    h, faces, kind, alpha = posed
    columns, rows = (width + 1) // 2, (height + 1) // 2
    head = np.full(columns * rows, -1, np.int32)
    after = np.full(len(points), -1, np.int32)
    # Depth beyond which a triangle hides nothing in a cell.
    farthest = np.zeros(columns * rows)
    found = np.zeros(len(points), np.uint8)
    for n in range(len(points)):
        z = points[n, 2]
        if triangles[n] < 0 or not z > NEAR:
            continue
        u, v = points[n, 0] / z, points[n, 1] / z
        if not (u >= 0.0 and v >= 0.0 and u < width and v < height):
            continue
        # Its own triangle must be drawn, from this side, where the point lies.
        m = triangles[n]
        if kind[m] == GONE:
            continue
        if kind[m] == SINGLE_SIDED and _front(h, faces[m, 0], faces[m, 1], faces[m, 2]) > 0.0:
            continue
        if alpha.row[m] >= 0 and not _solid(
            alpha, m, barycentric[n, 0], barycentric[n, 1], barycentric[n, 2]
        ):
            continue
        found[n] = 1
        cell = int(v) // 2 * columns + int(u) // 2
        after[n], head[cell] = head[cell], n
        farthest[cell] = max(farthest[cell], z * (1.0 - HIDDEN))
    cells = _cells(h, width, height)
    edges = np.empty(10)
    for m in range(len(faces)):
        if kind[m] == GONE:
            continue
        f0, f1, f2 = faces[m, 0], faces[m, 1], faces[m, 2]
        near = min(h[f0, 2], min(h[f1, 2], h[f2, 2]))
        left, right, top, bottom = 0, columns - 1, 0, rows - 1
        if near > NEAR:
            left = max(min(cells[f0, 0], min(cells[f1, 0], cells[f2, 0])), 0)
            right = min(max(cells[f0, 0], max(cells[f1, 0], cells[f2, 0])), columns - 1)
            top = max(min(cells[f0, 1], min(cells[f1, 1], cells[f2, 1])), 0)
            bottom = min(max(cells[f0, 1], max(cells[f1, 1], cells[f2, 1])), rows - 1)
        elif max(h[f0, 2], max(h[f1, 2], h[f2, 2])) <= NEAR:
            continue
        ready = False
        for row in range(top, bottom + 1):
            for cell in range(row * columns + left, row * columns + right + 1):
                if near >= farthest[cell] or head[cell] < 0:
                    continue
                if not ready:
                    ready = True
                    _edges(h, f0, f1, f2, kind[m], edges)
                if edges[9] > 0.0:
                    _hide(m, cell, points, triangles, edges, alpha, head, after, found)
    return found


@jit
def _cells(h, width, height):  # type: ignore[no-untyped-def]
    """[U, 2] int32 cell, column and row, that each vertex lies in; far outside where it is behind."""
    out = np.empty((len(h), 2), np.int32)
    for i in range(len(h)):
        z = h[i, 2]
        for k in range(2):
            place = h[i, k] / z if z > NEAR else -1.0
            out[i, k] = np.int32(np.floor(min(max(place, -2.0), 2.0 * max(width, height) + 4.0) * 0.5))
    return out


@jit
def _hide(m, cell, points, triangles, edges, alpha, head, after, found):  # type: ignore[no-untyped-def]
    """Take the points of a cell that triangle `m`, of `edges`, hides out of it and out of `found`."""
    ax, ay, az, bx, by, bz = edges[0], edges[1], edges[2], edges[3], edges[4], edges[5]
    cx, cy, cz, D = edges[6], edges[7], edges[8], edges[9]
    before, n = -1, head[cell]
    while n >= 0:
        following = after[n]
        # The ray to a point is the point itself.
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        ea = ax * x + ay * y + az * z
        eb = bx * x + by * y + bz * z
        ec = cx * x + cy * y + cz * z
        total = ea + eb + ec
        if (
            min(ea, min(eb, ec)) >= 0.0
            and total * (1.0 - HIDDEN) > D
            and D * z >= NEAR * total
            and triangles[n] != m
            and (alpha.row[m] < 0 or _solid(alpha, m, ea, eb, ec))
        ):
            found[n] = 0
            if before < 0:
                head[cell] = following
            else:
                after[before] = following
        else:
            before = n
        n = following
