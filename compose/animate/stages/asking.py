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
from orbit4d.model.distill.lora import LoraCopy

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
    """Of `msd`: the model of the object held still, in closed form."""
    copy: LoraCopy | None = None
    """Of `vsd` and `msd` with a learned prior: its copy that is trained as the run proceeds."""
    two_pass: bool = True
    kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_orbit(self) -> bool:
        """Whether the prior is a run of orbit4d, which knows clips of its orbit alone."""
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
            # A run that reads no text is given the image alone, as is one that reads images.
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

    Draws t, then the noise; a copy that is trained draws after them. `factor` multiplies the slot's weight.
    `still` are the frames of `msd` at the canonical time.
    """
    model, asked = slot.model, slot.asked
    z = _latents(model, images)
    given = _as_asked(slot, z)
    t = draw_timesteps(generator, len(given), asked.t_range, len(model.alphas_cumprod))
    noise = torch.randn(given.shape, generator=generator).to(given)
    conditions = slot.told(model, named)
    extra, lesson = _second(slot, given, conditions, named, still)
    g = gradient(
        asked.estimator, given, t, noise, model, weight=asked.w_t, scale=asked.scale,
        form=cast(Form, asked.form), conditions=conditions, **extra,
    )  # fmt: skip
    if slot.copy is not None:
        # After the estimate: a copy that has just seen this clip would say less of it.
        slot.copy.learn(*lesson, generator)
    g_z = g[0].transpose(0, 1) if slot.is_clip else g
    size = z[0].numel() if scaling == "pixel_mean" else (1 if slot.is_clip else len(z))
    g_images = _to_images(slot, images, g_z) * (asked.weight * factor / size)
    return Answer(g_images, given, noise, t, g, conditions)


def learn_still(slot: Slot, still: Tensor, named: dict[str, Any], generator: torch.Generator) -> None:
    """One training pass of the copy of `msd` on frames [N, 3, h, w] of the object held still."""
    assert slot.copy is not None
    z = _as_asked(slot, _latents(slot.model, still))
    slot.copy.learn(z, slot.told(slot.model, held_still(named)), generator)


def held_still(named: dict[str, Any]) -> dict[str, Any]:
    """What a prior is given for the same step with the object held still."""
    return {**named, "prompt": named.get("still_prompt") or named.get("prompt"), "motion": 0.0}


def _second(
    slot: Slot, z: Tensor, conditions: Any, named: dict[str, Any], still: Tensor | None
) -> tuple[dict[str, Any], tuple[Tensor, Any]]:
    """The second model of an estimator, as `gradient` takes it; and what a copy is trained on then."""
    copy, estimator = slot.copy, slot.asked.estimator
    if estimator == "vsd":
        if copy is not None:
            return {"phi": lambda z_t, t: copy.noise(z_t, t, conditions)}, (z, conditions)
        # Exact where pixels are latents: what is drawn now, as widely spread as the prior is.
        return {"phi": GaussianScore(z, slot.model.s, slot.model.alphas_cumprod)}, (z, conditions)
    if estimator != "msd" or still is None:
        return {}, (z, conditions)
    asked = slot.model if copy is not None else slot.still
    told = slot.told(asked, held_still(named))
    z_static = _as_asked(slot, _latents(asked, still))
    model = copy if copy is not None else asked
    return {"static": lambda z_t, t: model.noise(z_t, t, told), "z_static": z_static}, (z_static, told)


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
