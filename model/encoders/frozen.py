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
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.orbits.network import video_condition

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
    """How the network spreads a first view over frames (OrbitUNet); "video": as Wan does, a video of it and
    grey."""

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
            "video" if model.base == "wan" else str(model.unet.get("first_view", "ramp")),
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
    def load(
        cls, spec: PartsSpec, device: torch.device, text_device: torch.device | None = None
    ) -> FrozenParts:
        """The parts that `spec` names; the text encoder on a device of its own where one is given."""
        from orbit4d.model.encoders.text_and_image import load_image_encoder, load_text_encoder

        text = load_text_encoder(spec.text_encoder) if spec.text_encoder else None
        if text is not None:
            text.place(text_device or device)
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
        for part in (self.autoencoder, self.image):
            if part is not None:
                part.to(device)
        if self.text is not None:
            self.text.place(device)
        return self

    @property
    def latent_channels(self) -> int:
        """C of the latents."""
        return self.autoencoder.channels

    def identity(self) -> dict[str, str]:
        """Hashes of the parts: they change whenever what the parts give would."""
        parts = {"autoencoder": self.autoencoder, "text_encoder": self.text, "image_encoder": self.image}
        return {name: part.config_hash if part is not None else "" for name, part in parts.items()}

    def check_widths(self, unet: OrbitUNet | OrbitWan) -> None:
        """InputError where an encoder gives another width than the network's cross-attention takes."""
        wan = isinstance(unet, OrbitWan)
        wanted = unet.config["text_dim" if wan else "cross_attention_dim"]
        for name, part in (("text", self.text), ("image", self.image)):
            if part is not None and part.dim != wanted:
                raise InputError(
                    f"the {name} encoder gives {part.dim} numbers a token, the network takes {wanted}: "
                    f"set model.{'wan.text_dim' if wan else 'unet.cross_attention_dim'}={part.dim}, or use "
                    "another encoder"
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

    def first_view_latents(self, frames: Tensor, device: torch.device | None = None) -> Tensor:
        """Latents [B, C, F, h, w] of the first of frames [B, N, 3, H, W] followed by grey, as Wan's networks
        are shown a first view."""
        alone = torch.full_like(frames, 0.5)
        alone[:, 0] = frames[:, 0]
        return self.to_latents(alone, device)

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

    def remember(self, captions: list[str]) -> None:
        """Encode `captions` now, so that `tokens` of them need no encoder."""
        if self.text is not None:
            self.tokens(captions)

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
        if self.spec.first_view == "video":
            return values | {"image_latents": self._video_condition(batch, target, static)}
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

    def _video_condition(self, batch: dict[str, Any], target: Tensor, static: Tensor | None) -> Tensor:
        """What a Wan base is shown: the first view or the whole static orbit of each row, or nothing."""
        whole = batch["see_static"].to(target.device)
        if self.spec.variant == "static3d":
            whole = torch.ones_like(whole)
        if bool(whole.all()) and static is not None:
            latents = static
        else:
            first = batch["first"].transpose(1, 2) if "first" in batch else None
            if first is None:
                first = self.first_view_latents(batch["target"], target.device)
            latents = first.to(target)
            if static is not None:
                latents = torch.where(whole.view(-1, 1, 1, 1, 1), static, latents)
        return video_condition(latents, whole, batch["keep_image"])
