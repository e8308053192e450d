"""Between frames and latents: Stable Diffusion's f8 VAE, and pixels folded into channels for small models.

autoencoder = load_autoencoder("unshuffle:2")        # or a hub name, a folder, VQGAN_autoencoder.pth
latents = autoencoder.encode_video(frames)           # [B, F, 3, H, W] in [0, 1] -> [B, C, F, h, w]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.weights.files import describe_keys, listed, read_tensors
from orbit4d.model.weights.hub import configuration, content_hash, load_pretrained
from orbit4d.model.weights.keymap import Rule, rename

#: The VAE VideoMV was trained on (`VQGAN_autoencoder.pth`), in diffusers' words.
SD_F8 = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "sample_size": 256,
}


class Autoencoder(nn.Module, ABC):
    """What both kinds have in common. Frozen; frames are [.., 3, H, W] in [0, 1], latents [.., C, h, w]."""

    channels: int
    """Latent channels C."""
    factor: int
    """H / h."""
    time_factor: int = 1
    """Frames of a latent beyond the first: 4n + 1 frames make n + 1 latents at 4."""

    @abstractmethod
    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Frames [N, 3, H, W] to latents [N, C, H / factor, W / factor]."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [N, C, h, w] to frames [N, 3, H, W], not clamped to [0, 1]."""

    @property
    @abstractmethod
    def config_hash(self) -> str:
        """Changes whenever latents would: the key of a latent cache."""

    def encode_video(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, F, 3, H, W] to [B, C, F, h, w]."""
        latents = self.encode(self._checked(frames).flatten(0, 1), generator)
        return latents.unflatten(0, frames.shape[:2]).transpose(1, 2)

    def decode_video(self, latents: Tensor) -> Tensor:
        """[B, C, F, h, w] to [B, F, 3, H, W], clamped to [0, 1]."""
        frames = self.decode(latents.transpose(1, 2).flatten(0, 1)).clamp(0.0, 1.0)
        return frames.unflatten(0, (latents.shape[0], latents.shape[2]))

    def _checked(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"frame height and width must be multiples of {self.factor}, got {height} x {width}"
            )
        return frames


class PixelAutoencoder(Autoencoder):
    """Pixels in [-1, 1], each block of factor x factor made channels; 8-bit images come back exactly."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 1:
            raise InputError(f"unshuffle:{factor}: the factor must be 1 or more")
        self.factor, self.channels = factor, 3 * factor * factor

    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return functional.pixel_unshuffle(self._checked(frames) * 2 - 1, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        return (functional.pixel_shuffle(latents, self.factor) + 1) / 2

    @property
    def config_hash(self) -> str:
        return content_hash("unshuffle", {"factor": self.factor})


class KLAutoencoder(Autoencoder):
    """diffusers' `AutoencoderKL`, a few frames at a time; latents are scaled by its `scaling_factor`.

    Encoding takes the mode of the posterior, so that a cache holds the one right answer; with a generator it
    draws from the posterior, as VideoMV does in training.
    """

    def __init__(self, vae: AutoencoderKL, chunk: int = 4) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.chunk = chunk
        self.channels = vae.config["latent_channels"]
        self.factor = 2 ** (len(vae.config["block_out_channels"]) - 1)

    @torch.no_grad()
    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        latents = []
        for part in (self._checked(frames).to(self.vae.dtype) * 2 - 1).split(self.chunk):
            posterior = self.vae.encode(part).latent_dist
            latents.append(posterior.mode() if generator is None else posterior.sample(generator))
        return (torch.cat(latents) - self._shift) * self.vae.config["scaling_factor"]

    def decode(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.vae.dtype) / self.vae.config["scaling_factor"] + self._shift
        return torch.cat([(self.vae.decode(part).sample + 1) / 2 for part in latents.split(self.chunk)])

    @property
    def _shift(self) -> float:
        return self.vae.config["shift_factor"] or 0.0

    @cached_property
    def _weights_hash(self) -> str:
        config = {key: value for key, value in self.vae.config.items() if not key.startswith("_")}
        return content_hash("kl", config, self.vae)

    @property
    def config_hash(self) -> str:
        return self._weights_hash


class WanAutoencoder(Autoencoder):
    """Wan's causal video autoencoder (diffusers' `AutoencoderKLWan`), one video at a time.

    4n + 1 frames make n + 1 latents: the mean of the posterior, then (mean - latents_mean) / latents_std per
    channel, which diffusers' `encode` does not do.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        config = vae.config
        self.channels = config["z_dim"]
        self.factor = 2 ** (len(config["dim_mult"]) - 1) * int(config.get("patch_size") or 1)
        self.time_factor = 2 ** sum(bool(down) for down in config["temperal_downsample"])
        self._numbers: dict[str, Tensor] = {
            name: torch.tensor(config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        }

    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.encode_video(frames.unsqueeze(1), generator).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_video(latents.unsqueeze(2)).squeeze(1)

    @torch.no_grad()
    def encode_video(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, 4n + 1, 3, H, W] in [0, 1] to [B, C, n + 1, h, w]. ValueError for other numbers of frames."""
        if (frames.shape[1] - 1) % self.time_factor:
            raise ValueError(f"{frames.shape[1]} frames: the autoencoder takes {self.time_factor}n + 1")
        videos = (self._checked(frames).transpose(1, 2) * 2 - 1).to(self.vae.dtype)
        found = []
        for video in videos.split(1):
            posterior = self.vae.encode(video).latent_dist
            found.append(posterior.mode() if generator is None else posterior.sample(generator))
        latents = torch.cat(found)
        return (latents - self._of("latents_mean", latents)) / self._of("latents_std", latents)

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """[B, C, n + 1, h, w] to [B, 4n + 1, 3, H, W], clamped to [0, 1]."""
        latents = latents.to(self.vae.dtype)
        latents = latents * self._of("latents_std", latents) + self._of("latents_mean", latents)
        videos = torch.cat([self.vae.decode(video).sample for video in latents.split(1)])
        return ((videos + 1) / 2).clamp(0.0, 1.0).transpose(1, 2)

    def _of(self, name: str, like: Tensor) -> Tensor:
        return self._numbers[name].to(like)

    @cached_property
    def _weights_hash(self) -> str:
        config = {key: value for key, value in self.vae.config.items() if not key.startswith("_")}
        return content_hash("wan-vae", config, self.vae)

    @property
    def config_hash(self) -> str:
        return self._weights_hash


def load_autoencoder(spec: str | Path, chunk: int = 4) -> Autoencoder:
    """The autoencoder that `spec` names, frozen, float32, on the CPU.

    spec: "unshuffle:N" (pixels); VideoMV's `VQGAN_autoencoder.pth` or another file in that layout; a folder
    or a hub name (`stabilityai/sd-vae-ft-mse`, `ali-vilab/i2vgen-xl/vae`).
    chunk: frames per pass through a VAE (memory). Raises InputError.
    """
    spec = str(spec)
    if spec.startswith("unshuffle:"):
        number = spec.removeprefix("unshuffle:")
        if not number.isdigit():
            raise InputError(f"{spec}: expected unshuffle:N with a whole number, as in unshuffle:2")
        return PixelAutoencoder(int(number))
    if not spec:
        raise InputError(
            "no autoencoder is named; give unshuffle:2, a hub name, a folder or VQGAN_autoencoder.pth"
        )
    if Path(spec).expanduser().is_file():
        return KLAutoencoder(load_vqgan(Path(spec).expanduser()), chunk)
    if configuration(spec, ("vae",), "autoencoder").get("_class_name") == "AutoencoderKLWan":
        return WanAutoencoder(load_pretrained(AutoencoderKLWan, spec, ("vae",), "autoencoder"))
    return KLAutoencoder(load_pretrained(AutoencoderKL, spec, ("vae",), "autoencoder"), chunk)


def load_vqgan(path: str | Path, **config: Any) -> AutoencoderKL:
    """A file in Stable Diffusion's original layout (`encoder.down.0..`), such as VQGAN_autoencoder.pth.

    Keys may carry the prefix `first_stage_model.`; only those are then taken, the rest belongs to other parts
    of one training file, as do `loss.*`. config: diffusers' names, default the published f8 VAE.
    Raises InputError when keys or shapes do not fit.
    """
    source, _ = read_tensors(path)
    prefix = "first_stage_model."
    if any(key.startswith(prefix) for key in source):
        source = {key.removeprefix(prefix): value for key, value in source.items() if key.startswith(prefix)}
    source = {key: value for key, value in source.items() if not key.startswith(("loss.", "model_ema."))}
    if not any(key.startswith("encoder.down.") for key in source):
        raise InputError(f"{path}: holds {describe_keys(source)}, not a VAE in Stable Diffusion's layout")
    settings = {**SD_F8, **config}
    levels = len(settings["block_out_channels"])
    vae = AutoencoderKL(
        **settings,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    converted, unknown = rename(source, vae_rules(levels, settings["layers_per_block"]))
    load_exactly(path, vae, converted, unknown)
    return vae.eval()


def load_exactly(
    path: str | Path, module: nn.Module, converted: Mapping[str, Tensor], unknown: list[str]
) -> None:
    """Load every tensor and no other; InputError that lists what is unknown, missing or of another shape."""
    targets = module.state_dict()
    unknown = unknown + [key for key in converted if key not in targets]
    missing = [key for key in targets if key not in converted]
    wrong = [key for key in targets if key in converted and converted[key].shape != targets[key].shape]
    faults = (("unknown keys", unknown), ("tensors not in the file", missing), ("of another shape", wrong))
    text = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in faults if names)
    if text:
        raise InputError(f"{path}: does not fit {type(module).__name__}: {text}")
    module.load_state_dict(converted)


def vae_rules(levels: int, layers: int) -> list[Rule]:
    """Stable Diffusion's VAE (CompVis/latent-diffusion, diffusionmodules/model.py) to diffusers.

    The decoder's levels are numbered from the finest there and from the coarsest here.
    """
    rules = [Rule("quant_conv", "quant_conv"), Rule("post_quant_conv", "post_quant_conv")]
    for half, blocks in (("encoder", layers), ("decoder", layers + 1)):
        for name, ours in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):
            rules.append(Rule(f"{half}.{name}", f"{half}.{ours}"))
        for i in (1, 2):
            rules += _residual(f"{half}.mid.block_{i}", f"{half}.mid_block.resnets.{i - 1}")
        rules += _attention(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0")
        for level in range(levels):
            if half == "encoder":
                source, target, resample = f"{half}.down.{level}", f"{half}.down_blocks.{level}", "downsample"
            else:
                coarse = levels - 1 - level
                source, target, resample = f"{half}.up.{level}", f"{half}.up_blocks.{coarse}", "upsample"
            for i in range(blocks):
                rules += _residual(f"{source}.block.{i}", f"{target}.resnets.{i}")
            rules.append(Rule(f"{source}.{resample}.conv", f"{target}.{resample}rs.0.conv"))
    return rules


def _residual(source: str, target: str) -> list[Rule]:
    names = ("norm1", "conv1", "norm2", "conv2")
    rules = [Rule(f"{source}.{name}", f"{target}.{name}") for name in names]
    return [*rules, Rule(f"{source}.nin_shortcut", f"{target}.conv_shortcut")]


def _attention(source: str, target: str) -> list[Rule]:
    pairs = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))
    rules = [Rule(f"{source}.{theirs}", f"{target}.{ours}", squeeze=(".weight",)) for theirs, ours in pairs]
    return [*rules, Rule(f"{source}.norm", f"{target}.group_norm")]
