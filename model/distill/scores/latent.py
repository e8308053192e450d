"""What learned priors have in common: an autoencoder, a noise table, one branch of one network at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.distill.score_model import Branch, Kind, coefficients
from orbit4d.model.distill.scores.conditions import Conditions, check_images, refuse_unknown
from orbit4d.model.distill.scores.offload import OFFLOADS, Offload, Turns
from orbit4d.model.distill.scores.table import NoiseTable

#: Axes of what a prior is asked about: images [B, C, h, w], clips [B, C, F, h, w].
IMAGE_AXES, CLIP_AXES = 4, 5


class LatentScore(ABC):
    """A diffusion prior over the latents of a KL autoencoder; see `ScoreModel`.

    Nothing is differentiated but `encode`. Networks run in their own precision; estimates come back in the
    precision of what was asked.
    """

    axes = IMAGE_AXES
    takes: frozenset[str] = frozenset()
    """Names that `condition` knows."""
    unconditional = True

    def __init__(
        self,
        name: str,
        source: str,
        network: nn.Module,
        autoencoder: Any,
        table: NoiseTable,
        *,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        kind: Kind = "pretrained",
    ) -> None:
        self.name, self.source, self.kind = name, source, kind
        self.network, self.autoencoder = network.eval().requires_grad_(False), autoencoder
        self.alphas_cumprod, self.prediction = table.alphas_cumprod, table.prediction
        if "scaling_factor" not in autoencoder.config or not autoencoder.config["scaling_factor"]:
            raise InputError(f"{source}: its autoencoder has no scaling factor, and none is assumed")
        self.scaling_factor = float(autoencoder.config["scaling_factor"])
        self.channels = int(autoencoder.config["latent_channels"])
        self.factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
        settings: Any = network.config
        edge = _pair(settings["sample_size"])
        self.size = size or (edge[0] * self.factor, edge[1] * self.factor)
        if self.size[0] % self.factor or self.size[1] % self.factor:
            raise InputError(
                f"{source}: {self.size} is no multiple of its autoencoder's factor {self.factor}"
            )
        self.frames, self.calls = frames, 0
        self.offload: Offload = "none"
        self.turns: list[Turns] = []
        """How networks come to the device and leave it, one for each, under offload."""
        self.device = torch.device("cpu")

    # -- images and latents --------------------------------------------------------------------------

    @property
    def latent(self) -> tuple[int, int]:
        """Channels of a latent and pixels per latent pixel."""
        return self.channels, self.factor

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images [N, 3, h, w] in [0, 1] to latents [N, C, h / f, w / f], differentiable.

        They are brought to `size` bilinearly. The mode of the posterior is taken; with `noise` (like the
        latents) a sample of it, the same for the same noise.

        Raises:
            InputError: images of another shape, not finite, or outside [0, 1].
        """
        images = check_images(images, f"{self.name}: images")
        if tuple(images.shape[-2:]) != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", align_corners=False)
        posterior = self.autoencoder.encode((2 * images - 1).to(self.autoencoder.dtype)).latent_dist
        latents = posterior.mode()
        if noise is not None:
            latents = posterior.mean + posterior.std * noise.to(posterior.mean)
        return (latents * self.scaling_factor).to(images.dtype)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents [N, C, h, w] to images [N, 3, H, W] in [0, 1]."""
        decoded = self.autoencoder.decode((z / self.scaling_factor).to(self.autoencoder.dtype)).sample
        return (decoded.to(z.dtype) / 2 + 0.5).clamp(0, 1)

    # -- estimates -----------------------------------------------------------------------------------

    @abstractmethod
    def condition(self, **named: Any) -> Conditions:
        """The prior's conditions, encoded once."""

    @torch.no_grad()
    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """Noise estimate like z_t of one branch, without guidance."""
        output = self.predicted(z_t, t, conditions, branch)
        if self.prediction == "epsilon":
            return output
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        if self.prediction == "v_prediction":
            return alpha * output + sigma * z_t
        return (z_t - alpha * output) / sigma

    @torch.no_grad()
    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """Clean estimate like z_t of one branch, without guidance."""
        output = self.predicted(z_t, t, conditions, branch)
        if self.prediction == "sample":
            return output
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        if self.prediction == "v_prediction":
            return alpha * z_t - sigma * output
        return (z_t - sigma * output) / alpha

    def predicted(self, z_t: Tensor, t: Tensor, conditions: Any, branch: Branch) -> Tensor:
        """The network's output like z_t for one branch: of kind `prediction`, and with a graph."""
        self._check(z_t, t)
        if not isinstance(conditions, Conditions):
            raise InputError(f"{self.name}: needs conditions: condition({', '.join(sorted(self.takes))}=...)")
        self.calls += len(z_t)
        dtype = next(self.network.parameters()).dtype
        given = {key: value.to(self.device) for key, value in conditions.of(branch, len(z_t)).items()}
        given = {key: v.to(dtype) if v.is_floating_point() else v for key, v in given.items()}
        for turns in self.turns:
            turns.log.clear()
        output = self._output(z_t.to(self.device, dtype), t.to(self.device), given)
        return output.to(z_t.device, z_t.dtype)

    def _output(self, z_t: Tensor, t: Tensor, given: dict[str, Tensor]) -> Tensor:
        """The network's output, like z_t."""
        return self.network(z_t, t, **given).sample  # type: ignore[no-any-return]

    def _check(self, z_t: Tensor, t: Tensor) -> None:
        shape = f"[B, {self.channels}, {'F, ' if self.axes == CLIP_AXES else ''}h, w]"
        if z_t.ndim != self.axes or z_t.shape[1] != self.channels:
            raise InputError(f"{self.name}: needs latents {shape}, got {list(z_t.shape)}")
        if t.shape != z_t.shape[:1] or t.is_floating_point():
            raise InputError(f"{self.name}: t must be integers [{len(z_t)}], got {list(t.shape)}")
        if len(t) and not 0 <= int(t.min()) <= int(t.max()) < len(self.alphas_cumprod):
            raise InputError(f"{self.name}: t must be in [0, {len(self.alphas_cumprod)}), got {t.tolist()}")
        if self.axes == CLIP_AXES and self.frames and z_t.shape[2] > self.frames:
            raise InputError(f"{self.name}: clips of at most {self.frames} frames, got {z_t.shape[2]}")

    def _take(self, named: dict[str, Any]) -> None:
        refuse_unknown(self.name, named, self.takes)

    # -- where it is ---------------------------------------------------------------------------------

    @property
    def network_of_estimates(self) -> nn.Module:
        """What `LoraCopy` adapts."""
        return self.network

    def _networks(self) -> tuple[nn.Module, ...]:
        """What an estimate runs through, and offload moves."""
        return (self.network,)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LatentScore:
        """Move networks and autoencoder; under offload the networks stay in host memory."""
        self.device = torch.device(device)
        for turns in self.turns:
            turns.end()
        self.turns = []
        for network in self._networks():
            network.to("cpu" if self.offload != "none" else self.device, dtype)
            if self.offload != "none":
                self.turns.append(Turns(network, self.device, by_block=self.offload == "sequential"))
        self.autoencoder.to(self.device, dtype)
        return self

    def set_offload(self, mode: Offload) -> LatentScore:
        """ "idle" keeps the networks in host memory between their turns, "sequential" brings one block at a
        time; the result is the same to the bit. The autoencoder stays: gradients go through it.

        Raises:
            InputError: for another mode.
        """
        if mode not in OFFLOADS:
            raise InputError(f"offload {mode!r}: {or_known(mode, OFFLOADS)}")
        self.offload = mode
        return self.to(self.device)


def _pair(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
