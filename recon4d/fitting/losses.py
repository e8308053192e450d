"""The loss of one view. Everything is premultiplied: images are compared on a background drawn per step."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from orbit4d.datasets.images.lpips import LPIPS
from orbit4d.datasets.images.metric_weights import LPIPS_ALEX, NotMeasured, locate
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.recon4d.fitting.fused_loss import TAPS, terms
from orbit4d.recon4d.fitting.settings import LossWeights


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


def image_terms(color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> dict[str, Tensor]:
    """Terms of premultiplied color [H, W, 3] and alpha [H, W, 1] against truth [H, W, 4], premultiplied."""
    if min(color.shape[:2]) < TAPS:
        drawn = over_premultiplied(color, alpha, background)
        wanted = over_premultiplied(truth[..., :3], truth[..., 3:], background)
        return {"l1": F.l1_loss(drawn, wanted), "alpha": F.l1_loss(alpha, truth[..., 3:])}
    l1, alpha_l1, ssim = terms(color, alpha, truth, background)
    return {"l1": l1, "alpha": alpha_l1, "ssim": 1 - ssim}


class Perceptual:
    """LPIPS (AlexNet) as a term of the loss. Raises NotMeasured where its weights are absent."""

    def __init__(self) -> None:
        self.net = LPIPS.from_weights("alex")

    def __call__(self, color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> Tensor:
        """Distance [] of the pictures that `image_terms` compares; H and W at least 32."""
        drawn = over_premultiplied(color, alpha, background)
        wanted = over_premultiplied(truth[..., :3], truth[..., 3:], background)
        images = [image.permute(2, 0, 1)[None] for image in (drawn, wanted)]
        return self.net(*images)[0]


def why_no_lpips() -> str | None:
    """What keeps LPIPS from being computed here, None when nothing does."""
    try:
        locate(LPIPS_ALEX)
    except NotMeasured as error:
        return str(error)
    return None


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
