"""The orbit-video diffusion model: network, VideoMV checkpoints, losses, guidance, training, sampling.

Names are loaded on first use, so that `import orbit4d.model` does not import torch.
"""

from __future__ import annotations

from orbit4d.datasets.lazy import lazy_names

_HOMES = {
    "Conditions": "guidance",
    "GuidanceWeights": "guidance",
    "OrbitPipeline": "pipeline",
    "OrbitUNet": "unet",
    "export_diffusers": "diffusers_export",
    "export_videomv": "videomv",
    "load_autoencoder": "autoencoders",
    "load_image_encoder": "encoders",
    "load_text_encoder": "encoders",
    "load_videomv": "videomv",
    "make_scheduler": "schedule",
    "prepare_photo": "photo",
    "videomv_cameras": "cameras",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
