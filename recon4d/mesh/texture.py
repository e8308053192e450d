"""The texture: the surface unwrapped onto an image (xatlas), and colours of the views that see it best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.mesh.surface import View, normals

Array = npt.NDArray[Any]
#: Texels along an edge.
SIZE = 512
#: A texel is seen where its depth is that of the view to this share of the distance.
_NEAR = 0.012
#: Power of the cosine between normal and view: the view that looks straight counts most.
_POWER = 4
#: Texels that colours are carried beyond the seams.
_SEAM = 8


@dataclass(frozen=True)
class Textured:
    """A mesh whose vertices are split along the seams."""

    vertices: Array
    """[V, 3]"""
    faces: Array
    """[M, 3]"""
    uv: Array
    """[V, 2] in [0, 1], v up."""
    normals: Array
    """[V, 3]"""
    image: Array
    """[S, S, 3] uint8 sRGB, top row first."""


def textured(vertices: Array, faces: Array, views: list[View], size: int = SIZE) -> Textured:
    """Unwrap and bake. InputError where xatlas is missing."""
    try:
        import xatlas  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("a mesh needs xatlas: pip install 'orbit4d[mesh]'") from None
    smooth = normals(vertices, faces)
    origin, split, uv = xatlas.parametrize(vertices.astype(np.float32), faces.astype(np.uint32))
    where, split = origin.astype(np.int64), split.astype(np.int64)
    vertices, smooth = vertices[where], smooth[where]
    texel = np.full((size, size), -1, np.int64)
    shares = np.zeros((size, size, 2))
    _draw(uv.astype(np.float64) * size, split, texel, shares)
    row, column = np.nonzero(texel >= 0)
    corners = split[texel[row, column]]
    b, c = shares[row, column].T
    weight = np.stack([1 - b - c, b, c], 1)[..., None]
    colors = _colors((vertices[corners] * weight).sum(1), (smooth[corners] * weight).sum(1), views)
    image = np.zeros((size, size, 3))
    image[row, column] = colors
    image = _carried(image, texel >= 0)
    # Row 0 of the drawing is v = 0, the bottom of an image.
    pixels = (image[::-1].clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Textured(vertices, split, uv.astype(np.float64), smooth, pixels)


@jit
def _draw(uv, faces, texel, shares):
    """The triangle under each texel's centre, and its last two barycentric coordinates."""
    size = texel.shape[0]
    for f in range(faces.shape[0]):
        ax, ay = uv[faces[f, 0]]
        bx, by = uv[faces[f, 1]]
        cx, cy = uv[faces[f, 2]]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        for y in range(max(int(min(ay, by, cy)), 0), min(int(max(ay, by, cy)) + 1, size)):
            for x in range(max(int(min(ax, bx, cx)), 0), min(int(max(ax, bx, cx)) + 1, size)):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                b = (px * (cy - ay) - (cx - ax) * py) / area
                c = ((bx - ax) * py - px * (by - ay)) / area
                if b >= -1e-9 and c >= -1e-9 and b + c <= 1.0 + 1e-9:
                    texel[y, x] = f
                    shares[y, x, 0], shares[y, x, 1] = b, c


def _colors(points: Array, turned: Array, views: list[View]) -> Array:
    """[P, 3] of surface points: the mean over views that see them, straight ones first."""
    total, weight = np.zeros((len(points), 3)), np.zeros(len(points))
    spare, spare_weight = np.zeros((len(points), 3)), np.zeros(len(points))
    for view in views:
        camera = view.camera
        w2c = camera.w2c_opencv
        local = points @ w2c[:3, :3].T + w2c[:3, 3]
        z = local[:, 2]
        u, v = (
            local[:, i] / z * f + c - 0.5
            for i, f, c in ((0, camera.fl_x, camera.cx), (1, camera.fl_y, camera.cy))
        )
        towards = camera.position - points
        facing = (turned * towards).sum(1) / np.maximum(np.linalg.norm(towards, axis=1), 1e-9)
        alpha = _at(view.alpha[..., None], u, v)[:, 0]
        seen = _at(view.rgb, u, v) / np.maximum(alpha, 1e-3)[:, None]
        depth = _at(view.depth[..., None], u, v)[:, 0]
        near = np.abs(depth - z) < _NEAR * z
        share = np.where((facing > 0.1) & (alpha > 0.5) & near, np.maximum(facing, 0) ** _POWER, 0.0)
        total += share[:, None] * seen
        weight += share
        # What no view sees openly takes the view that faces it, whatever stands between.
        rest = np.where(alpha > 0.5, np.maximum(facing, 0.01) ** _POWER, 1e-9)
        spare += rest[:, None] * seen
        spare_weight += rest
    known = weight > 1e-3
    best = total / np.maximum(weight, 1e-9)[:, None]
    return np.where(known[:, None], best, spare / np.maximum(spare_weight, 1e-12)[:, None])


def _at(image: Array, u: Array, v: Array) -> Array:
    """Bilinear values [P, C] of an image [H, W, C]."""
    from scipy.ndimage import map_coordinates

    return np.stack(
        [map_coordinates(image[..., c], (v, u), order=1, mode="nearest") for c in range(image.shape[2])], 1
    )


def _carried(image: Array, known: Array) -> Array:
    """Colours beyond the edges of the charts, so that filtering meets no black."""
    from scipy.ndimage import distance_transform_edt

    distance, (row, column) = distance_transform_edt(~known, return_indices=True)
    return np.where((distance <= _SEAM)[..., None], image[row, column], 0.5)
