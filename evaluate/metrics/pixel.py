"""Metrics of pixels, whole batches at a time: PSNR, SSIM, silhouette IoU, flicker, motion magnitude.

Images are [..., 3, H, W] in [0, 1], composited on white unless said. Each function takes and returns torch
tensors and agrees with its frame-by-frame definition in scikit-image (SSIM to 1e-5, held in tests).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from orbit4d.datasets.images.measures import LEAST_ERROR, squared_difference
from orbit4d.evaluate.metrics.kernels import fits, squared_error, ssim_planes


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images [N, 3, H, W], per image [N].

    At most 100 dB (a mean squared error of `LEAST_ERROR`), so that one equal frame does not swallow a mean.
    ValueError where the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"PSNR needs equal images, got {a.shape} and {b.shape}")
    if not fits(a, b):
        return psnr_reference(a, b)
    return -10 * torch.log10(squared_error(a, b).clamp(min=LEAST_ERROR))


def psnr_reference(a: Tensor, b: Tensor) -> Tensor:
    """The slow twin of `psnr`, on any device and in any precision."""
    mse = (a - b).square().mean((-3, -2, -1))
    return -10 * torch.log10(mse.clamp(min=LEAST_ERROR))


def gaussian_window(sigma: float = 1.5, size: int = 11) -> Tensor:
    """Normalised Gaussian [size]."""
    x = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-x.square() / (2 * sigma**2))
    return window / window.sum()


def _blur(x: Tensor, window: Tensor) -> Tensor:
    """Separable valid convolution of planes [N, 1, H, W]."""
    k = window.numel()
    return F.conv2d(F.conv2d(x, window.view(1, 1, k, 1)), window.view(1, 1, 1, k))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of images [N, 3, H, W], per image [N] (Wang et al. 2004).

    Gaussian sigma 1.5, 11 x 11, population covariance, data range 1, valid area, mean over RGB.
    float32 on a CPU takes a kernel, anything else `ssim_reference`. ValueError where the shapes differ, and
    for H or W below 11.
    """
    if a.shape != b.shape or min(a.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs equal images of at least 11 x 11, got {a.shape} and {b.shape}")
    if not fits(a, b):
        return ssim_reference(a, b)
    planes = ssim_planes(a.flatten(0, 1), b.flatten(0, 1), gaussian_window())
    return planes.view(-1, 3).mean(1)


def ssim_reference(a: Tensor, b: Tensor) -> Tensor:
    """The slow twin of `ssim`, on any device and in any precision."""
    n = a.shape[0]
    a, b = a.flatten(0, 1).unsqueeze(1), b.flatten(0, 1).unsqueeze(1)
    # One convolution over the five moments; float64 where the input has it.
    moments = torch.cat([a, b, a * a, b * b, a * b])
    mu_a, mu_b, aa, bb, ab = _blur(moments, gaussian_window().to(a)).chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    covariance = ab - mu_a * mu_b
    variances = aa - mu_a.square() + bb - mu_b.square()
    score = ((2 * mu_a * mu_b + c1) * (2 * covariance + c2)) / (
        (mu_a.square() + mu_b.square() + c1) * (variances + c2)
    )
    return score.mean((1, 2, 3)).view(n, 3).mean(1)


def silhouette_iou(alpha_a: Tensor, alpha_b: Tensor, threshold: float = 0.5) -> Tensor:
    """Intersection over union of two mattes [N, 1, H, W], per image [N]; 1 where both are empty."""
    a, b = alpha_a > threshold, alpha_b > threshold
    both = (a & b).sum((-3, -2, -1)).double()
    either = (a | b).sum((-3, -2, -1)).double()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def flicker(video: Tensor) -> Tensor:
    """Temporal flicker of a video [F, 3, H, W]: mean absolute second difference over time, [].

    Steady motion has a small second difference, a frame that jumps out of the row a large one. 0 below three
    frames.
    """
    if video.shape[0] < 3:
        return video.new_zeros(())
    return (video[2:] - 2 * video[1:-1] + video[:-2]).abs().mean()


def motion_magnitude(dynamic: Tensor, static: Tensor) -> Tensor:
    """Diffusion4D's m (arXiv 2405.16645, eq. 1): mean squared difference of two orbits [F, 3, H, W]."""
    found: Tensor = squared_difference(dynamic, static).mean()
    return found
