"""From boxes in an image to places in the world and back, through depth (C3V, arXiv 2409.00558, equation 5).

Depth is along the viewing axis, pixel centres lie at + 0.5, cameras are c2w with OpenGL axes, up is +Z. A
thing stands upright on its contact point, the middle of its box's lower edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Relative difference of neighbouring depths above which no depth is mixed from them.
_EDGE = 0.02

Floats = npt.NDArray[np.float64]


def lift(boxes: Any, depth: Any, heights: Any, K: Any, c2w: Any) -> Any:
    """Centres [N, 3] in the world of upright things seen as boxes.

    boxes [N, 4] (centre x, centre y, width, height in pixels), depth [N] along the viewing axis at the
    middle of the lower edge, heights [N] in world units, K [3, 3], c2w [4, 4]. numpy or torch, whose kind
    comes back.
    """
    x, y, _, h = _columns(boxes, 4)
    points = contact_points(_stack([x, y + h / 2], boxes), depth, K, c2w)
    return _raised(points, heights, 0.5)


def contact_points(pixels: Any, depth: Any, K: Any, c2w: Any) -> Any:
    """World points [N, 3] of pixels [N, 2] at depths [N] along the viewing axis."""
    u, v = _columns(pixels, 2)
    x = (u - K[0, 2]) / K[0, 0] * depth
    y = -(v - K[1, 2]) / K[1, 1] * depth
    local = _stack([x, y, -depth], pixels)
    return local @ c2w[:3, :3].T + c2w[:3, 3]


def unlift(centres: Any, heights: Any, K: Any, c2w: Any) -> tuple[Any, Any]:
    """(pixels [N, 2] of the contact points, depth [N] along the viewing axis): `lift` backwards.

    centres [N, 3] and heights [N] in world units, K [3, 3], c2w [4, 4]. A point behind the camera has a depth
    below 0 and a pixel without meaning.
    """
    low = _raised(centres, heights, -0.5)
    local = (low - c2w[:3, 3]) @ c2w[:3, :3]
    x, y, z = _columns(local, 3)
    depth = -z
    u = K[0, 2] + K[0, 0] * x / depth
    v = K[1, 2] - K[1, 1] * y / depth
    return _stack([u, v], centres), depth


def height_of(pixels: Any, tops: Any, depth: Any, K: Any, c2w: Any) -> Any:
    """World heights [N] of upright things whose contact pixels [N, 2] and rows of the top [N] are seen.

    Exact for any camera: the segment along up is projected and solved for its length; for a level one it is
    h d / f_y.
    """
    _, v = _columns(pixels, 2)
    up = c2w[2, :3]  # world up in the camera's axes
    low = -(v - K[1, 2]) / K[1, 1] * depth
    rise = (K[1, 2] - tops) / K[1, 1]
    return (rise * depth - low) / (up[1] + rise * up[2])


def along_axis(ray_length: Any, pixels: Any, K: Any) -> Any:
    """Depth [N] along the viewing axis from the length of the ray through pixels [N, 2]."""
    u, v = _columns(pixels, 2)
    return ray_length / (((u - K[0, 2]) / K[0, 0]) ** 2 + ((v - K[1, 2]) / K[1, 1]) ** 2 + 1) ** 0.5


def depth_at(depth: npt.NDArray[Any], pixels: Any) -> Floats:
    """Depth [N] of a map [H, W] at pixels [N, 2]; NaN where there is none (sky: inf or NaN).

    Between pixel centres it is bilinear where all four are finite and differ by less than 2 %, else that of
    the nearest pixel.
    """
    depth = np.asarray(depth, np.float64)
    h, w = depth.shape
    found = np.full(len(pixels), np.nan)
    for i, (u, v) in enumerate(np.asarray(pixels, np.float64)):
        if not (0 <= u <= w and 0 <= v <= h):
            continue
        x, y = np.clip(u - 0.5, 0, w - 1), np.clip(v - 0.5, 0, h - 1)
        x0, y0 = min(int(x), max(w - 2, 0)), min(int(y), max(h - 2, 0))
        four = depth[y0 : y0 + 2, x0 : x0 + 2]
        if np.isfinite(four).all() and np.ptp(four) <= _EDGE * four.min() and four.shape == (2, 2):
            a, b = x - x0, y - y0
            found[i] = (1 - b) * ((1 - a) * four[0, 0] + a * four[0, 1]) + b * (
                (1 - a) * four[1, 0] + a * four[1, 1]
            )
        else:
            value = depth[min(int(v), h - 1), min(int(u), w - 1)]
            found[i] = value if np.isfinite(value) else np.nan
    return found


def on_ground(pixels: Any, K: Any, c2w: Any, z: float = 0.0) -> Floats:
    """World points [N, 3] where rays through pixels [N, 2] meet the plane at height z; NaN where none do."""
    pixels, c2w = np.asarray(pixels, np.float64), np.asarray(c2w, np.float64)
    ways = contact_points(pixels, np.ones(len(pixels)), np.asarray(K), c2w) - c2w[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        far = (z - c2w[2, 3]) / ways[:, 2]
    far[~(far > 0) | ~np.isfinite(far)] = np.nan
    return c2w[:3, 3] + far[:, None] * ways


def fitted_depth(relative: npt.NDArray[Any], metric: npt.NDArray[Any]) -> tuple[float, float, float]:
    """(scale, shift, relative residual) with 1/metric = scale · relative + shift, by least squares.

    `relative` are a monocular model's inverse depths at pixels of the ground, `metric` the depths there.
    ValueError for fewer than two different ones.
    """
    x, y = np.asarray(relative, np.float64), 1.0 / np.asarray(metric, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        raise ValueError("a depth map that is flat on the ground says nothing about scale")
    scale, shift = np.polyfit(x, y, 1)
    residual = float(np.sqrt(np.mean((scale * x + shift - y) ** 2)) / np.abs(y).mean())
    return float(scale), float(shift), residual


def _columns(rows: Any, n: int) -> tuple[Any, ...]:
    return tuple(rows[..., i] for i in range(n))


def _stack(columns: list[Any], like: Any) -> Any:
    if hasattr(like, "detach"):
        import torch

        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)


def _raised(points: Any, heights: Any, share: float) -> Any:
    x, y, z = _columns(points, 3)
    return _stack([x, y, z + share * heights], points)
