"""One optimizer step, and what follows it: validation, checkpoint, the question whether to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor

from orbit4d.datasets.loader.worker_faults import worker_faults
from orbit4d.model.compute.micro_step import precision_of
from orbit4d.model.config.learning_rate import learning_rate
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.diffusion.objective import prepare, training_loss, validation_loss
from orbit4d.model.network.build import trainable_state
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.checkpoint import Checkpoint
from orbit4d.model.training.advice import check_finite, memory_advice
from orbit4d.model.training.stages import Parts, Position, StageState, trainable
from orbit4d.model.views.objective import scene_loss, scene_validation


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step came to."""

    terms: dict[str, float]
    """loss, loss_diffusion and loss_motion, means over micro-batches and processes."""
    grad_norm: float
    """Before clipping."""
    data_wait: float
    """Seconds spent waiting for the loader."""


def optimizer_step(
    state: StageState, parts: Parts, config: TrainConfig, run: Path, position: Position
) -> StepResult:
    """One step of the optimizer and of the averaged weights, with seed and learning rate of its number.

    WorkError, with what to change, for memory that does not suffice and for a loss that is not a number.
    """
    accelerator, optimizer = parts.accelerator, state.optimizer
    torch.manual_seed(step_seed(config.seed, position.stage, position.done, accelerator.process_index))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, state.stage, position.done)
    with memory_advice(config, run, f"in step {position.step + 1}"):
        terms, waited = accumulate_gradients(state, parts, config)
        if parts.half is not None and accelerator.num_processes > 1:
            parts.half.exchange()
        norm = accelerator.clip_grad_norm_(trainable(parts.unet), config.optim.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=state.graphs is None)
        if parts.half is not None:
            parts.half.follow()
    if accelerator.num_processes > 1:
        terms = mean_over_processes(accelerator, terms)
    check_finite(terms, config, run, position.step)
    if state.ema is not None:
        state.ema.step(trainable(parts.unet))
    return StepResult(terms, float(norm), waited)


def accumulate_gradients(
    state: StageState, parts: Parts, config: TrainConfig
) -> tuple[dict[str, float], float]:
    """Forward and backward over the micro-batches -> (mean of each loss, seconds waited for the loader)."""
    accelerator, accumulate = parts.accelerator, state.accumulate
    sums: dict[str, Tensor] = {}
    waited = 0.0
    for micro in range(accumulate):
        waiting = time.monotonic()
        with worker_faults(config.data.workers, "--set data.workers"):
            batch = next(state.batches)
        waited += time.monotonic() - waiting
        last = micro == accumulate - 1 or parts.half is not None
        with nullcontext() if last else accelerator.no_sync(state.network):
            losses = micro_step(state, parts, config, batch)
        for name, value in losses.items():
            # Summed where they are: a number read back here would stall a GPU at every micro-batch.
            share = value.detach().double() / accumulate
            sums[name] = sums[name] + share if name in sums else share
    numbers = torch.stack(list(sums.values())).tolist()
    return dict(zip(sums, numbers)), waited


def micro_step(
    state: StageState, parts: Parts, config: TrainConfig, batch: dict[str, Any]
) -> dict[str, Tensor]:
    """Losses of one micro-batch; its gradients are added to those that are there."""
    accelerator = parts.accelerator
    if state.graphs is not None:
        return state.graphs(prepare(batch, parts.frozen, parts.scheduler, config, accelerator.device))
    with precision_of(accelerator, state.network):
        if config.synchronised:
            losses = scene_loss(
                state.network, batch, parts.frozen, parts.scheduler, config, accelerator.device, state.stage
            )
            accelerator.backward(losses["loss"] / state.accumulate)
            return losses
        losses = training_loss(
            state.network, batch, parts.frozen, parts.scheduler, config, accelerator.device
        )
        accelerator.backward(losses["loss"] / state.accumulate)
    return losses


def step_seed(seed: int, stage: int, step: int, rank: int) -> int:
    """Seed of everything one process draws from torch's global generator in one step (dropout)."""
    return int(np.random.SeedSequence([seed, stage, step, rank]).generate_state(1)[0])


def mean_over_processes(accelerator: Accelerator, terms: dict[str, float]) -> dict[str, float]:
    """Average of each number over the processes."""
    values = torch.tensor(list(terms.values()), dtype=torch.float32, device=accelerator.device)
    return dict(zip(terms, accelerator.reduce(values, "mean").tolist()))


@contextmanager
def averaged(ema: EMAModel | None, unet: torch.nn.Module) -> Iterator[None]:
    """The averaged weights in place of the current ones."""
    if ema is None:
        yield
        return
    ema.store(trainable(unet))
    ema.copy_to(trainable(unet))
    try:
        yield
    finally:
        ema.restore(trainable(unet))


def validate(state: StageState, parts: Parts, config: TrainConfig, position: Position) -> float | None:
    """Loss of the averaged weights on the validation split; None where it is not the step for it, without
    such clips, and beside the main process."""
    due = position.done == state.stage.steps or position.done % config.validate_every == 0
    if not (len(parts.validation) and due and parts.accelerator.is_main_process):
        return None
    # A master network, which accelerate did not wrap, is validated as the wrapped ones are.
    precision = nullcontext() if parts.half is None else parts.accelerator.autocast()
    with averaged(state.ema, parts.unet), precision:
        if config.synchronised:
            return scene_validation(
                parts.unet, parts.validation, position.stage, parts.frozen, parts.scheduler, config
            )
        return validation_loss(
            parts.unet, parts.validation, state.stage, parts.frozen, parts.scheduler, config
        )


def maybe_checkpoint(
    state: StageState, parts: Parts, config: TrainConfig, run: Path, position: Position, asked: bool
) -> None:
    """A checkpoint within a stage, every so many steps or minutes and before a stop; KeyboardInterrupt when
    one process was `asked` to stop. The last step of a stage is kept by the stage's end."""
    late = parts.accelerator.is_main_process and position.checkpoint_is_late(config.checkpoint_minutes)
    stop, late = in_any_process(parts.accelerator, asked, late)
    due = position.done % config.checkpoint_every == 0 or late
    if (due or stop) and position.done < state.stage.steps:
        write_checkpoint(parts, config, run, position, state)
        if stop:
            raise KeyboardInterrupt


def in_any_process(accelerator: Accelerator, *flags: bool) -> tuple[bool, ...]:
    """Whether each of `flags` holds in one process at least: the same answer in all. A signal reaches them at
    different times, and one that stopped a step early would leave the others waiting for it."""
    if accelerator.num_processes == 1:
        return flags
    raised = torch.tensor([float(flag) for flag in flags], device=accelerator.device)
    return tuple(bool(count) for count in accelerator.reduce(raised, "sum").tolist())


def write_checkpoint(
    parts: Parts, config: TrainConfig, run: Path, position: Position, state: StageState | None
) -> None:
    """Save on the main process; the others wait. Between two stages there is no `state`, and with it neither
    optimizer nor averaged weights."""
    accelerator = parts.accelerator
    if accelerator.is_main_process:
        ema = state.ema if state is not None else None
        content = Checkpoint(
            state=position.state(),
            model=trainable_state(parts.unet),
            optimizer=state.optimizer.state_dict() if state is not None else {},
            ema=ema.shadow_params if ema is not None else None,
            ema_step=ema.optimization_step if ema is not None else 0,
            scaler=accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        )
        run_checkpoint.save(run, content, config.keep_checkpoints)
    position.saved = time.monotonic()
    accelerator.wait_for_everyone()
