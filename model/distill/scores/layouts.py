"""The networks of the published priors without their weights: built on the meta device, for memory plans.

Settings as in the repositories' own `config.json`; what is not named is the class's default.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from orbit4d.model.distill.scores.published import PUBLISHED

_WIDE = (320, 640, 1280, 1280)
_DOWN_2D = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_UP_2D = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
_SD_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
#: Width of the tokens of each prior, and how many.
TOKENS: dict[str, tuple[int, int]] = {
    "sd15": (77, 768),
    "zero123": (1, 768),
    "zero123-xl": (1, 768),
    "modelscope": (77, 1024),
    "zeroscope": (77, 1024),
    "controlnet-tile": (77, 768),
}


def network(name: str) -> nn.Module:
    """The denoising network of a short name in float16 on the meta device; for "controlnet-tile" the UNet it
    steers."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    with torch.device("meta"):
        if PUBLISHED[name].slot == "video":
            made: nn.Module = UNet3DConditionModel(
                sample_size=32,
                down_block_types=("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
                up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
                block_out_channels=_WIDE,
                layers_per_block=2,
                cross_attention_dim=1024,
                attention_head_dim=64,
            )
        else:
            views = name.startswith("zero123")
            made = UNet2DConditionModel(
                sample_size=32 if views else 64,
                in_channels=8 if views else 4,
                out_channels=4,
                down_block_types=_DOWN_2D,
                up_block_types=_UP_2D,
                block_out_channels=_WIDE,
                layers_per_block=2,
                cross_attention_dim=768,
                attention_head_dim=8,
            )
    return made.half().eval()


def control() -> nn.Module:
    """The tile ControlNet in float16 on the meta device."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with torch.device("meta"):
        made = ControlNetModel(
            down_block_types=_DOWN_2D,
            block_out_channels=_WIDE,
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
            conditioning_embedding_out_channels=(16, 32, 96, 256),
        )
    return made.half().eval()


def autoencoder(dtype: torch.dtype = torch.float16) -> nn.Module:
    """Stable Diffusion's KL autoencoder, which all of them use, on the meta device."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL(**_SD_VAE).to(dtype).eval()
