"""Measures on pictures: SSIM, PSNR, motion magnitude, touching the border, coverage, flat frames.

Pictures are uint8 or floats in [0, 1]; straight RGBA where an alpha is needed. Nothing here imports torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SIGMA, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03
#: Alpha (of 255) from which a pixel counts as covered: anti-aliasing's faintest fringe does not.
ALPHA_SOLID = 8


def as_unit(image: npt.ArrayLike) -> Array:
    """Any picture as float64 in [0, 1]; uint8 is divided by 255, floats pass."""
    image = np.asarray(image)
    return image.astype(np.float64) / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def composite(rgba: npt.ArrayLike, background: float | tuple[float, float, float] = 1.0) -> Array:
    """Straight RGBA [..., H, W, 4] over a background (sRGB values in [0, 1]) to float64 [..., H, W, 3]."""
    image = as_unit(rgba)
    alpha: Array = image[..., 3:]
    behind: Array = np.asarray(background, np.float64)
    return image[..., :3] * alpha + behind * (1.0 - alpha)


def _gaussian() -> Array:
    x = np.arange(-_RADIUS, _RADIUS + 1)
    kernel: Array = np.exp(-0.5 * (x / _SIGMA) ** 2)
    return kernel / kernel.sum()


def ssim(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Structural similarity of two pictures [H, W] or [H, W, C], both sides at least 11 pixels.

    Gaussian window of sigma 1.5 and 11 x 11 pixels, population covariance, data range 1, mean over the valid
    area and the channels: Wang et al. 2004, as scikit-image computes it with `gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False`. Raises ValueError on shapes that differ or are too small.
    """
    from scipy.ndimage import correlate1d

    x, y = as_unit(a), as_unit(b)
    if x.shape != y.shape or x.ndim not in (2, 3):
        raise ValueError(f"SSIM compares two pictures of one shape, got {x.shape} and {y.shape}")
    if min(x.shape[:2]) < 2 * _RADIUS + 1:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {x.shape[:2]}")
    kernel = _gaussian()

    def blur(image: Array) -> Array:
        rows = correlate1d(image, kernel, axis=0)[_RADIUS:-_RADIUS]
        return correlate1d(rows, kernel, axis=1)[:, _RADIUS:-_RADIUS]

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x * mean_x
    var_y = blur(y * y) - mean_y * mean_y
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    top = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float((top / bottom).mean())


def psnr(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB, peak 1; infinite for equal pictures."""
    error = float(np.mean((as_unit(a) - as_unit(b)) ** 2))
    return float("inf") if error == 0.0 else float(-10.0 * np.log10(error))


def motion_magnitude(dynamic: npt.ArrayLike, static: npt.ArrayLike) -> float:
    """m of a dynamic orbit against the static orbit at the same cameras.

    Both are [F, H, W, 3], or straight RGBA [F, H, W, 4], which is put on white. m is the mean over frames of
    the mean over pixels and RGB of the squared difference, values in [0, 1] (Diffusion4D, eq. 1, as a mean).
    """
    pictures = []
    for frames in (dynamic, static):
        image = as_unit(frames)
        pictures.append(composite(image) if image.shape[-1] == 4 else image)
    if pictures[0].shape != pictures[1].shape:
        raise ValueError(
            f"two orbits of one shape are compared, got {pictures[0].shape} and {pictures[1].shape}"
        )
    return float(np.mean((pictures[0] - pictures[1]) ** 2))


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
    """Whether a straight RGBA picture [H, W, 4] covers no pixel at all."""
    return not solid(np.asarray(rgba)[..., 3]).any()


def is_flat(rgba: npt.ArrayLike, tolerance: float = 2.0 / 255.0) -> bool:
    """Whether all covered pixels of a straight RGBA picture [H, W, 4] have one colour, within `tolerance`.

    True for a blank picture too. Missing textures, unlit black and shader errors look like this.
    """
    image = np.asarray(rgba)
    covered = as_unit(image[..., :3])[solid(image[..., 3])]
    return bool(covered.size == 0 or (covered.max(axis=0) - covered.min(axis=0)).max() <= tolerance)


def object_box(alpha: npt.ArrayLike, margin: int = 0, least: int = 11) -> tuple[slice, slice]:
    """(rows, columns) of the box around everything covered in alpha [..., H, W], grown by `margin` pixels
    and to at least `least` pixels a side where the picture has them; the whole picture when nothing is."""
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
