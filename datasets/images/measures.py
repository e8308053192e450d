"""Measures on images: SSIM, PSNR, motion magnitude, touching the border, coverage, flat frames.

Images are uint8 or floats in [0, 1]; straight RGBA where an alpha is needed. Nothing here imports torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.images.over import over

Array = npt.NDArray[np.float64]

_SIGMA, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03
#: Highest PSNR in dB that enters a mean which people read: that of 8-bit rounding. One infinity would be the
#: mean, and a clip that ends as it began repeats its first frame.
READ_CEILING = 60.0
#: Least mean squared error that is distinguished from 0 where values are single frames' (PSNR 100 dB).
LEAST_ERROR = 1e-10
#: Alpha (of 255) from which a pixel counts as covered: anti-aliasing's faintest fringe does not.
ALPHA_SOLID = 8


def as_unit(image: npt.ArrayLike) -> Array:
    """Any image as float64 in [0, 1]; uint8 is divided by 255, floats pass."""
    image = np.asarray(image)
    return image.astype(np.float64) / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def composite(rgba: npt.ArrayLike, background: float | tuple[float, float, float] = 1.0) -> Array:
    """Straight RGBA [..., H, W, 4] over a background (sRGB values in [0, 1]) to float64 [..., H, W, 3]."""
    image = as_unit(rgba)
    alpha: Array = image[..., 3:]
    behind: Array = np.asarray(background, np.float64)
    composited: Array = over(image[..., :3], alpha, behind)
    return composited


def _gaussian() -> Array:
    x = np.arange(-_RADIUS, _RADIUS + 1)
    kernel: Array = np.exp(-0.5 * (x / _SIGMA) ** 2)
    return kernel / kernel.sum()


def ssim(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Structural similarity of two images [H, W] or [H, W, C], both sides at least 11 pixels.

    Gaussian window of sigma 1.5 and 11 x 11 pixels, population covariance, data range 1, mean over the valid
    area and the channels: Wang et al. 2004, as scikit-image computes it with `gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False`. Raises ValueError on shapes that differ or are too small.
    """
    x, y = as_unit(a), as_unit(b)
    if x.shape != y.shape or x.ndim not in (2, 3):
        raise ValueError(f"SSIM compares two images of one shape, got {x.shape} and {y.shape}")
    if min(x.shape[:2]) < 2 * _RADIUS + 1:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {x.shape[:2]}")
    return float(_ssim_maps(np.stack([x, y]))[0].mean())


def _ssim_maps(pictures: Array) -> Array:
    """[n - 1, H - 10, W - 10, ...]: SSIM of the first of images [n, H, W, ...] with each other one, at
    every place of the 11 x 11 window."""
    from scipy.ndimage import correlate1d

    kernel = _gaussian()

    def blur(images: Array) -> Array:
        rows = correlate1d(images, kernel, axis=1)[:, _RADIUS:-_RADIUS]
        return correlate1d(rows, kernel, axis=2)[:, :, _RADIUS:-_RADIUS]

    mean = blur(pictures)
    variance = blur(pictures * pictures) - mean * mean
    mean_x, mean_y = mean[:1], mean[1:]
    covariance = blur(pictures[:1] * pictures[1:]) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    top = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (variance[:1] + variance[1:] + c2)
    return top / bottom


def ssim_on_white(rgba: npt.NDArray[np.uint8], margin: int) -> tuple[list[float], list[float]]:
    """(SSIM of the frame, SSIM around the object) of the first of straight RGBA images [n, H, W, 4] with
    each other one, n - 1 of each, on white.

    Both are what `ssim` gives, to rounding: of the whole images, and of the box of `object_box(alpha,
    margin)` of the two compared. They are computed together, and only where a window meets something that is
    not white: there alone it is not 1.
    """
    height, width = rgba.shape[1:3]
    alpha, side = rgba[..., 3], 2 * _RADIUS
    seen = (alpha > 0).any(axis=0)
    if not seen.any():
        return [1.0] * (len(rgba) - 1), [1.0] * (len(rgba) - 1)
    spans = []
    for axis, size in ((1, height), (0, width)):
        at = np.flatnonzero(seen.any(axis=axis))
        # At the frame's edge what is seen can be narrower than one window.
        low = max(min(int(at[0]) - side, size - side - 1), 0)
        spans.append((low, min(max(int(at[-1]) + 1 + side, side + 1), size)))
    (top, bottom), (left, right) = spans
    maps = _ssim_maps(composite(rgba[:, top:bottom, left:right])).mean(axis=-1)
    n_windows = (height - side) * (width - side)
    whole = [float((each.sum() + n_windows - each.size) / n_windows) for each in maps]
    within = []
    for k, each in enumerate(maps, start=1):
        pair = alpha[[0, k]]
        if not solid(pair).any():
            within.append(whole[k - 1])
            continue
        rows, columns = object_box(pair, margin)
        # A window is named by its first pixel, so that a box's last one starts ten before its end.
        part = each[
            max(rows.start - top, 0) : rows.stop - side - top,
            max(columns.start - left, 0) : columns.stop - side - left,
        ]
        within.append(float(part.mean()))
    return whole, within


