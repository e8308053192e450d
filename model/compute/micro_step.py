"""The micro-step as a function of tensors: losses, and gradients added to those that are there.

One function serves three ways to run it: step by step (training/steps.py), recorded (graphs.py), and on
drawn numbers, to measure what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.compute.graphs import CudaRecorder, Graphs, Recorder
from orbit4d.model.compute.half import HalfNetwork
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.diffusion.objective import losses_of


def recorder_of(device: torch.device) -> Recorder | None:
    """What records steps on a device; None where nothing does."""
    return CudaRecorder(device) if device.type == "cuda" else None


def precision_of(accelerator: Accelerator, network: nn.Module) -> AbstractContextManager[Any]:
    """What the passes of `network` run under: autocast, but where its weights are half already."""
    return nullcontext() if isinstance(network, HalfNetwork) else accelerator.autocast()


def cannot_be_recorded(config: TrainConfig, processes: int, half: bool) -> str:
    """Why a step of these settings is no function of its tensors alone; empty where it is."""
    o = config.optim
    if config.model.base == "wan":
        return "a Wan base is not recorded: set optim.graphs=auto"
    dropout = float(dict(config.model.unet).get("temporal_dropout", 0.1))
    if o.checkpointing and o.recompute == "blocks" and dropout > 0:
        return "recomputing whole blocks draws their dropout again: set optim.recompute=attention"
    if processes > 1 and not half:
        return "processes exchange float32 gradients within it: set optim.weights=half"
    return ""


def open_graphs(
    accelerator: Accelerator,
    network: nn.Module,
    scheduler: DDIMScheduler,
    config: TrainConfig,
    accumulate: int,
) -> Graphs | None:
    """The recorded micro-step of `network`; None where the settings or the device have none.

    InputError for optim.graphs=on where there can be none.
    """
    if config.optim.graphs == "off" or config.synchronised:
        # Samples of two shapes, and views that are drawn again: nothing to record.
        return None
    required = config.optim.graphs == "on"
    recorder = recorder_of(accelerator.device)
    why = cannot_be_recorded(config, accelerator.num_processes, isinstance(network, HalfNetwork))
    if recorder is None or why:
        if required:
            raise InputError(f"optim.graphs=on: {why or 'needs a CUDA GPU'}, or optim.graphs=off")
        if why and recorder is not None and accelerator.is_main_process:
            print(f"note: no CUDA graphs: {why}", flush=True)
        return None

    def work(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with precision_of(accelerator, network):
            losses = losses_of(network, inputs, scheduler, config)
            accelerator.backward(losses["loss"] / accumulate)
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def check(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with precision_of(accelerator, network):
            return losses_of(network, inputs, scheduler, config)

    return Graphs(work, recorder, check, required)
