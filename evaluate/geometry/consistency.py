"""Agreement of synchronised views: pixels that see the same surface point must have the same colour.

The correspondence comes from true depth, so no matcher is needed; it stands where papers on synchronised
video print Mat.Pix, whose matches are estimated. It is not comparable with those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets import Camera

Array = npt.NDArray[np.float64]

#: Depths that agree to this share are of one surface; colours that agree to this are matched.
DEPTH_TOLERANCE, COLOUR_TOLERANCE, OPAQUE = 0.01, 0.1, 0.5


def matched_pixels(
    images: npt.ArrayLike, depths: npt.ArrayLike, alphas: npt.ArrayLike, cameras: Sequence[Camera]
) -> dict[str, float]:
    """Share of pixels that have the colour that another view of the same time sees there.

    A pixel of view a with alpha of at least 0.5 is lifted by its depth and projected into view b. The pair is
    valid where it falls inside, on alpha of at least 0.5, and the depth of b at the nearest pixel agrees to
    1 %; it matches where no channel differs by more than 0.1 (bilinear colour of b).

    Args:
        images: [V, H, W, 3] in [0, 1], of one time.
        depths: [V, H, W], along the camera's axis (not the ray), in world units; not finite where empty.
        alphas: [V, H, W] in [0, 1].
        cameras: V cameras.

    Returns:
        `matched` (share of valid pairs, mean over the ordered pairs of views, NaN where there is none),
        `difference` (mean absolute difference of colours, likewise), `valid` (number of valid pairs).

    Raises:
        ValueError: for shapes that disagree, or fewer than two views.
    """
    rgb, z, alpha = (np.asarray(x, dtype=np.float64) for x in (images, depths, alphas))
    if rgb.ndim != 4 or rgb.shape[3] != 3 or z.shape != rgb.shape[:3] or alpha.shape != z.shape:
        raise ValueError(
            f"needs images [V,H,W,3], depths and alphas [V,H,W]; got {rgb.shape}, {z.shape}, {alpha.shape}"
        )
    if len(cameras) != len(rgb) or len(rgb) < 2:
        raise ValueError(f"needs a camera for each of at least two views, got {len(cameras)} for {len(rgb)}")
    shares, differences, count = [], [], 0
    for a, b in permutations(range(len(rgb)), 2):
        pixels, uv = corresponding(z[a], alpha[a], cameras[a], z[b], alpha[b], cameras[b])
        if not len(uv):
            continue
        gap = np.abs(rgb[a][pixels[:, 0], pixels[:, 1]] - bilinear(rgb[b], uv))
        shares.append(float((gap.max(1) <= COLOUR_TOLERANCE).mean()))
        differences.append(float(gap.mean()))
        count += len(uv)
    if not count:
        return {"matched": float("nan"), "difference": float("nan"), "valid": 0.0}
    return {
        "matched": float(np.mean(shares)),
        "difference": float(np.mean(differences)),
        "valid": float(count),
    }


def feature_consistency(
    features: npt.ArrayLike, depths: npt.ArrayLike, alphas: npt.ArrayLike, cameras: Sequence[Camera]
) -> dict[str, float]:
    """How unlike the features are that two views have of one surface point: 1 - cosine similarity.

    MEt3R's measure (Asim et al. 2025: 0 is perfect, 1 unrelated) with correspondences of true depth in the
    place of those that a network estimates, so its numbers are not comparable with published ones.

    Args:
        features: [V, h, w, C] of one time, a grid over each image (`metrics.features.PatchFeatures`), taken
            bilinearly; h and w may be smaller than those of the depths.
        depths, alphas, cameras: as for `matched_pixels`.

    Returns:
        `unlike` (mean over the ordered pairs of views, NaN where no two share a pixel) and `valid`.

    Raises:
        ValueError: for shapes that disagree, fewer than two views, or features of no length.
    """
    grid, z, alpha = (np.asarray(x, dtype=np.float64) for x in (features, depths, alphas))
    if grid.ndim != 4 or z.ndim != 3 or alpha.shape != z.shape or len(grid) != len(z) or not grid.size:
        raise ValueError(
            f"needs features [V,h,w,C], depths and alphas [V,H,W]; got {grid.shape}, {z.shape}, {alpha.shape}"
        )
    if len(cameras) != len(grid) or len(grid) < 2:
        raise ValueError(f"needs a camera for each of at least two views, got {len(cameras)} for {len(grid)}")
    scale = np.array([grid.shape[2] / z.shape[2], grid.shape[1] / z.shape[1]])
    scores, count = [], 0
    for a, b in permutations(range(len(grid)), 2):
        pixels, uv = corresponding(z[a], alpha[a], cameras[a], z[b], alpha[b], cameras[b])
        if not len(uv):
            continue
        here = bilinear(grid[a], (pixels[:, ::-1] + 0.5) * scale)
        there = bilinear(grid[b], uv * scale)
        lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
        if not (lengths > 0).all():
            raise ValueError("features of length 0 have no direction to compare")
        scores.append(float(1.0 - ((here * there).sum(1) / lengths).mean()))
        count += len(uv)
    return {"unlike": float(np.mean(scores)) if scores else float("nan"), "valid": float(count)}


def corresponding(
    depth_a: Array, alpha_a: Array, a: Camera, depth_b: Array, alpha_b: Array, b: Camera
) -> tuple[npt.NDArray[np.int64], Array]:
    """Pixels of view a (row, column) [N, 2] that view b sees too, and where: (u, v) in pixels [N, 2]."""
    rows, columns = np.nonzero((alpha_a >= OPAQUE) & np.isfinite(depth_a))
    z = depth_a[rows, columns]
    x = (columns + 0.5 - a.cx) / a.fl_x * z
    y = (rows + 0.5 - a.cy) / a.fl_y * z
    to_b = b.w2c_opencv @ np.linalg.inv(a.w2c_opencv)
    at = np.stack([x, y, z], 1) @ to_b[:3, :3].T + to_b[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = np.stack([b.fl_x * at[:, 0] / at[:, 2] + b.cx, b.fl_y * at[:, 1] / at[:, 2] + b.cy], 1)
    h, w = depth_b.shape
    inside = (at[:, 2] > 0) & (uv >= 0).all(1) & (uv[:, 0] < w) & (uv[:, 1] < h)
    rows, columns, uv, far = rows[inside], columns[inside], uv[inside], at[inside, 2]
    j, i = np.minimum(uv.astype(np.int64), [w - 1, h - 1]).T
    seen = (alpha_b[i, j] >= OPAQUE) & (np.abs(far - depth_b[i, j]) <= DEPTH_TOLERANCE * far)
    return np.stack([rows[seen], columns[seen]], 1), uv[seen]


def bilinear(image: Array, uv: Array) -> Array:
    """Colour [N, 3] of an image [H, W, 3] at (u, v) [N, 2] in pixels; pixel centres lie at halves."""
    h, w = image.shape[:2]
    x, y = np.clip(uv[:, 0] - 0.5, 0, w - 1), np.clip(uv[:, 1] - 0.5, 0, h - 1)
    j, i = np.minimum(x.astype(np.int64), w - 1), np.minimum(y.astype(np.int64), h - 1)
    k, n = np.minimum(j + 1, w - 1), np.minimum(i + 1, h - 1)
    fx, fy = (x - j)[:, None], (y - i)[:, None]
    top = image[i, j] * (1 - fx) + image[i, k] * fx
    low = image[n, j] * (1 - fx) + image[n, k] * fx
    return np.asarray(top * (1 - fy) + low * fy)
