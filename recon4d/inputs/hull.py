"""The visual hull of the silhouettes: where Gaussians start, and whether the cameras fit the video.

Each voxel is kept when (nearly) every view sees it inside the object's silhouette (Laurentini 1994). For an
object that moves, the share of views that must agree is lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.simd import take_next

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hull:
    """Voxels of the visual hull."""

    points: Float
    """[N, 3] centres of the voxels on its surface."""
    colors: Float
    """[N, 3] mean colour over the views that see the voxel's front."""
    voxel: float
    """Edge of a voxel, world units."""
    coverage: float
    """Share of the silhouettes' pixels that the hull covers, mean over views: near 1 when the cameras fit."""


def carve(frames: Frames, resolution: int = 96, extent: float = 0.75, agree: float = 1.0) -> Hull:
    """Carve a grid of `resolution`³ voxels in [−extent, extent]³.

    `agree` is the share of the views that must see a voxel inside the silhouette.
    """
    axis = (np.arange(resolution) + 0.5) / resolution * 2 * extent - extent
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    full = np.zeros((resolution,) * 3, dtype=np.bool_)
    mattes = np.ascontiguousarray(frames.rgba[..., 3]) > np.float32(0.3)
    views = np.stack([camera.w2c_opencv[:3] for camera in frames.cameras])
    lenses = np.array([[c.fl_x, c.fl_y, c.cx, c.cy] for c in frames.cameras], np.float64)
    wanted = math.ceil(agree * len(frames) - 1e-9)
    threads.run(_carve, resolution, axis, mattes, views, lenses, wanted, full)
    surface = full & ~_eroded(full)
    points = grid[surface.reshape(-1)]
    voxel = 2 * extent / resolution
    colors = _colours(points, frames)
    return Hull(points, colors, voxel, _coverage(grid[full.reshape(-1)], frames, voxel))


@jit
def _carve(counter, axis, mattes, views, lenses, wanted, full):
    """Whether at least `wanted` of the views see the grid's points inside their mattes [V, H, W]."""
    n, n_views = len(axis), len(views)
    h, w = mattes.shape[1:]
    while True:
        i = take_next(counter)
        if i >= n:
            break
        for j in range(n):
            for k in range(n):
                seen = 0
                for v in range(n_views):
                    if seen + n_views - v < wanted:
                        break
                    view, x, y, z = views[v], axis[i], axis[j], axis[k]
                    depth = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
                    across = view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]
                    down = view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]
                    column = np.floor(lenses[v, 0] * across / depth + lenses[v, 2])
                    row = np.floor(lenses[v, 1] * down / depth + lenses[v, 3])
                    if 0 <= column < w and 0 <= row < h and mattes[v, int(row), int(column)]:
                        seen += 1
                full[i, j, k] = seen >= wanted


def _sample(plane: npt.NDArray[np.float32], pixels: Float) -> npt.NDArray[np.float32]:
    """Nearest pixel of `plane` [H, W] at (column, row) positions; 0 outside."""
    h, w = plane.shape
    with np.errstate(invalid="ignore"):
        column = np.floor(pixels[:, 0]).astype(np.int64)
        row = np.floor(pixels[:, 1]).astype(np.int64)
    good = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    out = np.zeros(len(pixels), dtype=np.float32)
    out[good] = plane[row[good], column[good]]
    return out


def _eroded(full: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    padded = np.pad(full, 1)
    core = full.copy()
    for shift in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        core &= padded[tuple(slice(s, s + n) for s, n in zip(shift, full.shape))]
    return core


def _colours(points: Float, frames: Frames) -> Float:
    """Mean straight colour over views, nearer views weighing more: the far side's colour is not ours."""
    total = np.zeros((len(points), 3))
    weight = np.full((len(points), 1), 1e-9)
    for image, camera in zip(frames.rgba, frames.cameras):
        pixels, depth = camera.project(points)
        alpha = _sample(image[..., 3], pixels)
        near = np.exp(-(depth - depth.min(initial=np.inf)) / 0.08) if len(points) else depth
        share = (near * (alpha > 0.5))[:, None]
        straight = np.stack([_sample(image[..., c], pixels) for c in range(3)], axis=-1)
        total += share * straight / np.maximum(alpha, 1e-3)[:, None]
        weight += share
    return np.clip(total / weight, 0, 1)


def _coverage(points: Float, frames: Frames, voxel: float) -> float:
    """How much of each silhouette the projected voxels cover, each drawn as a square of its size."""
    if len(points) == 0:
        return 0.0
    shares = []
    for image, camera in zip(frames.rgba, frames.cameras):
        h, w = image.shape[:2]
        drawn = np.zeros((h, w), dtype=bool)
        pixels, depth = camera.project(points)
        half = int(np.ceil(0.5 * voxel * camera.fl_x / max(float(depth.min()), 1e-3)))
        column, row = np.floor(pixels).astype(np.int64).T
        for dx in range(-half, half + 1):
            for dy in range(-half, half + 1):
                c, r = np.clip(column + dx, 0, w - 1), np.clip(row + dy, 0, h - 1)
                drawn[r, c] = True
        solid = image[..., 3] > 0.5
        shares.append((drawn & solid).sum() / max(int(solid.sum()), 1))
    return float(np.mean(shares))


def sample_surface(hull: Hull, n: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """`n` points [n, 3] jittered inside the hull's surface voxels, and their colours [n, 3]."""
    index = rng.choice(len(hull.points), n, replace=n > len(hull.points))
    jitter = (rng.random((n, 3)) - 0.5) * hull.voxel
    return hull.points[index] + jitter, hull.colors[index]
