"""Optimizers from settings."""

from __future__ import annotations

from typing import Any

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.training.muon import MuonAdamW, split


def make_optimizer(unet: OrbitUNet, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over what is trained, 8-bit through bitsandbytes, or Muon with AdamW for what is no matrix. With
    LoRA: adapters, camera and motion MLPs."""
    parameters = [p for p in unet.parameters() if p.requires_grad]
    settings: dict[str, Any] = {"lr": config.optim.lr, "weight_decay": config.optim.weight_decay}
    # One pass over the weights: otherwise a twentieth of a small network's step on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if config.optim.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=fused, **settings)
    if config.optim.optimizer == "muon":
        return MuonAdamW(*split(unet), fused=fused, **settings)
    if config.optim.optimizer != "adamw8bit":
        raise InputError(f"optim.optimizer={config.optim.optimizer}: known are adamw, muon and adamw8bit")
    try:
        import bitsandbytes
    except ImportError as error:
        raise InputError(
            "optim.optimizer=adamw8bit needs bitsandbytes and a CUDA GPU: "
            "pip install bitsandbytes, or use adamw"
        ) from error
    if not torch.cuda.is_available():
        raise InputError("optim.optimizer=adamw8bit needs a CUDA GPU, and there is none: use adamw")
    return bitsandbytes.optim.AdamW8bit(parameters, **settings)
