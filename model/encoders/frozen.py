"""The frozen parts around the network, as trainer and pipeline both use them.

One place decides how a condition reaches OrbitUNet, so that sampling sees what training saw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.encoders.autoencoders import Autoencoder, load_autoencoder
from orbit4d.model.network.conditioning import FIRST_VIEW
from orbit4d.model.network.unet import OrbitUNet

#: Captions whose tokens are kept: 81 MB of CLIP's.
_REMEMBERED = 256


def latent_shape(autoencoder: str, wan: bool = False) -> tuple[int, int]:
    """(latent channels, pixels per latent pixel) without loading weights: the published f8 VAE (or Wan's)
    unless pixels."""
    if autoencoder.startswith("unshuffle:"):
        pixels = load_autoencoder(autoencoder)
        return pixels.channels, pixels.factor
    return (16, 8) if wan else (4, 8)


def _exactly(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without gradients, and in the parts' own precision: also where the loop around runs under autocast, it
    makes what the cache holds."""

    @wraps(method)
    def in_own_precision(self: FrozenParts, *args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return in_own_precision


@dataclass(frozen=True)
class PartsSpec:
    """Which parts, and the habits of the base they serve."""

    variant: str
    """Of the network: "text", "image" or "static3d"; "views" of synchronised views, with or without text."""
    autoencoder: str
    text_encoder: str = ""
    image_encoder: str = ""
    negative_prompt: str = ""
    fps: float = 8.0
    first_view: str = "ramp"
    """How the network spreads a first view over frames (OrbitUNet)."""

    @classmethod
    def of(cls, config: TrainConfig) -> PartsSpec:
        """From the settings of a run."""
        model, data = config.model, config.data
        return cls(
            "views" if config.synchronised else model.variant,
            model.autoencoder,
            model.text_encoder,
            model.image_encoder,
            data.negative_prompt,
            data.fps,
            str(model.unet.get("first_view", "ramp")),
        )


def image_source(
    static_latents: Tensor | None, image_latents: Tensor | None, frames: int, first_view: str = "ramp"
) -> Tensor:
    """What the image branch sees, [B, C, F, h, w]: the base that a residual network's output is added to."""
    if static_latents is not None:
        return static_latents
    if image_latents is None:
        raise InputError("model.residual needs an image network: set it to 0")
    return FIRST_VIEW[first_view](image_latents, frames)


class FrozenParts:
    """Autoencoder, text encoder and image encoder of a run, on one device, without gradients."""

    def __init__(
        self, spec: PartsSpec, autoencoder: Autoencoder, text: Any = None, image: Any = None
    ) -> None:
        self.spec, self.autoencoder, self.text, self.image = spec, autoencoder, text, image
        self._tokens: dict[str, Tensor] = {}

    @classmethod
    def load(cls, spec: PartsSpec, device: torch.device) -> FrozenParts:
        """The parts that `spec` names."""
        from orbit4d.model.encoders.text_and_image import load_image_encoder, load_text_encoder

        text = load_text_encoder(spec.text_encoder).to(device) if spec.text_encoder else None
        image = load_image_encoder(spec.image_encoder).to(device) if spec.image_encoder else None
        if spec.variant == "text" and text is None:
            raise InputError("a text model needs model.text_encoder: a hub name, a folder, or minilm")
        return cls(spec, load_autoencoder(spec.autoencoder).to(device), text, image)

    @property
    def device(self) -> torch.device:
        """Where the encoders are; pixels have no weights and go anywhere."""
        for part in (self.autoencoder, self.text, self.image):
            parameter = next(part.parameters(), None) if isinstance(part, torch.nn.Module) else None
            if parameter is not None:
                return parameter.device
        return torch.device("cpu")

    def to(self, device: torch.device) -> FrozenParts:
        """Move the parts, in place."""
        for part in (self.autoencoder, self.text, self.image):
            if part is not None:
                part.to(device)
        return self

    @property
    def latent_channels(self) -> int:
        """C of the latents."""
        return self.autoencoder.channels

    def identity(self) -> dict[str, str]:
        """Hashes of the parts: they change whenever what the parts give would."""
        parts = {"autoencoder": self.autoencoder, "text_encoder": self.text, "image_encoder": self.image}
        return {name: part.config_hash if part is not None else "" for name, part in parts.items()}

    def check_widths(self, unet: OrbitUNet) -> None:
        """InputError where an encoder gives another width than the network's cross-attention takes."""
        wanted = unet.config.cross_attention_dim
        for name, part in (("text", self.text), ("image", self.image)):
            if part is not None and part.dim != wanted:
                raise InputError(
                    f"the {name} encoder gives {part.dim} numbers a token, the network takes {wanted}: "
                    f"set model.unet.cross_attention_dim={part.dim}, or use another encoder"
                )

    # -- latents -----------------------------------------------------------------------------------

    @_exactly
    def to_latents(self, frames: Tensor, device: torch.device | None = None) -> Tensor:
        """[B, F, 3, H, W] pixels in [0, 1], or [B, F, C, h, w] latents, to latents [B, C, F, h, w] float32.

        Three channels are pixels: no autoencoder has three latent channels.
        """
        frames = frames.to(device or self.device)
        if frames.shape[2] == 3:
            return self.autoencoder.encode_video(frames).float()
        return frames.transpose(1, 2).float()

    @_exactly
    def to_pixels(self, latents: Tensor) -> Tensor:
        """Latents [B, C, F, h, w] to pixels [B, F, 3, H, W] in [0, 1], float32."""
        return self.autoencoder.decode_video(latents).float()

    # -- conditions --------------------------------------------------------------------------------

    @_exactly
    def tokens(self, captions: list[str]) -> Tensor:
        """Text tokens [B, L, D]. Captions are remembered up to a limit: they could fill a GPU."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._tokens]
        if len(self._tokens) + len(new) > _REMEMBERED:
            self._tokens = {caption: self._tokens[caption] for caption in captions if caption not in new}
        if new:
            for caption, row in zip(new, self.text.encode(new)):
                self._tokens[caption] = row.float()
        return torch.stack([self._tokens[caption] for caption in captions])

    @_exactly
    def image_vectors(self, pixels: Tensor) -> Tensor:
        """First views [B, 3, H, W] in [0, 1] to vectors [B, D]."""
        return self.image.encode(pixels).float()

    def conditions(self, batch: dict[str, Any], target: Tensor, static: Tensor | None) -> dict[str, Any]:
        """OrbitUNet's arguments but motion, for a training batch with target latents [B, C, F, h, w].

        Tokens and vectors come from the batch where a cache holds them, else from the encoders. Dropped
        captions become the negative prompt, dropped images a zero vector.
        """
        device, n = target.device, target.shape[0]
        values: dict[str, Any] = {"camera": batch["camera"].to(device)}
        if self.text is not None:
            negative = self.tokens([self.spec.negative_prompt]).to(device)
            tokens = batch["text"].to(device) if "text" in batch else self.tokens(batch["caption"]).to(device)
            keep = batch["keep_text"].to(device).view(n, 1, 1)
            values["encoder_hidden_states"] = torch.where(keep, tokens.float(), negative)
        if self.spec.variant == "text":
            return values
        if self.image is not None:
            given = "image" in batch
            vectors = (
                batch["image"].float() if given else self.image_vectors(batch["target"][:, 0].to(self.device))
            )
            values["image_embeddings"] = vectors.to(device) * batch["keep_image"].to(device).view(n, 1)
        values["fps"] = torch.full((n,), self.spec.fps, device=device)
        if self.spec.variant == "static3d":
            values["static_latents"] = static
        elif batch["see_static"].any() and static is not None:
            see = batch["see_static"].to(device).view(n, 1, 1, 1, 1)
            first = FIRST_VIEW[self.spec.first_view](target[:, :, 0], target.shape[2])
            values["static_latents"] = torch.where(see, static, first)
        else:
            values["image_latents"] = target[:, :, 0]
        return values
