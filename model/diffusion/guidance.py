"""Classifier-free guidance with a frozen 3D base as third branch.

    eps = full + w1 (full - uncond) + w2 (full - base)          w1 = 7.0, w2 = 0.5

full: the network with every condition and the motion magnitude; uncond: the same network without conditions
(cameras stay, as upstream keeps them); base: the frozen static-orbit network with the conditions, which knows
no motion (Diffusion4D, arXiv 2405.16645, eq. 3). The weights of the three outputs sum to 1, and noise,
velocity and x0 are affine in one another at fixed t, so the formula holds unchanged whichever of them the
networks predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from orbit4d.model.network.unet import OrbitUNet


@dataclass(frozen=True)
class Conditions:
    """What one pass is conditioned on: OrbitUNet's arguments, each with a leading batch axis or None."""

    encoder_hidden_states: Tensor | None = None
    """Text tokens [B, L, D]."""
    camera: Tensor | None = None
    """[B, F, 16] in the checkpoint's world."""
    motion: Tensor | None = None
    """Raw m [B]; NaN for a sample without the condition."""
    image_latents: Tensor | None = None
    """[B, C, h, w] of the first view."""
    image_embeddings: Tensor | None = None
    """[B, D]; zeros for none."""
    static_latents: Tensor | None = None
    """[B, C, F, h, w] of the static orbit."""
    fps: Tensor | None = None
    """[B]; None is 8."""

    def without_motion(self) -> Conditions:
        """The same without the motion magnitude."""
        return replace(self, motion=None)

    def still(self) -> Conditions:
        """The same conditioned on m = 0; samples without the condition stay so."""
        if self.motion is None:
            return self
        return replace(self, motion=torch.where(self.motion.isnan(), self.motion, 0.0))

    def for_base(self, base: OrbitUNet) -> Conditions:
        """What the frozen base is given: everything but the motion.

        The base of a static-3D network is an image network, which is shown the static orbit's first view
        alone.
        """
        conditions = self.without_motion()
        if base.config.variant == "image" and self.static_latents is not None:
            conditions = replace(conditions, static_latents=None)
            if self.image_latents is None:
                conditions = replace(conditions, image_latents=self.static_latents[:, :, 0])
        return conditions

    def unconditional(self, negative: Tensor | None = None) -> Conditions:
        """The unconditional branch: `negative` text tokens, no image vector, no motion.

        Cameras stay, and so do the latents of the first view or the static orbit (VideoMV's `use_zero_infer`
        zeroes the image vector alone). `negative` [1 or B, L, D] are the tokens of the negative prompt.
        """
        text = self.encoder_hidden_states
        if negative is None:
            text = None if text is None else torch.zeros_like(text)
        else:
            text = negative if text is None else negative.to(text).expand(text.shape[0], -1, -1)
        return replace(self, encoder_hidden_states=text, image_embeddings=None, motion=None)


@dataclass(frozen=True)
class GuidanceWeights:
    """The weights of eq. 3."""

    conditions: float = 7.0
    """w1, away from the unconditional branch. w1 = 7 with w2 = 0 is ordinary guidance at scale 8."""
    base: float = 0.5
    """w2, away from the frozen base, which makes a static orbit: the push towards motion."""
    motion: float = 0.0
    """Away from the own network conditioned on m = 0 (not in the paper; 0 runs no such branch).

    The network must have seen static orbits conditioned on m = 0 (`static_share`). Motion grows by 1 + w in
    pixels, (1 + w)^2 in m.
    """


