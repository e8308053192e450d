"""Kernels of the forward warp: a surface of triangles, and points for what triangles miss.

One source image and one target camera a call, in one thread: the result cannot depend on the number of
threads, and frames are warped side by side. Oracle: the slow twin in the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit

Floats = npt.NDArray[np.float32]

#: A triangle is cut where its depths differ by more than this share of the nearest.
CUT = 0.03
#: A point enters the depth buffer of a pixel of which it covers this share; and the least summed weight of a
#: hit.
COVER = 0.1
#: Points within this share of the nearest are one surface; a point beats the surface when it is nearer by it.
SAME = 0.01
#: Confidence of a pixel that points fill: measured, a surface of another source shows it better.
POINT = 0.25
#: Softness of `soft`: a share of the nearest depth.
SOFT = 0.005


class Seen(NamedTuple):
    """A source's pixels [h, w] as the target's camera has them."""

    u: Floats
    v: Floats
    """Pixels of the target."""
    z: Floats
    """Depth in the target."""
    valid: npt.NDArray[np.bool_]
    """Whether it is in front of the target's camera."""
    depth: Floats
    """In the source."""
    colour: Floats
    """[h, w, C]"""


class Surface(NamedTuple):
    """The target [H, W] with the triangles that are drawn on it."""

    near: Floats
    """1/z of what is drawn; 0: nothing."""
    out: Floats
    """[H, W, C] its colour."""
    stretch: Floats
    """Source area over target area, at most 1."""


class Points(NamedTuple):
    """The target [H, W] with the points that are splatted on it."""

    far: Floats
    """The nearest depth; inf: none."""
    weight: Floats
    """Summed shares."""
    out: Floats
    """[H, W, C] summed shares of colours."""


@jit(inline="always")
def _triangle(
    seen: Seen, q: Floats, target: Surface, facing: npt.NDArray[np.uint8], r0: int, c0: int, r1: int, c1: int,
    r2: int, c2: int,
) -> None:  # fmt: skip
    """One triangle, unless it spans a step in depth or turns away. 1/z is interpolated; colours are linear
    in the pixels of the source, as the homography of a plane asks: weighted by its depth over the target.
    `facing` of its corners notes whether it is whole (1) and whether it is turned here (2).
    """
    u, v, depth, colour = seen.u, seen.v, seen.depth, seen.colour
    near, out, stretch = target
    d0, d1, d2 = depth[r0, c0], depth[r1, c1], depth[r2, c2]
    nearest = min(min(d0, d1), d2)
    if max(max(d0, d1), d2) - nearest > np.float32(CUT) * nearest:
        return
    x0, y0, x1, y1, x2, y2 = u[r0, c0], v[r0, c0], u[r1, c1], v[r1, c1], u[r2, c2], v[r2, c2]
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    mark = np.uint8(3 if area > 0 else 1)
    facing[r0, c0] |= mark
    facing[r1, c1] |= mark
    facing[r2, c2] |= mark
    if not area > 0:
        return
    height, width = near.shape
    half = np.float32(0.5)
    left = max(int(np.ceil(min(min(x0, x1), x2) - half)), 0)
    right = min(int(np.floor(max(max(x0, x1), x2) - half)), width - 1)
    top = max(int(np.ceil(min(min(y0, y1), y2) - half)), 0)
    bottom = min(int(np.floor(max(max(y0, y1), y2) - half)), height - 1)
    if left > right or top > bottom:
        return
    one = np.float32(1)
    inverse = one / area
    share = min(one, inverse)
    edge = np.float32(-1e-6)
    q0, q1, q2 = q[r0, c0], q[r1, c1], q[r2, c2]
    p0, p1, p2 = q0 * d0, q1 * d1, q2 * d2
    for y in range(top, bottom + 1):
        py = np.float32(y) + half
        for x in range(left, right + 1):
            px = np.float32(x) + half
            b0 = ((x1 - px) * (y2 - py) - (y1 - py) * (x2 - px)) * inverse
            b1 = ((x2 - px) * (y0 - py) - (y2 - py) * (x0 - px)) * inverse
            b2 = one - b0 - b1
            if b0 < edge or b1 < edge or b2 < edge:
                continue
            here = b0 * q0 + b1 * q1 + b2 * q2
            if here <= near[y, x]:
                continue
            near[y, x] = here
            stretch[y, x] = share
            w0, w1, w2 = b0 * p0, b1 * p1, b2 * p2
            whole = one / (w0 + w1 + w2)
            w0, w1, w2 = w0 * whole, w1 * whole, w2 * whole
            for c in range(out.shape[2]):
                out[y, x, c] = w0 * colour[r0, c0, c] + w1 * colour[r1, c1, c] + w2 * colour[r2, c2, c]


