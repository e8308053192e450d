"""The visual hull of the silhouettes: where Gaussians start, and whether the cameras fit the video.

Each voxel is kept when (nearly) every view sees it inside the object's silhouette (Laurentini 1994). For an
object that moves, the share of views that must agree is lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.inputs.loading import Frames

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
    inside = np.zeros(len(grid), dtype=np.int32)
    for image, camera in zip(frames.rgba, frames.cameras):
        inside += _sample(image[..., 3], camera.project(grid)[0]) > 0.3
    full = (inside >= np.ceil(agree * len(frames) - 1e-9)).reshape((resolution,) * 3)
    surface = full & ~_eroded(full)
    points = grid[surface.reshape(-1)]
    voxel = 2 * extent / resolution
    colors = _colours(points, frames)
    return Hull(points, colors, voxel, _coverage(grid[full.reshape(-1)], frames, voxel))


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
