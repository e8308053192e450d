"""What `gpu_steps` trains on: settings, drawn latents and a network of random weights."""

from __future__ import annotations

import argparse
import json
from typing import Any


class Drawn:
    """Clips of drawn latents: what a step of training sees of a cache."""

    is_latent = True

    def __init__(self, channels: int, frames: int, edge: int) -> None:
        self.shape = frames, channels, edge, edge

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        import numpy as np
        import torch

        from orbit4d.datasets.cameras.camera import orbit

        generator = torch.Generator().manual_seed(index)
        frames = self.shape[0]
        return {
            "dynamic": torch.randn(self.shape, generator=generator),
            "static": torch.randn(self.shape, generator=generator),
            "c2w": torch.from_numpy(np.stack([camera.c2w for camera in orbit(frames, size=(256, 256))])),
            "motion_frames": torch.full((frames,), 0.01, dtype=torch.float64),
            "focal": torch.tensor(1.2, dtype=torch.float64),
            "caption": "",
        }

    def motion_frames(self, index: int) -> Any:
        return self[index]["motion_frames"]

    def require(self, static: bool) -> None:
        pass

    def keys(self) -> list[str]:
        return [str(index) for index in range(len(self))]


class Unmade:
    """An autoencoder that makes latents of the published size without weights."""

    channels, factor, config_hash = 4, 8, "drawn"

    def to(self, where: Any) -> Unmade:
        return self

    def encode_video(self, frames: Any) -> Any:
        import torch

        batch, count, _, height, width = frames.shape
        generator = torch.Generator().manual_seed(0)
        shape = (batch, 4, count, height // 8, width // 8)
        return torch.randn(shape, generator=generator).to(frames.device)


def settings(options: argparse.Namespace, name: str, sets: list[str]) -> Any:
    """A preset without the weights around the network, small where asked."""
    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override

    parts = ["model.text_encoder=", "model.image_encoder=", "data.workers=0", "data.captions=false"]
    parts += ["sample.w2=0.5", "checkpoint_every=1000000", "validate_every=1000000"]
    if options.small:
        unet = {
            "block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "cross_attention_dim": 16,
            "attention_head_dim": 4, "norm_num_groups": 4,
        }  # fmt: skip
        parts += [f"model.unet={json.dumps(unet)}", "data.frames=3", "data.resolution=64"]
    return override(preset(name), [*parts, *sets])


def parts_of(config: Any) -> Any:
    """What a run loads, with drawn clips and a network of random weights made on the device."""
    import torch

    from orbit4d.model.data.motion_statistics import MotionStatistics
    from orbit4d.model.diffusion.schedule import make_scheduler
    from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
    from orbit4d.model.network.build import build_unet, make_trainable
    from orbit4d.model.training.stages import Parts, halved, open_accelerator

    accelerator = open_accelerator(config)
    edge = config.data.resolution // 8
    clips = Drawn(4, config.data.frames, edge)
    with torch.device(accelerator.device):
        unet = make_trainable(build_unet(config, 4), config)
    frozen = FrozenParts(PartsSpec.of(config), Unmade())
    scheduler = make_scheduler(config.model.schedule, config.model.prediction)
    motion = MotionStatistics(-2.0, 0.5, (), 0)
    return halved(Parts(accelerator, frozen, scheduler, clips, clips, unet, motion), config)