def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Ordinary guidance, uncond + scale (cond - uncond): VideoMV uses 9 (text) and 6 (image)."""
    return uncond + scale * (cond - uncond)


def push_away(full: Tensor, *others: tuple[float, Tensor]) -> Tensor:
    """full + sum of w (full - other): eq. 3 is `push_away(full, (7.0, uncond), (0.5, base))`.

    All in one space (noise, velocity or x0) and of one shape. Branches of weight 0 leave the result bit for
    bit.
    """
    result = full
    for weight, other in others:
        if weight:
            result = result + weight * (full - other)
    return result


def guided_prediction(
    unet: OrbitUNet,
    x_t: Tensor,
    t: Tensor,
    full: Conditions,
    negative: Tensor | None = None,
    base: OrbitUNet | None = None,
    weights: GuidanceWeights | None = None,
    max_batch: int | None = None,
    base_conditions: Conditions | None = None,
) -> Tensor:
    """The guided output for x_t [B, C, F, h, w] at t [B], float32, in the space the networks predict.

    Branches are combined in float32, whatever the networks ran in: the weights multiply what rounding left.

    base: the frozen static-orbit network; with None or w2 = 0 its branch is not run. It must predict what
    `unet` predicts. When `base` is `unet` itself, all branches share one pass.
    base_conditions: what the base is given; default `full.for_base(base)`.
    max_batch: largest batch of one pass; None puts all branches of one network into one. Two networks have
    two sets of weights, so the base's branch is batched over the samples, in a pass of its own.
    """
    weights = weights or GuidanceWeights()
    own: list[tuple[float, Conditions]] = []
    if weights.conditions:
        own.append((weights.conditions, full.unconditional(negative)))
    if weights.motion and full.motion is not None:
        own.append((weights.motion, full.still()))
    use_base = base is not None and weights.base != 0
    if use_base and base is unet:
        own.append((weights.base, full.without_motion()))
    branches = [full, *(conditions for _, conditions in own)]
    outputs = [output.float() for output in predict(unet, x_t, t, branches, max_batch)]
    pushes = [(weight, output) for (weight, _), output in zip(own, outputs[1:])]
    if use_base and base is not None and base is not unet:
        # Frozen in another precision, maybe; a mixed product would fail deep inside.
        conditions = base_conditions or full.for_base(base)
        base_output = predict(base, x_t.to(base.dtype), t, [conditions], max_batch)[0]
        pushes.append((weights.base, base_output.float()))
    return push_away(outputs[0], *pushes)


def predict(
    unet: OrbitUNet,
    x_t: Tensor,
    t: Tensor,
    branches: Sequence[Conditions],
    max_batch: int | None = None,
) -> list[Tensor]:
    """Outputs of one network under several sets of conditions, batched; [B, C, F, h, w] each.

    Conditions that only some branches have are filled with what means "none" to the network (zeros for text
    and the image vector, NaN for motion). Cameras, latents and static orbits must be in all branches or in
    none, since they have no such value. Raises ValueError where they are not, or where text lengths differ.
    """
    batch, n = x_t.shape[0], len(branches)
    t = torch.as_tensor(t, device=x_t.device).expand(batch)
    arguments = _stack(branches, batch)
    arguments |= {"sample": torch.cat([x_t] * n), "timestep": torch.cat([t] * n)}
    size = max_batch or batch * n
    parts = [
        unet(
            **{key: None if value is None else value[i : i + size] for key, value in arguments.items()}
        ).sample
        for i in range(0, batch * n, size)
    ]
    return list(torch.cat(parts).split(batch))


def _stack(branches: Sequence[Conditions], batch: int) -> dict[str, Tensor | None]:
    stacked: dict[str, Tensor | None] = {}
    for field in fields(Conditions):
        values = [getattr(branch, field.name) for branch in branches]
        present = next((value for value in values if value is not None), None)
        if present is None:
            stacked[field.name] = None
            continue
        if field.name == "motion":
            none = torch.full((batch,), float("nan"), device=present.device, dtype=present.dtype)
        elif field.name == "fps":
            none = torch.full((batch,), 8, device=present.device, dtype=present.dtype)
        elif field.name in ("encoder_hidden_states", "image_embeddings"):
            none = torch.zeros((batch, *present.shape[1:]), device=present.device, dtype=present.dtype)
        elif any(value is None for value in values):
            raise ValueError(f"{field.name} must be given to all branches of one pass or to none")
        values = [none if value is None else value for value in values]
        if any(value.shape[1:] != present.shape[1:] for value in values):
            shapes = ", ".join(str(tuple(value.shape)) for value in values)
            raise ValueError(f"{field.name} must have one shape in all branches, got {shapes}")
        stacked[field.name] = torch.cat([value.expand(batch, *present.shape[1:]) for value in values])
    return stacked