@jit
def surface(seen: Seen, q: Floats, target: Surface, facing: npt.NDArray[np.uint8]) -> None:
    """Triangles of 2 x 2 blocks of the source, drawn where the target sees them; `q` [h, w] is 1/z there.

    `facing` [h, w] is 1 for source pixels whose triangles all turn away, 3 where one does not, 0 without any.
    The corners of a block are named a, b, c, d clockwise, so that a front face keeps a positive area.
    """
    valid, depth = seen.valid, seen.depth
    h, w = q.shape
    for i in range(h - 1):
        for j in range(w - 1):
            a, b = valid[i, j], valid[i, j + 1]
            c, d = valid[i + 1, j + 1], valid[i + 1, j]
            count = int(a) + int(b) + int(c) + int(d)
            if count < 3:
                continue
            # The diagonal along which depth changes less: an edge of the object stays in one triangle.
            falling = abs(depth[i, j] - depth[i + 1, j + 1]) <= abs(depth[i, j + 1] - depth[i + 1, j])
            if count == 3:
                falling = not (b and d)
            for second in range(2):
                # falling: a b c, a c d; rising: a b d, b c d
                if falling:
                    whole = (a and c and d) if second else (a and b and c)
                    c0, r1, c1 = j, i + second, j + 1
                    r2, c2 = i + 1, j + 1 - second
                else:
                    whole = (b and c and d) if second else (a and b and d)
                    c0, r1, c1 = j + second, i + second, j + 1
                    r2, c2 = i + 1, j
                if whole:
                    _triangle(seen, q, target, facing, i, c0, r1, c1, r2, c2)


@jit
def points(seen: Seen, facing: npt.NDArray[np.uint8], soft: bool, target: Points) -> None:
    """Bilinear splats of the source's pixels: the target sums what lies within 1 % of the nearest depth, or
    softly. A pixel of a surface that turns away (`facing` 1) is no thin part: its other side is not known."""
    u, v, z, valid, colour = seen.u, seen.v, seen.z, seen.valid, seen.colour
    far, weight, out = target
    h, w = z.shape
    height, width = far.shape
    for turn in range(2):
        for i in range(h):
            for j in range(w):
                if not valid[i, j] or facing[i, j] == 1:
                    continue
                x, y = u[i, j] - np.float32(0.5), v[i, j] - np.float32(0.5)
                if not (x > -1 and y > -1 and x < width and y < height):
                    continue
                left, top = int(np.floor(x)), int(np.floor(y))
                fx, fy = x - left, y - top
                for k in range(4):
                    column, row = left + (k & 1), top + (k >> 1)
                    if column < 0 or row < 0 or column >= width or row >= height:
                        continue
                    share = (fx if k & 1 else 1 - fx) * (fy if k >> 1 else 1 - fy)
                    if turn == 0:
                        if share >= COVER and z[i, j] < far[row, column]:
                            far[row, column] = z[i, j]
                        continue
                    nearest = far[row, column]
                    if not nearest < np.inf:
                        continue
                    if soft:
                        share *= np.exp(-max(z[i, j] - nearest, np.float32(0)) / (np.float32(SOFT) * nearest))
                    elif z[i, j] > nearest * np.float32(1 + SAME):
                        continue
                    weight[row, column] += share
                    for c in range(out.shape[2]):
                        out[row, column, c] += share * colour[i, j, c]


@jit
def joined(drawn_on: Surface, splatted: Points, covered: npt.NDArray[np.bool_]) -> None:
    """Surface and points as one, in place: the surface's colours, the points' depth (inf where unseen), the
    surface's stretch as confidence, that of points set, `covered` [H, W] where anything is. A point wins
    where it is nearer by 1 %."""
    near, drawn, stretch = drawn_on
    far, weight, splat = splatted
    one, least = np.float32(1), np.float32(COVER)
    for y in range(near.shape[0]):
        for x in range(near.shape[1]):
            on_surface = near[y, x] > 0
            z = one / near[y, x] if on_surface else np.float32(np.inf)
            if weight[y, x] > least and far[y, x] < z * np.float32(1 - SAME):
                for c in range(drawn.shape[2]):
                    drawn[y, x, c] = splat[y, x, c] / weight[y, x]
                stretch[y, x] = np.float32(POINT)
                covered[y, x] = True
            else:
                far[y, x] = z
                covered[y, x] = on_surface
