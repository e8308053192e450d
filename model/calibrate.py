"""A start for networks without weights: the image branch speaks as loudly as the noise.

With the usual initialisation the image branch of a new network comes out some twenty times weaker than the
noisy latents beside it, and its cross-attention tokens weaker still; a short training then learns the mean
orbit and hardly looks at the picture. Each of the branch's convolutions is scaled once so that its output
has unit variance on real first views (layer-sequential unit variance, Mishkin and Matas 2016, arXiv
1511.06422).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orbit4d.model.data import ClipSource
from orbit4d.model.unet import OrbitUNet


def first_views(clips: ClipSource, count: int = 16) -> Tensor:
    """First frames of up to `count` clips, evenly chosen: [n, 1, C, H, W] pixels or latents."""
    n = len(clips)
    chosen = [k * n // min(n, count) for k in range(min(n, count))]
    return torch.stack([clips[index]["dynamic"][:1] for index in chosen])


@torch.no_grad()
def calibrate_image_branch(unet: OrbitUNet, first_views: Tensor) -> None:
    """Scale the convolutions of the image branch in place; `first_views` [B, C, h, w] are latents of real
    clips."""
    for branch in (unet.unet.image_latents_proj_in, unet.unet.image_latents_context_embedding):
        hidden = first_views
        for layer in branch:
            if isinstance(layer, nn.Conv2d):
                spread = layer(hidden).std()
                if spread > 0:
                    layer.weight.div_(spread)
                    layer.bias.zero_()
            hidden = layer(hidden)
