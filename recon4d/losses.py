"""The loss of one view. Everything is premultiplied: images are compared on a background drawn per step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from orbit4d.recon4d.settings import LossWeights


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity [] of images [H, W, 3] (Gaussian 11 x 11, sigma 1.5, valid area, mean over RGB).

    The four blurred moments are products with banded matrices: on a CPU far faster than a convolution.
    """
    h, w, _ = a.shape
    moments = torch.stack([a, b, a * a + b * b, a * b]).permute(0, 3, 1, 2).reshape(-1, h, w)
    rows, columns = _band(h, a), _band(w, a)
    mu_a, mu_b, squares, product = (rows @ moments @ columns.T).unflatten(0, (4, 3)).unbind(0)
    c1, c2 = 0.01**2, 0.03**2
    covariance = product - mu_a * mu_b
    variances = squares - mu_a.square() - mu_b.square()
    top = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    return (top / ((mu_a.square() + mu_b.square() + c1) * (variances + c2))).mean()


_BANDS: dict[tuple[int, torch.dtype], Tensor] = {}


def _band(n: int, like: Tensor) -> Tensor:
    """[n - 10, n]: row i holds the Gaussian window over pixels i .. i + 10."""
    key = (n, like.dtype)
    if key not in _BANDS:
        x = torch.arange(11, dtype=torch.float64) - 5
        window = torch.exp(-x.square() / (2 * 1.5**2))
        window = window / window.sum()
        band = torch.zeros(n - 10, n, dtype=torch.float64)
        for i in range(n - 10):
            band[i, i : i + 11] = window
        _BANDS[key] = band.to(like)
    return _BANDS[key]


def depth_smoothness(depth: Tensor, alpha: Tensor) -> Tensor:
    """Charbonnier penalty on neighbouring depths [H, W, 1], where both pixels lie inside the object [].

    After RegNeRF (Niemeyer et al. 2022), with sqrt(d^2 + 1e-6) in place of d^2.
    """
    inside = (alpha > 0.5).to(depth.dtype)
    total = depth.new_zeros(())
    for axis in (0, 1):
        n = depth.shape[axis]
        difference = depth.narrow(axis, 1, n - 1) - depth.narrow(axis, 0, n - 1)
        both = inside.narrow(axis, 1, n - 1) * inside.narrow(axis, 0, n - 1)
        total = total + ((difference.square() + 1e-6).sqrt() * both).sum() / both.sum().clamp(min=1)
    return total


def image_terms(
    color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """Terms of premultiplied color [H, W, 3] and alpha [H, W, 1] against truth [H, W, 4], premultiplied."""
    drawn = color + (1 - alpha) * background
    wanted = truth[..., :3] + (1 - truth[..., 3:]) * background
    terms = {"l1": F.l1_loss(drawn, wanted), "alpha": F.l1_loss(alpha, truth[..., 3:])}
    if weights.ssim and min(color.shape[:2]) > 11:
        terms["ssim"] = 1 - ssim(drawn, wanted)
    return terms


def weigh(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Weighted sum of terms by name; a term of weight 0 is left out."""
    total = None
    for name, value in terms.items():
        weight = getattr(weights, name)
        if weight:
            total = value * weight if total is None else total + value * weight
    if total is None:
        raise ValueError("every term of the loss has weight 0")
    return total