def squared_difference(a: Any, b: Any) -> Any:
    """(a - b)² of two arrays or tensors of one shape.

    Its mean over all of an orbit is the motion magnitude m, over one frame that frame's share of it; the
    trainer and the evaluation take theirs from here, on tensors.
    """
    difference = a - b
    return difference * difference


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]: at most 100, that of `LEAST_ERROR`."""
    return -10 * math.log10(max(error, LEAST_ERROR))


def psnr(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of one shape, peak 1; infinite for equal ones.

    uint8 counts as 0 to 255, floats as [0, 1]. `orbit4d.evaluate.psnr` is the one of tensors, per image.
    """
    error = float(np.mean((as_unit(a) - as_unit(b)) ** 2))
    return float("inf") if error == 0.0 else float(-10.0 * np.log10(error))


def motion_magnitude(dynamic: npt.ArrayLike, static: npt.ArrayLike) -> float:
    """m of a dynamic orbit against the static orbit at the same cameras.

    Both are [F, H, W, 3], or straight RGBA [F, H, W, 4], which is put on white. m is the mean over frames of
    the mean over pixels and RGB of the squared difference, values in [0, 1] (Diffusion4D, eq. 1, as a mean).
    ValueError where the shapes differ.
    """
    pictures = []
    for frames in (dynamic, static):
        image = as_unit(frames)
        pictures.append(composite(image) if image.shape[-1] == 4 else image)
    if pictures[0].shape != pictures[1].shape:
        raise ValueError(
            f"two orbits of one shape are compared, got {pictures[0].shape} and {pictures[1].shape}"
        )
    return float(np.mean(squared_difference(pictures[0], pictures[1])))


def solid(alpha: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Where an alpha channel (uint8, or floats in [0, 1]) covers its pixel."""
    alpha = np.asarray(alpha)
    return alpha >= (ALPHA_SOLID if alpha.dtype == np.uint8 else ALPHA_SOLID / 255.0)


def boundary_touch(alpha: npt.ArrayLike) -> Array:
    """Share of the border's pixels that are covered, [...] for alpha [..., H, W]."""
    covered = solid(alpha)
    h, w = covered.shape[-2:]
    border = np.zeros((h, w), bool)
    border[[0, -1], :] = border[:, [0, -1]] = True
    return covered[..., border].mean(axis=-1)


def coverage(alpha: npt.ArrayLike) -> Array:
    """Share of all pixels that are covered, [...] for alpha [..., H, W]."""
    return solid(alpha).mean(axis=(-2, -1))


def is_blank(rgba: npt.ArrayLike) -> bool:
    """Whether a straight RGBA image [H, W, 4] covers no pixel at all."""
    return not solid(np.asarray(rgba)[..., 3]).any()


def is_flat(rgba: npt.ArrayLike, tolerance: float = 2.0 / 255.0) -> bool:
    """Whether all covered pixels of straight RGBA images [..., H, W, 4] have one colour, within `tolerance`.

    True for a blank image too, false for several that are each of one colour but not of the same. Missing
    textures, unlit black and shader errors look like this.
    """
    image = np.asarray(rgba)
    covered = as_unit(image[..., :3])[solid(image[..., 3])]
    return bool(covered.size == 0 or (covered.max(axis=0) - covered.min(axis=0)).max() <= tolerance)


def object_box(alpha: npt.ArrayLike, margin: int = 0, least: int = 11) -> tuple[slice, slice]:
    """(rows, columns) of the box around everything covered in alpha [..., H, W], grown by `margin` pixels
    and to at least `least` pixels a side where the image has them; the whole image when nothing is."""
    covered = solid(alpha)
    covered = covered.reshape(-1, *covered.shape[-2:]).any(axis=0)
    if not covered.any():
        return slice(0, covered.shape[0]), slice(0, covered.shape[1])
    sides = []
    for axis in (1, 0):
        at = np.flatnonzero(covered.any(axis=axis))
        size = covered.shape[1 - axis]
        start, stop = max(int(at[0]) - margin, 0), min(int(at[-1]) + 1 + margin, size)
        grow = max(min(least, size) - (stop - start), 0)
        start = max(start - (grow + 1) // 2, 0)
        stop = min(max(stop, start + min(least, size)), size)
        start = max(min(start, stop - min(least, size)), 0)
        sides.append(slice(start, stop))
    return sides[0], sides[1]
