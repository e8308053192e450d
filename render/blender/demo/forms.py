# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the demo asset builder, which imports bpy (GPL); this module itself is plain numpy.
"""Shapes of the demo assets as arrays: distance fields made into meshes, lathes, tubes, baked textures.

A mesh is a pair (vertices [V, 3] float64, faces list of vertex index tuples, counter-clockwise from outside).
A field maps points [N, 3] to signed distances [N], negative inside. Colours are sRGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float64]
Field = Callable[[Array], Array]
Mesh = tuple[Array, list[tuple[int, ...]]]


def ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> Field:
    """Approximate distance to an ellipsoid (exact on its surface, good near it)."""
    c, r = np.asarray(centre, float), np.asarray(radii, float)

    def field(p: Array) -> Array:
        q = (p - c) / r
        k0 = np.linalg.norm(q, axis=1)
        k1 = np.linalg.norm(q / r, axis=1)
        return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)

    return field


def cone(a: Sequence[float], b: Sequence[float], ra: float, rb: float) -> Field:
    """A limb from `a` to `b` with round ends, its radius going from `ra` to `rb`."""
    a0, ab = np.asarray(a, float), np.asarray(b, float) - np.asarray(a, float)

    def field(p: Array) -> Array:
        t = np.clip((p - a0) @ ab / (ab @ ab), 0.0, 1.0)
        return np.linalg.norm(p - a0 - t[:, None] * ab, axis=1) - (ra + (rb - ra) * t)

    return field


def blend(fields: Sequence[Field], k: float) -> Field:
    """Union of fields with seams rounded over a width of about `k` (polynomial smooth minimum)."""

    def field(p: Array) -> Array:
        out = fields[0](p)
        for other in fields[1:]:
            d = other(p)
            h = np.maximum(k - np.abs(out - d), 0.0) / k
            out = np.minimum(out, d) - h * h * k * 0.25
        return out

    return field


def mirrored(field: Field) -> Field:
    """The field of x ≥ 0 and its mirror image."""
    return lambda p: field(np.abs(p * [1.0, 0.0, 0.0]) + p * [0.0, 1.0, 1.0])


def gradient(field: Field, p: Array, step: float = 1e-3) -> Array:
    """Numeric gradient of a field, [N, 3]."""
    axes = np.eye(3) * step
    return np.stack([(field(p + a) - field(p - a)) / (2 * step) for a in axes], axis=1)


def surface(field: Field, lo: Sequence[float], hi: Sequence[float], cell: float) -> Mesh:
    """Mesh the zero level of a field with quads of about `cell` (surface nets, Gibson 1998).

    The box `lo`..`hi` must hold the whole surface with a cell to spare. Vertices move onto the surface at
    the end, so the mesh is smooth although the grid is coarse.
    """
    n = np.ceil((np.asarray(hi) - np.asarray(lo)) / cell).astype(int) + 1
    axes = [lo[i] + cell * np.arange(n[i]) for i in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    value = field(grid.reshape(-1, 3)).reshape(n)
    corners: list[tuple[int, ...]] = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    m = n - 1
    at = {c: value[c[0] : c[0] + m[0], c[1] : c[1] + m[1], c[2] : c[2] + m[2]] for c in corners}
    total, count = np.zeros((*m, 3)), np.zeros(m)
    for a in corners:
        for axis in range(3):
            if a[axis] == 1:
                continue
            b = tuple(1 if i == axis else a[i] for i in range(3))
            cross = (at[a] < 0) != (at[b] < 0)
            t = np.where(cross, at[a] / np.where(cross, at[a] - at[b], 1.0), 0.0)
            point = np.broadcast_to(np.asarray(a, float), (*m, 3)).copy()
            point[..., axis] = t
            total += point * cross[..., None]
            count += cross
    active = count > 0
    index = np.full(m, -1)
    index[active] = np.arange(active.sum())
    where = np.argwhere(active)
    vertices = np.asarray(lo) + cell * (where + total[active] / count[active][:, None])
    for _ in range(3):
        g = gradient(field, vertices)
        length = np.linalg.norm(g, axis=1)
        vertices = vertices - (field(vertices) / np.maximum(length, 0.2) ** 2)[:, None] * g
    faces: list[tuple[int, ...]] = []
    for axis in range(3):
        u, v = [i for i in range(3) if i != axis]
        lower = np.take(value, np.arange(n[axis] - 1), axis=axis)
        upper = np.take(value, np.arange(1, n[axis]), axis=axis)
        for edge in np.argwhere((lower < 0) != (upper < 0)):
            if edge[u] == 0 or edge[v] == 0 or edge[u] >= m[u] or edge[v] >= m[v]:
                continue
            ring = []
            for du, dv in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
                cell_at = edge.copy()
                cell_at[u] += du
                cell_at[v] += dv
                ring.append(int(index[tuple(cell_at)]))
            # The order (u, v) is a right-handed pair for axes x and z, left-handed for y.
            inside_first = bool(lower[tuple(edge)] < 0)
            faces.append(tuple(ring if inside_first == (axis != 1) else ring[::-1]))
    return vertices, faces


def lathe(profile: Sequence[tuple[float, float]], segments: int = 24) -> Mesh:
    """Turn a profile of (radius, z), listed from bottom to top, about the z axis; radius 0 closes an end."""
    vertices: list[tuple[float, float, float]] = []
    rings: list[list[int]] = []
    for radius, z in profile:
        if radius <= 1e-9:
            rings.append([len(vertices)] * segments)
            vertices.append((0.0, 0.0, z))
            continue
        rings.append([len(vertices) + i for i in range(segments)])
        for i in range(segments):
            a = 2 * np.pi * i / segments
            vertices.append((radius * np.cos(a), radius * np.sin(a), z))
    faces: list[tuple[int, ...]] = []
    for low, high in pairwise(rings):
        for i in range(segments):
            j = (i + 1) % segments
            face = tuple(dict.fromkeys((low[i], low[j], high[j], high[i])))
            if len(face) > 2:
                faces.append(face)
    return np.array(vertices), faces


def sphere(radius: float = 1.0, segments: int = 24, rings: int = 14) -> Mesh:
    """A sphere about the origin with poles on the z axis."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    profile = [(float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]
    profile[0], profile[-1] = (0.0, -radius), (0.0, radius)
    return lathe(profile, segments)


