"""From a batch to a loss: encode, add noise, predict, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from orbit4d.model.config.settings import LossSettings, Stage, TrainConfig
from orbit4d.model.data.training_clips import ClipSource, Draw, TrainingClips, collate, noise_like
from orbit4d.model.diffusion.flow import is_flow
from orbit4d.model.diffusion.losses import (
    add_noise,
    clean_estimate,
    diffusion_loss,
    motion_reconstruction_loss,
    prediction_target,
    residual_estimate,
    signal_and_noise,
)
from orbit4d.model.encoders.frozen import FrozenParts, image_source

#: Noise levels of every validation clip, as fractions of the schedule.
VALIDATION_LEVELS = (0.1, 0.35, 0.6, 0.85)
_VALIDATION_KEY = 0x7A11D


def training_loss(
    network: nn.Module,
    batch: dict[str, Any],
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """loss, loss_diffusion and loss_motion [] of a collated batch of `TrainingClips` samples.

    L = L_diffusion + ω L_mr (Diffusion4D, arXiv 2405.16645, eq. 2). L_mr is taken per latent element, so
    that ω does not depend on the latent's size, and weighted by alphas_cumprod[t]: the estimate made from
    pure noise says nothing about motion. Clips without a static orbit have no L_mr.
    """
    inputs = prepare(batch, frozen, scheduler, config, device)
    return losses_of(network, inputs, scheduler, config)


def prepare(
    batch: dict[str, Any],
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """What `losses_of` needs of a batch, on the device: noise drawn, conditions encoded.

    target, noise, noisy [B, C, F, h, w], t and motion [B]; static [B, C, F, h, w] and has_static [B] where
    L_mr or a condition wants them; and OrbitUNet's arguments under "condition." and their names. Of
    flow matching t is 1000 sigma, and weight [B] that of its level.
    """
    target, static = frozen.to_latents(batch["target"], device), None
    if config.loss.motion_weight > 0 or config.model.variant == "static3d" or bool(batch["see_static"].any()):
        static = frozen.to_latents(batch["static"], device)
    t, weight = _levels(scheduler, batch["timestep_u"], device)
    noise = noise_like(target, batch["seed"], config.loss.offset_noise)
    conditions = frozen.conditions(batch, target, static)
    if not config.data.cameras:
        del conditions["camera"]
    inputs = {"target": target, "noise": noise, "noisy": add_noise(scheduler, target, noise, t), "t": t}
    inputs["motion"] = batch["motion"].to(device)
    if weight is not None:
        inputs["weight"] = weight
    if static is not None:
        inputs |= {"static": static, "has_static": batch["has_static"].to(device).float()}
    return inputs | {f"condition.{name}": value for name, value in conditions.items() if value is not None}


def _levels(scheduler: Any, u: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """What the network is given as t [B], and of flow matching the weights of the levels [B]."""
    if is_flow(scheduler):
        t, weight = scheduler.drawn(u)
        return t.to(device), weight.to(device)
    steps = int(scheduler.config["num_train_timesteps"])
    return (u * steps).long().clamp_max(steps - 1).to(device), None


def losses_of(
    network: nn.Module, inputs: Mapping[str, Tensor], scheduler: DDIMScheduler, config: TrainConfig
) -> dict[str, Tensor]:
    """The losses of what `prepare` gave: a function of tensors on one device, which reads nothing back."""
    target, noise, noisy, t = (inputs[name] for name in ("target", "noise", "noisy", "t"))
    static = inputs.get("static")
    conditions = {
        name.removeprefix("condition."): value
        for name, value in inputs.items()
        if name.startswith("condition.")
    }
    output = network(noisy, t, motion=inputs["motion"], **conditions).sample
    if config.model.residual:
        visual = conditions.get("static_latents"), conditions.get("image_latents")
        source = image_source(*visual, target.shape[2], str(config.model.unet.get("first_view", "ramp")))
        output = residual_estimate(scheduler, output, source, noisy, t, config.model.residual)
    per_clip = diffusion_loss(output, prediction_target(scheduler, target, noise, t))
    if "weight" in inputs:
        per_clip = per_clip * inputs["weight"]
    terms = {"loss_diffusion": per_clip.mean()}
    loss = terms["loss_diffusion"]
    if config.loss.motion_weight > 0 and static is not None:
        signal, _ = signal_and_noise(scheduler, t, 1)
        estimate = clean_estimate(scheduler, output, noisy, t)
        weight = signal.square() * inputs["has_static"]
        motion = motion_reconstruction_loss(target, estimate, static, True, weight)
        terms["loss_motion"] = motion.mean()
        loss = loss + config.loss.motion_weight * terms["loss_motion"]
    return {"loss": loss, **terms}


@torch.no_grad()
def validation_loss(
    network: nn.Module,
    clips: ClipSource,
    stage: Stage,
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
) -> float:
    """Mean diffusion loss over the first `validate_clips` clips, each at four noise levels, with fixed noise.

    Nothing is dropped or augmented, so two values of one run differ by the weights alone.
    """
    plain = LossSettings(motion_weight=0.0, drop_caption=0.0, drop_motion=0.0, drop_image=0.0)
    config = replace(config, loss=plain)
    data = replace(config.data, augment=())
    samples = TrainingClips(
        clips,
        data,
        plain,
        replace(stage, static_share=0.0),
        config.seed,
        _VALIDATION_KEY,
        frozen.autoencoder.time_factor,
    )
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    values = []
    for index in range(min(config.validate_clips, len(clips))):
        for level in VALIDATION_LEVELS:
            sample = samples[Draw(index, index)]
            sample["timestep_u"] = torch.tensor(level, dtype=torch.float64)
            losses = training_loss(network, collate([sample]), frozen, scheduler, config, device)
            values.append(losses["loss_diffusion"])
    network.train(was_training)
    return float(torch.stack(values).mean())
