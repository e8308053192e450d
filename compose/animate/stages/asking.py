"""Ask a prior about images that were drawn, and get a gradient of the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from orbit4d.compose.animate.settings import Distilling
from orbit4d.model.distill.analytic import GaussianScore
from orbit4d.model.distill.draws import draw_timesteps
from orbit4d.model.distill.estimators import gradient
from orbit4d.model.distill.guiding import Form

#: Conditions that do not change from step to step where a model takes no others.
_LASTING = frozenset({"prompt", "negative"})


@dataclass
class Slot:
    """A prior in its place."""

    name: str
    """2d, 3d, video or tile."""
    spec: str
    model: Any
    asked: Distilling
    still: Any = None
    """Of `msd`: the model of the object held still."""
    two_pass: bool = True
    kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_orbit(self) -> bool:
        """Whether the prior is a run of our own, which knows clips of its orbit alone."""
        return hasattr(self.model, "pipeline")

    @property
    def is_clip(self) -> bool:
        """Whether the prior sees all frames as one sample."""
        return self.name == "video" or self.is_orbit

    def told(self, model: Any, named: dict[str, Any]) -> Any:
        """Conditions of a model from what a step knows: only what it takes."""
        chosen = {key: value for key, value in named.items() if key in model.takes and value is not None}
        if self.is_orbit and "reference" in chosen:
            parts = model.pipeline.parts
            # A run that reads no text is told the image alone, as is one that reads images.
            if parts.text is None or parts.image is not None:
                chosen.pop("prompt", None)
        if model.takes <= _LASTING:
            key = (id(model), *sorted(chosen.items()))
            if key not in self.kept:
                self.kept[key] = model.condition(**chosen)
            return self.kept[key]
        return model.condition(**chosen)


@dataclass
class Answer:
    """What a prior said of images [N, 3, h, w]."""

    gradient: Tensor
    """Of the images, weighted and scaled, [N, 3, h, w]."""
    z: Tensor
    noise: Tensor
    t: Tensor
    g: Tensor
    """Of the latents, before weight and scale."""
    conditions: Any


def ask(
    slot: Slot,
    images: Tensor,
    named: dict[str, Any],
    generator: torch.Generator,
    scaling: str,
    factor: float = 1.0,
    still: Tensor | None = None,
) -> Answer:
    """A prior's gradient of images [N, 3, h, w]: of one clip of N frames, or of N images.

    Draws t, then the noise. `factor` multiplies the slot's weight. `still` are the frames of `msd` at the
    canonical time.
    """
    model, asked = slot.model, slot.asked
    z = _latents(model, images)
    given = _as_asked(slot, z)
    t = draw_timesteps(generator, len(given), asked.t_range, len(model.alphas_cumprod))
    noise = torch.randn(given.shape, generator=generator).to(given)
    conditions = slot.told(model, named)
    extra: dict[str, Any] = {}
    if asked.estimator == "vsd":
        # Exact where pixels are latents: what is drawn now, as widely spread as the prior is.
        extra["phi"] = GaussianScore(given, model.s, model.alphas_cumprod)
    if asked.estimator == "msd" and still is not None:
        told = slot.told(slot.still, named)
        extra["static"] = lambda z_t, when: slot.still.noise(z_t, when, told)
        extra["z_static"] = _as_asked(slot, _latents(slot.still, still))
    g = gradient(
        asked.estimator, given, t, noise, model, weight=asked.w_t, scale=asked.scale,
        form=cast(Form, asked.form), conditions=conditions, **extra,
    )  # fmt: skip
    g_z = g[0].transpose(0, 1) if slot.is_clip else g
    size = z[0].numel() if scaling == "pixel_mean" else (1 if slot.is_clip else len(z))
    g_images = _to_images(slot, images, g_z) * (asked.weight * factor / size)
    return Answer(g_images, given, noise, t, g, conditions)


def _as_asked(slot: Slot, z: Tensor) -> Tensor:
    """Latents [N, C, h, w] as a batch of one clip, or of N images."""
    return z.transpose(0, 1)[None].contiguous() if slot.is_clip else z


def _latents(model: Any, images: Tensor) -> Tensor:
    if model.latent == (3, 1):
        return images
    with torch.no_grad():
        return torch.cat([model.encode(image[None]) for image in images])


def _to_images(slot: Slot, images: Tensor, g: Tensor) -> Tensor:
    """A gradient of latents as one of images; with `two_pass` the encoder's graph is that of one image.

    From the last image to the first, as one graph would add them up.
    """
    model = slot.model
    if model.latent == (3, 1):
        return g
    with torch.enable_grad():
        if not slot.two_pass:
            x = images.detach().requires_grad_()
            model.encode(x).backward(g)
            return x.grad  # type: ignore[return-value]
        out = torch.empty_like(images)
        for i in reversed(range(len(images))):
            x = images[i : i + 1].detach().requires_grad_()
            model.encode(x).backward(g[i : i + 1])
            out[i : i + 1] = x.grad  # type: ignore[assignment]
    return out
