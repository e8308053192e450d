"""The canonical surface: depths of the Gaussians from all around, fused as a truncated signed distance.

Curless and Levoy 1996; a pixel's depth is the mean over what it shows, and pixels whose depths spread (the
rims of parts before others) are left out. Cells that no view sees lie inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster.api import rasterize
from orbit4d.recon4d.scene import place

Array = npt.NDArray[Any]
#: Elevations of the rings of views, and views of each.
_RINGS = ((-60.0, 6), (-20.0, 10), (20.0, 10), (60.0, 6))
_VIEW_SIZE = 256
#: Cells along the longest edge, and by how many the distance is cut off.
CELLS, _CUT = 112, 3.0
#: A pixel with less alpha is background, one with more is surface; between the two it says nothing.
_EMPTY, _SOLID = 0.3, 0.6
#: Spread of the depths of a pixel beyond which they say nothing, in cut-offs.
_SPREAD = 2.0
#: Triangles kept, and the share of all below which a separate piece is a speck.
TRIANGLES, _SPECK = 12_000, 0.01
#: Pull of one smoothing step, in and out (Taubin 1995), so that steps of the grid vanish and size stays.
_SMOOTH, _STEPS = (0.5, -0.52), 6


@dataclass(frozen=True)
class View:
    """What one camera sees of the canonical Gaussians."""

    camera: Camera
    depth: Array
    """[H, W] mean camera depth."""
    spread: Array
    """[H, W] its standard deviation."""
    alpha: Array
    """[H, W]"""
    rgb: Array
    """[H, W, 3] premultiplied."""


def around(gaussians: Gaussians, size: int = _VIEW_SIZE) -> tuple[list[View], Array, float]:
    """Views from all around the set, its centre [3], and half of its longest edge."""
    means = gaussians.means.double().numpy()
    solid = gaussians.opacities.numpy() > 0.1
    if not solid.any():
        raise InputError("a mesh needs Gaussians that are seen; all of these are nearly transparent")
    low, high = np.quantile(means[solid], (0.002, 0.998), axis=0)
    reach = 3 * float(np.median(gaussians.scales.numpy()[solid]))
    centre, half = (low + high) / 2, float((high - low).max() / 2 + reach)
    views = []
    for elevation, count in _RINGS:
        for camera in orbit(count, radius=4.5 * half, elevation_deg=elevation, size=(size, size)):
            views.append(_seen(gaussians, camera, centre))
    return views, centre, half


def _seen(g: Gaussians, camera: Camera, centre: Array) -> View:
    from dataclasses import replace

    c2w = np.array(camera.c2w)
    c2w[:3, 3] += centre
    camera = replace(camera, c2w=c2w)
    placed = place(camera)
    with torch.no_grad():
        local = g.means @ placed.viewmats[0, :3, :3].T + placed.viewmats[0, :3, 3]
        z = local[:, 2]
        near = z.mean()
        packed = torch.stack([z - near, (z - near).square(), torch.ones_like(z)], 1)
        common = (g.means, g.quats, g.scales, g.opacities)
        where = (placed.viewmats, placed.Ks, placed.width, placed.height)
        sums, alpha, _ = rasterize(*common, packed, *where)
        colors = g.coefficients() if g.sh_degree else g.colors.clamp(0, 1)
        rgb, _, _ = rasterize(*common, colors, *where, sh_degree=g.sh_degree or None)
    a = alpha[0, :, :, 0].clamp(min=1e-6)
    mean = sums[0, :, :, 0] / a
    spread = (sums[0, :, :, 1] / a - mean.square()).clamp(min=0).sqrt()
    return View(camera, (mean + near).numpy(), spread.numpy(), a.numpy(), rgb[0].numpy())


def fuse(views: list[View], centre: Array, half: float, cells: int = CELLS) -> tuple[Array, Array, float]:
    """Signed distances [X, Y, Z] in cut-offs (negative inside), centre of the first cell, size of a cell."""
    size = 2 * half / cells
    axis = (np.arange(cells) + 0.5) * size - half
    cut = _CUT * size
    total, weight = np.zeros(cells**3, np.float32), np.zeros(cells**3, np.float32)
    grid = (
        np.stack(np.meshgrid(*(axis + c for c in centre), indexing="ij"), -1)
        .reshape(-1, 3)
        .astype(np.float32)
    )
    for view in views:
        camera = view.camera
        w2c = camera.w2c_opencv.astype(np.float32)
        local = grid @ w2c[:3, :3].T + w2c[:3, 3]
        z = local[:, 2]
        column = (local[:, 0] / z * camera.fl_x + camera.cx).astype(np.int32).clip(0, camera.w - 1)
        row = (local[:, 1] / z * camera.fl_y + camera.cy).astype(np.int32).clip(0, camera.h - 1)
        alpha, depth = view.alpha[row, column], view.depth[row, column]
        distance = (depth - z) / cut
        empty = alpha < _EMPTY
        solid = (alpha > _SOLID) & (view.spread[row, column] < _SPREAD * cut) & (distance > -1)
        value = np.where(empty, 1.0, np.minimum(distance, 1.0)).astype(np.float32)
        # Silhouettes are sure: where one view sees through, nothing stands.
        share = np.where(empty, 4.0, np.where(solid, 1.0, 0.0)).astype(np.float32)
        total += share * value
        weight += share
    sdf = np.where(weight > 0, total / np.maximum(weight, 1e-6), -1.0).reshape(cells, cells, cells)
    return sdf, centre + axis[0], size


def surface(
    gaussians: Gaussians, cells: int = CELLS, triangles: int = TRIANGLES
) -> tuple[Array, Array, list[View]]:
    """Vertices [V, 3], triangles [M, 3] (counter-clockwise from outside), and the views they come from.

    InputError where nothing solid is seen and where scikit-image or fast-simplification are missing.
    """
    try:
        import fast_simplification  # type: ignore[import-not-found]
        from skimage.measure import marching_cubes  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"a mesh needs {error.name}: pip install 'orbit4d[mesh]'") from None
    views, centre, half = around(gaussians)
    sdf, first, size = fuse(views, centre, half, cells)
    sdf = np.pad(sdf, 1, constant_values=1.0)
    if not (sdf < 0).any():
        raise InputError("a mesh needs a solid surface; these Gaussians are seen through from all sides")
    vertices, faces, _, _ = marching_cubes(sdf, 0.0)
    # marching_cubes turns its triangles towards falling values, which is inwards here.
    vertices, faces = _whole(vertices * size + first - size, faces[:, ::-1])
    vertices = _smoothed(vertices, faces)
    if len(faces) > triangles:
        points, kept = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_count=triangles
        )
        vertices, faces = _whole(points.astype(np.float64), kept.astype(np.int64))
    return vertices, _outwards(vertices, faces), views


def _whole(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Without specks, unused vertices and flat triangles."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = faces[area > 1e-14]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), (len(vertices), len(vertices)))
    _, label = connected_components(graph, directed=False)
    count = np.bincount(label[faces[:, 0]], minlength=label.max() + 1)
    faces = faces[count[label[faces[:, 0]]] >= _SPECK * len(faces)]
    used, renamed = np.unique(faces, return_inverse=True)
    return vertices[used], renamed.reshape(-1, 3)


def _smoothed(vertices: Array, faces: Array) -> Array:
    from scipy.sparse import coo_matrix, diags

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    graph = coo_matrix((np.ones(len(both)), both.T), (len(vertices), len(vertices))).tocsr()
    mean = diags(1.0 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1.0)) @ graph
    for _ in range(_STEPS):
        for pull in _SMOOTH:
            vertices = vertices + pull * (mean @ vertices - vertices)
    return vertices


def _outwards(vertices: Array, faces: Array) -> Array:
    """Triangles counter-clockwise from outside: the volume that they enclose is positive."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return faces if np.einsum("ij,ij->", a, np.cross(b, c)) > 0 else faces[:, ::-1]


def normals(vertices: Array, faces: Array) -> Array:
    """[V, 3] unit normals, weighted by area."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    each = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(total, faces[:, i], each)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-30), (0.0, 0.0, 1.0))
