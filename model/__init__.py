"""The orbit-video diffusion model: network, VideoMV checkpoints, losses, guidance, training, sampling.

Names are loaded on first use, so that `import orbit4d.model` does not import torch.
"""

from __future__ import annotations

from orbit4d.datasets.core.lazy import lazy_names

_HOMES = {
    "Conditions": "diffusion.guidance",
    "GuidanceWeights": "diffusion.guidance",
    "OrbitPipeline": "sampling.pipeline",
    "OrbitUNet": "network.unet",
    "export_diffusers": "network.diffusers_export",
    "export_videomv": "network.videomv",
    "load_autoencoder": "encoders.autoencoders",
    "load_image_encoder": "encoders.text_and_image",
    "load_text_encoder": "encoders.text_and_image",
    "load_videomv": "network.videomv",
    "make_scheduler": "diffusion.schedule",
    "prepare_photo": "sampling.photo",
    "videomv_cameras": "network.cameras",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
