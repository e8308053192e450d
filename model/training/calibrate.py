"""A start for networks without weights: the image branch and the cameras speak as loudly as the noise.

With the usual initialisation the image branch of a new network comes out some twenty times weaker than the
noisy latents beside it, its cross-attention tokens weaker still, and the camera's part of the time embedding
differs from frame to frame by a quarter of what the layers behind it expect; a short training then learns the
mean orbit and hardly looks at image or camera. Each of these layers is scaled once so that its output has
unit variance on real clips (layer-sequential unit variance, Mishkin and Matas 2016, arXiv 1511.06422).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from orbit4d.model.data.training_clips import ClipSource
from orbit4d.model.network.cameras import videomv_cameras
from orbit4d.model.network.conditioning import camera_features
from orbit4d.model.network.unet import OrbitUNet

#: Smallest spread that is scaled up: what hardly varies over the clips is no signal.
_FAINT = 0.05


def first_views(clips: ClipSource, count: int = 16) -> Tensor:
    """First frames of up to `count` clips, evenly chosen: [n, 1, C, H, W] pixels or latents."""
    return torch.stack([clips[index]["dynamic"][:1] for index in _spread(len(clips), count)])


def orbit_cameras(clips: ClipSource, count: int = 16) -> Tensor:
    """All cameras of up to `count` clips, evenly chosen: [m, 16] in the network's world."""
    rows = [videomv_cameras(clips[index]["c2w"]) for index in _spread(len(clips), count)]
    return torch.cat(rows)


def _spread(n: int, count: int) -> list[int]:
    return [k * n // min(n, count) for k in range(min(n, count))]


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
                    if layer.bias is not None:
                        layer.bias.zero_()
            hidden = layer(hidden)


@torch.no_grad()
def calibrate_cameras(unet: OrbitUNet, cameras: Tensor) -> None:
    """Scale and centre both layers of the camera MLP in place; `cameras` [m, 16] are those of real clips.

    An MLP that starts at zero is left alone: it is there to leave a base network as it is.
    """
    layers = list(unet.camera_embedding)
    first, activation, last = cast(nn.Linear, layers[0]), layers[1], cast(nn.Linear, layers[2])
    if not unet.config.camera_zero_init:
        hidden = first(camera_features(cameras.float(), unet.config.camera_harmonics))
        spread = hidden.std(0).clamp_min(_FAINT)
        first.weight.div_(spread[:, None])
        first.bias.sub_(hidden.mean(0)).div_(spread)
        hidden = activation((hidden - hidden.mean(0)) / spread)
        output = last(hidden)
        scale = output.std(0).mean().clamp_min(_FAINT)
        last.weight.div_(scale)
        last.bias.sub_(output.mean(0)).div_(scale)