def tube(path: npt.ArrayLike, radii: Sequence[float] | Array | float, segments: int = 8) -> Mesh:
    """A closed tube along a path [P, 3] that never runs straight along the x axis."""
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radii, float), len(p))
    tangent = np.gradient(p, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    angle = 2 * np.pi * np.arange(segments) / segments
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    body = (p[:, None] + r[:, None, None] * ring).reshape(-1, 3)
    vertices = np.vstack([body, p[:1], p[-1:]])
    faces: list[tuple[int, ...]] = []
    last = (len(p) - 1) * segments
    for i in range(segments):
        j = (i + 1) % segments
        for k in range(len(p) - 1):
            a, b = k * segments, (k + 1) * segments
            faces.append((a + i, a + j, b + j, b + i))
        faces.append((len(body), j, i))
        faces.append((len(body) + 1, last + i, last + j))
    return vertices, faces


def moved(
    mesh: Mesh,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    scale: Sequence[float] | float = 1.0,
    turn_deg: Sequence[float] = (0.0, 0.0, 0.0),
) -> Mesh:
    """Scale, then turn about x, y and z in that order, then shift a mesh."""
    return np.asarray(mesh[0]) * scale @ turn(turn_deg).T + np.asarray(shift, float), mesh[1]


def turn(angles_deg: Sequence[float]) -> Array:
    """Rotation matrix [3, 3] about x, then y, then z."""
    x, y, z = np.radians(np.asarray(angles_deg, float))
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


def smoothstep(low: float, high: float, x: npt.ArrayLike) -> Array:
    """0 below `low`, 1 above `high`, smooth between; `low` may exceed `high`."""
    t = np.clip((np.asarray(x, float) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def rgb(text: str) -> Array:
    """'#aabbcc' to sRGB in [0, 1]."""
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def paint(base: Array, colour: str, amount: npt.ArrayLike) -> Array:
    """Lay a colour over `base` [N, 3] with opacity `amount` [N]."""
    a = np.asarray(amount, float)[:, None]
    return base * (1 - a) + rgb(colour) * a


def bake(uv: Array, position: Array, colour: Callable[[Array], Array], size: int) -> npt.NDArray[np.uint8]:
    """Paint a solid texture onto an unwrapped mesh: uint8 sRGB [size, size, 3], row 0 at v = 0.

    `uv` [T, 3, 2] and `position` [T, 3, 3] are the triangles; `colour` maps points [N, 3] to sRGB [N, 3].
    Texels outside the charts take the nearest painted texel, so filtering never shows a seam.
    """
    place = np.full((size, size, 3), np.nan)
    for corner, point in zip(uv * size - 0.5, position):
        lo = np.maximum(np.floor(corner.min(0)).astype(int) - 1, 0)
        hi = np.minimum(np.ceil(corner.max(0)).astype(int) + 1, size - 1)
        (x0, y0), (x1, y1), (x2, y2) = corner
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        y, x = np.mgrid[lo[1] : hi[1] + 1, lo[0] : hi[0] + 1]
        w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
        w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
        inside = (w1 >= -0.02) & (w2 >= -0.02) & (w1 + w2 <= 1.02)
        blended = point[0] + w1[..., None] * (point[1] - point[0]) + w2[..., None] * (point[2] - point[0])
        place[y[inside], x[inside]] = blended[inside]
    empty = np.isnan(place[..., 0])
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    place = place[nearest[0], nearest[1]]
    shade = np.clip(colour(place.reshape(-1, 3)), 0.0, 1.0).reshape(size, size, 3)
    return np.round(shade * 255.0).astype(np.uint8)


def skin_weights(
    points: Array, bones: dict[str, tuple[Sequence[float], Sequence[float], float]], softness: float
) -> dict[str, Array]:
    """Weight [N] of every bone (head, tail, radius) at each point: falls with the distance from its capsule.

    At most four bones share a point and their weights sum to 1, which is what glTF stores.
    """
    away = np.stack([np.maximum(cone(a, b, r, r)(points), 0.0) for a, b, r in bones.values()], axis=1)
    weight = np.exp(-(((away - away.min(1, keepdims=True)) / softness) ** 2))
    fourth = np.sort(weight, axis=1)[:, -min(4, weight.shape[1]), None]
    weight = np.where((weight >= fourth) & (weight > 0.02), weight, 0.0)
    weight /= weight.sum(1, keepdims=True)
    return {name: weight[:, i] for i, name in enumerate(bones)}
