"""From a batch of scenes to a loss: flow matching on a Wan base, the schedule of its base on an OrbitUNet.

All views of a scene share the noise level; noise is independent per view. A clean reference view counts
nothing in the loss, since its target means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from orbit4d.model.config.settings import Stage, TrainConfig
from orbit4d.model.data.training_clips import Draw
from orbit4d.model.diffusion.flow import TRAIN_STEPS, FlowTable, flow_noised, flow_target
from orbit4d.model.diffusion.losses import add_noise, prediction_target
from orbit4d.model.encoders.frozen import FrozenParts
from orbit4d.model.views.samples import TrainingScenes, collate_scenes
from orbit4d.model.views.scenes import SceneClips

#: Levels sigma that validation takes: where views can tell each other something (syncammaster: 0.7 and up).
VALIDATION_SIGMAS = (0.7, 0.9, 0.97)
_VALIDATION_KEY = 0x51DE5


def scene_loss(
    network: nn.Module,
    batch: Mapping[str, Any],
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
    device: torch.device,
    stage: Stage,
) -> dict[str, Tensor]:
    """loss and loss_diffusion [] of a batch of `collate_scenes`: the mean over its scenes."""
    losses: list[Tensor] = []
    for group in batch["groups"]:
        losses.append(_group_loss(network, group, frozen, scheduler, config, device, stage))
    loss = torch.cat(losses).mean()
    return {"loss": loss, "loss_diffusion": loss.detach()}


def _group_loss(
    network: nn.Module,
    group: Mapping[str, Any],
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
    device: torch.device,
    stage: Stage,
) -> Tensor:
    """Weighted squared error of each scene [B]."""
    views = group["target"].shape[1]
    x0 = frozen.to_latents(group["target"].flatten(0, 1), device)
    noise = view_noise(x0, group["seed"], views)
    noisy, target, timestep, weight = _noised(x0, noise, group, scheduler, config, views)
    clean = torch.zeros(len(group["clean"]), views, dtype=torch.bool, device=device)
    clean[:, 0] = group["clean"].to(device)
    clean = clean.flatten()
    noisy = torch.where(clean.view(-1, 1, 1, 1, 1), x0, noisy)
    out = network(noisy, timestep, **conditions(group, frozen, config, device, stage)).sample
    error = (out.float() - target).square().flatten(1).mean(1)
    counted = (~clean).float().unflatten(0, (-1, views))
    error = (error.unflatten(0, (-1, views)) * counted).sum(1) / counted.sum(1)
    return error * weight


def _noised(
    x0: Tensor,
    noise: Tensor,
    group: Mapping[str, Any],
    scheduler: DDIMScheduler,
    config: TrainConfig,
    views: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, target, timestep of each row; weight of each scene."""
    if config.model.base == "wan":
        table = FlowTable.make(config.views.shift)
        if "sigma" in group:
            sigma = group["sigma"].float().to(x0.device)
            weight = torch.ones_like(sigma)
        else:
            sigma = table.sigmas[group["level"]].to(x0.device)
            weight = table.weights[group["level"]].to(x0.device)
        rows = sigma.repeat_interleave(views)
        return flow_noised(x0, noise, rows), flow_target(x0, noise), TRAIN_STEPS * rows, weight
    steps = int(scheduler.config["num_train_timesteps"])
    level = group["level"]
    if "sigma" in group:
        level = (group["sigma"] * steps).long().clamp_max(steps - 1)
    t = level.to(x0.device).repeat_interleave(views)
    target = prediction_target(scheduler, x0, noise, t).float()
    return add_noise(scheduler, x0, noise, t), target, t, torch.ones(len(level), device=x0.device)


def conditions(
    group: Mapping[str, Any], frozen: FrozenParts, config: TrainConfig, device: torch.device, stage: Stage
) -> dict[str, Any]:
    """The network's arguments beside noisy latents and timestep."""
    views = group["target"].shape[1]
    given: dict[str, Any] = {"views": views}
    if stage.name == "views":
        camera = group["camera"].to(device)
        if config.views.shuffle_cameras:
            # The reference keeps its identity; the others are given what the next scene's are.
            camera = torch.cat([camera[:, :1], camera[:, 1:].roll(1, 0)], dim=1)
        given["camera" if config.model.base == "wan" else "view_camera"] = camera.flatten(0, 1)
        if config.views.motion:
            given["motion"] = group["motion"].to(device).repeat_interleave(views, 0)
    if frozen.text is not None:
        tokens = group["text"] if "text" in group else frozen.tokens(group["caption"])
        given["encoder_hidden_states"] = tokens.to(device).float().repeat_interleave(views, 0)
    return given


def view_noise(latents: Tensor, seeds: Tensor, views: int) -> Tensor:
    """Standard normal noise [B V, ...], each scene's from its own seed, always drawn on the CPU."""
    rows = []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn((views, *latents.shape[1:]), generator=generator))
    return torch.cat(rows).to(latents)


@torch.no_grad()
def scene_validation(
    network: nn.Module,
    scenes: SceneClips,
    number: int,
    frozen: FrozenParts,
    scheduler: DDIMScheduler,
    config: TrainConfig,
) -> float:
    """Mean error over the first `validate_clips` scenes at three high noise levels, view 0 clean in a stage
    "views", with fixed views and noise: two values of one run differ by the weights alone."""
    device = next(network.parameters()).device
    samples = TrainingScenes(
        scenes, config, number, _VALIDATION_KEY, frozen.autoencoder.time_factor, plain=True
    )
    values = []
    for index in range(min(config.validate_clips, len(scenes))):
        for sigma in VALIDATION_SIGMAS:
            sample = samples[Draw(index, index)] | {"sigma": torch.tensor(sigma)}
            batch = collate_scenes([sample])
            loss = scene_loss(network, batch, frozen, scheduler, config, device, config.stages[number])
            values.append(loss["loss"])
    return float(torch.stack(values).mean())
