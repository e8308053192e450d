"""The orbit-video diffusion model: network, VideoMV checkpoints, losses, guidance, training, sampling.

Names are loaded on first use, so that `import orbit4d.model` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Conditions": "guidance",
    "GuidanceWeights": "guidance",
    "OrbitPipeline": "pipeline",
    "OrbitUNet": "unet",
    "export_videomv": "videomv",
    "load_autoencoder": "autoencoders",
    "load_image_encoder": "encoders",
    "load_text_encoder": "encoders",
    "load_videomv": "videomv",
    "make_scheduler": "schedule",
    "videomv_cameras": "cameras",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"orbit4d.model.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
