"""Where Gaussians of an open scene start, which has no silhouettes: depths on which the cameras agree.

A pixel's ray is cut at many depths; where the other cameras of the time see the same colour around it there
is a surface (plane sweep, Collins 1996). It need not be right everywhere: the fit moves what is not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.loading import Frames

Float = npt.NDArray[np.float64]

#: Depths tried along a ray, evenly in their inverse.
DEPTHS = 64
#: Share of the pixels whose depth is agreed on best.
_BEST = 0.6
#: Depths where the layout names none, in units of the fit, whose origin is where the cameras look.
_NEAR, _FAR = 0.4, 4.0


def sweep(
    frames: Frames, n: int, rng: np.random.Generator, depths: tuple[float, float] | None = None
) -> tuple[Float, Float]:
    """`n` points [n, 3] and their colours [n, 3] of the images of one time; `depths` bound them.

    InputError for fewer than two cameras.
    """
    if len(frames) < 2:
        raise InputError(f"{frames.name}: --matte none needs a time that two cameras or more saw")
    near, far = depths or _bounds(frames)
    inverse = np.linspace(1 / far, 1 / near, DEPTHS)
    smooth = np.stack([_blurred(image[..., :3]) for image in frames.rgba])
    share = -(-int(n / _BEST) // len(frames))
    points, colours, costs = [], [], []
    for v, camera in enumerate(frames.cameras):
        h, w = frames.rgba.shape[1:3]
        column, row = rng.integers(0, w, share), rng.integers(0, h, share)
        local = np.stack(
            [(column + 0.5 - camera.cx) / camera.fl_x, -(row + 0.5 - camera.cy) / camera.fl_y,
             -np.ones(share)], -1,
        )  # fmt: skip
        ways = local @ camera.c2w[:3, :3].T
        places = camera.position + ways[:, None] / inverse[None, :, None]
        own = smooth[v, row, column]
        cost = _cost(frames, smooth, v, places, own)
        best = cost.argmin(1)
        rows = np.arange(share)
        points.append(places[rows, best])
        colours.append(frames.rgba[v, row, column, :3])
        costs.append(cost[rows, best])
    order = np.argsort(np.concatenate(costs), kind="stable")[:n]
    return np.concatenate(points)[order], np.concatenate(colours)[order].astype(np.float64)


def _cost(
    frames: Frames, smooth: npt.NDArray[np.float32], v: int, places: Float, own: npt.NDArray[np.float32]
) -> Float:
    """[P, D] mean difference of colour over the three cameras that agree best; dear where fewer see it."""
    h, w = smooth.shape[1:3]
    seen = []
    for u, camera in enumerate(frames.cameras):
        if u == v:
            continue
        pixels, depth = camera.project(places)
        with np.errstate(invalid="ignore"):
            column, row = np.floor(pixels[..., 0]), np.floor(pixels[..., 1])
        good = (depth > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        at = smooth[u, np.where(good, row, 0).astype(int), np.where(good, column, 0).astype(int)]
        seen.append(np.where(good, np.abs(at - own[:, None]).mean(-1), 1.0))
    ordered = np.sort(np.stack(seen), axis=0)
    return np.asarray(ordered[: min(3, len(ordered))].mean(0), np.float64)


def _blurred(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from scipy import ndimage

    return np.asarray(ndimage.uniform_filter(image, (3, 3, 1)), np.float32)


def _bounds(frames: Frames) -> tuple[float, float]:
    """Depths between which the scene is looked for: around where the cameras look."""
    away = float(np.median([np.linalg.norm(camera.position) for camera in frames.cameras]))
    return _NEAR * away, _FAR * away
