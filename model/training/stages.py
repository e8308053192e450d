"""What a run loads once, where it stands, and what each of its stages opens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.compute.graphs import Graphs
from orbit4d.model.compute.half import HalfNetwork, half_dtype
from orbit4d.model.compute.micro_step import open_graphs
from orbit4d.model.config.settings import Stage, TrainConfig
from orbit4d.model.data.clip_source import TRAIN, VALIDATION, describe_clips, open_clips
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.data.training_clips import StepBatches, TrainingClips, collate
from orbit4d.model.diffusion.schedule import scheduler_of
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.network.build import build_unet, build_views, save_folder, train_only
from orbit4d.model.orbits.build import build_orbit
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.checkpoint import Checkpoint, State
from orbit4d.model.run.claim import claimed
from orbit4d.model.run.extension import start_of
from orbit4d.model.run.log import write_json
from orbit4d.model.training.calibrate import (
    calibrate_cameras,
    calibrate_image_branch,
    first_views,
    orbit_cameras,
)
from orbit4d.model.training.optimizers import make_optimizer
from orbit4d.model.views.motion import is_fresh, scenes_motion
from orbit4d.model.views.samples import TrainingScenes, collate_scenes
from orbit4d.model.views.scenes import open_scenes

# -- the run -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What every process of a run loads once."""

    accelerator: Accelerator
    frozen: FrozenParts
    """Autoencoder and encoders."""
    scheduler: DDIMScheduler
    clips: Any
    """The training split: a `ClipSource`, or `SceneClips` of synchronised views."""
    validation: Any
    unet: Any
    """The network (OrbitUNet or OrbitWan), not wrapped for several processes."""
    motion: MotionStatistics
    half: HalfNetwork | None = None
    """What steps compute with, where its weights are half: `unet` is then the float32 master of it."""


@dataclass
class Position:
    """Where a run stands."""

    step: int
    """Optimizer steps done, over all stages."""
    stage: int
    """Number of the stage the next step belongs to."""
    done: int
    """Steps done within that stage."""
    began: float
    """`time.monotonic()` of the run's begin, had it been one session."""
    session_start: int
    """`step` where this session began."""
    saved: float
    """`time.monotonic()` of the last checkpoint, or of the session's begin."""

    @classmethod
    def of(cls, start: State) -> Position:
        """Where a session begins, now."""
        now = time.monotonic()
        return cls(start.step, start.stage, start.stage_step, now - start.seconds, start.step, now)

    @property
    def seconds(self) -> float:
        """Wall time spent so far, over all sessions."""
        return time.monotonic() - self.began

    def checkpoint_is_late(self, minutes: float) -> bool:
        """Whether the last checkpoint lies further back than `minutes`; 0 is never."""
        return bool(minutes) and time.monotonic() - self.saved > 60 * minutes

    def state(self) -> State:
        """The same for a checkpoint."""
        return State(self.step, self.stage, self.done, self.seconds)


def open_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate's view of the processes and their devices. InputError for fp16 without a GPU."""
    precision = config.optim.precision
    if config.optim.graphs == "on" and not torch.cuda.is_available():
        raise InputError("optim.graphs=on needs a CUDA GPU: use auto or off")
    # accelerate's own refusal is no one line of ours.
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("optim.precision=fp16 needs a GPU: use bf16 or no")
    # accelerate keeps one state per process, which refuses a second training with another precision.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def micro_batches(config: TrainConfig, processes: int) -> int:
    """Micro-batches per optimizer step and process, so that their sum over all is the effective batch."""
    batch = config.optim.batch
    if isinstance(batch, str):
        raise TypeError("optim.batch=auto is settled first (plan.settled_batch)")
    per_pass = batch * processes
    accumulate, rest = divmod(config.optim.effective_batch, per_pass)
    if rest or accumulate < 1:
        raise InputError(
            f"optim.effective_batch={config.optim.effective_batch} is no multiple of "
            f"batch {batch} x {processes} processes: set optim.batch to a divisor"
        )
    return accumulate


def claim_run(
    config: TrainConfig, run: Path, resume: bool, accelerator: Accelerator, held: ExitStack
) -> TrainConfig:
    """Claim RUN for as long as `held` is open, on the main process; gives every process the settings that
    the run has, which may have been extended."""
    if accelerator.is_main_process:
        config = held.enter_context(claimed(run, config, resume))
    accelerator.wait_for_everyone()
    settled: TrainConfig = broadcast_object_list([config])[0]
    return settled


def load_parts(
    config: TrainConfig, dataset: str, accelerator: Accelerator, allow_missing: bool = False
) -> Parts:
    """Encoders, clips, the network as its file or its seed has it, statistics of motion."""
    # Wan's is 21 GiB, which a card need not hold where its tokens are cached.
    text_device = torch.device("cpu") if config.model.base == "wan" else None
    frozen = FrozenParts.load(PartsSpec.of(config), accelerator.device, text_device)
    scheduler = scheduler_of(config)
    if config.synchronised:
        train = open_scenes(dataset, config, frozen, TRAIN, training=True)
        held = open_scenes(dataset, config, frozen, VALIDATION, training=False)
        _place_text(frozen, accelerator, train, held)
        network = build_views(config, frozen.latent_channels, allow_missing)
        motion = scenes_motion(train) if config.views.motion else MotionStatistics(0.0, 1.0, (), 0)
        if is_fresh(network):
            network.set_motion_statistics(motion.mean_log10, motion.std_log10)
        return Parts(accelerator, frozen, scheduler, train, held, network, motion)
    clips = open_clips(dataset, config, frozen, TRAIN)
    validation = open_clips(dataset, config, frozen, VALIDATION)
    unet: Any
    if config.model.base == "wan":
        _place_text(frozen, accelerator, clips, validation)
        unet = build_orbit(config, frozen.latent_channels)
    else:
        unet = build_unet(config, frozen.latent_channels, allow_missing)
    frozen.check_widths(unet)
    motion = MotionStatistics.measure(clips, config, shown=accelerator.is_main_process)
    unet.set_motion_statistics(motion.mean_log10, motion.std_log10)
    return Parts(accelerator, frozen, scheduler, clips, validation, unet, motion)


def _place_text(frozen: FrozenParts, accelerator: Accelerator, *clips: Any) -> None:
    """The text encoder of a Wan base to the device, but where all tokens are cached and only "none" is
    asked."""
    if frozen.text is None:
        return
    if all(source.is_latent or not len(source) for source in clips):
        frozen.remember([frozen.spec.negative_prompt])
    else:
        frozen.text.place(accelerator.device)


def write_facts(parts: Parts, config: TrainConfig, dataset: str, run: Path) -> None:
    """RUN/motion.json, RUN/data.json and, where guidance wants it, RUN/base: the network as it was loaded."""
    if not parts.accelerator.is_main_process:
        return
    write_json(run / "motion.json", parts.motion.to_dict())
    write_json(run / "data.json", describe_clips(dataset, parts.clips, parts.validation))
    # A resumed run has its base, maybe from its static stage.
    guided = config.model.init and config.sample.w2 and not config.synchronised
    if guided and not (run / "base").exists():
        save_folder(parts.unet, run / "base")


def calibrate(parts: Parts, config: TrainConfig) -> None:
    """Scale the input layers of a network without weights to the clips (calibrate.py)."""
    if config.model.init or config.model.base == "wan" or config.synchronised:
        return
    calibrate_cameras(parts.unet, orbit_cameras(parts.clips))
    if parts.unet.is_image:
        latents = parts.frozen.to_latents(first_views(parts.clips), parts.accelerator.device)
        calibrate_image_branch(parts.unet, latents[:, :, 0].cpu())


def resume_point(
    parts: Parts, config: TrainConfig, run: Path, resume: bool
) -> tuple[Checkpoint | None, State]:
    """The newest checkpoint, its weights put back, and where the run continues: at step 0 without one."""
    found = run_checkpoint.latest(run) if resume else None
    if found is None:
        return None, State(step=0, stage=0, stage_step=0, seconds=0.0)
    # To the CPU: beside a network that is on its device, a second copy of everything need not fit there.
    checkpoint = run_checkpoint.load(found, torch.device("cpu"))
    # All that is left to do of a run whose stages are done.
    unexpected = parts.unet.load_state_dict(checkpoint.model, strict=False).unexpected_keys
    if unexpected:
        raise WorkError(f"checkpoint key {unexpected[0]} is not in this network")
    return checkpoint, start_of(checkpoint.state, config)


def halved(parts: Parts, config: TrainConfig) -> Parts:
    """The same with a network for the steps whose weights are half, where the settings have it so; the
    master goes to the device, and is not wrapped for several processes."""
    device = parts.accelerator.device
    dtype = half_dtype(config.optim, device)
    if dtype is None:
        return parts
    unet = parts.unet.to(device)
    if parts.accelerator.num_processes > 1:
        # As DistributedDataParallel does for the networks that it wraps.
        for tensor in (*unet.parameters(), *unet.buffers()):
            torch.distributed.broadcast(tensor.data, 0)
    half = HalfNetwork(unet, dtype)
    return replace(parts, half=half)


# -- a stage -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageState:
    """What a stage opens."""

    stage: Stage
    batches: Iterator[dict[str, Any]]
    """Collated micro-batches, from the first step that is left."""
    accumulate: int
    """Micro-batches per optimizer step."""
    network: torch.nn.Module
    """The network, wrapped for several processes."""
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    """Averaged weights, where the settings want them."""
    graphs: Graphs | None = None
    """The micro-step, recorded on the device; None: each is run again."""


def open_stage(
    parts: Parts, config: TrainConfig, position: Position, checkpoint: Checkpoint | None
) -> StageState:
    """Loader, optimizer and averaged weights of the stage at `position`, as `checkpoint` has them."""
    stage, accelerator = config.stages[position.stage], parts.accelerator
    parts.clips.require(static=stage.name == "static")
    accumulate = micro_batches(config, accelerator.num_processes)
    batches = open_batches(parts, config, position, accumulate)
    if config.synchronised:
        train_only(parts.unet, stage.name, keep=any(s.name == "single" for s in config.stages))
    optimizer = make_optimizer(parts.unet, config)
    if parts.half is not None:
        network, optimizer = parts.half, accelerator.prepare(optimizer)
    else:
        network, optimizer = accelerator.prepare(parts.unet, optimizer)
    ema = None
    if config.optim.ema:
        ema = EMAModel(trainable(parts.unet), decay=config.optim.ema, foreach=True)
    if checkpoint is not None:
        restore_optimizer(checkpoint, parts, optimizer, ema)
    # A frozen base is in eval mode; the view module has nothing that differs.
    parts.unet.train(not config.synchronised)
    if parts.half is not None:
        parts.half.follow()
    graphs = open_graphs(accelerator, network, parts.scheduler, config, accumulate)
    if graphs is not None:
        # A recorded step adds to gradients where they are.
        for parameter in trainable(parts.unet):
            parameter.grad = torch.zeros_like(parameter)
    return StageState(stage, batches, accumulate, network, optimizer, ema, graphs)


def open_batches(
    parts: Parts, config: TrainConfig, position: Position, accumulate: int
) -> Iterator[dict[str, Any]]:
    """The micro-batches of this process from `position` on."""
    accelerator, number = parts.accelerator, position.stage
    clips: Any
    if config.synchronised:
        stride = parts.frozen.autoencoder.time_factor
        clips, join = TrainingScenes(parts.clips, config, number, number, stride), collate_scenes
    else:
        stage = config.stages[number]
        clips, join = (
            TrainingClips(
                parts.clips,
                config.data,
                config.loss,
                stage,
                config.seed,
                number,
                parts.frozen.autoencoder.time_factor,
            ),
            collate,
        )
    return iter(
        DataLoader(
            clips,
            batch_sampler=StepBatches(
                len(clips), config.seed, number, int(config.optim.batch), accumulate,
                accelerator.process_index, accelerator.num_processes, position.done,
            ),
            num_workers=config.data.workers,
            collate_fn=join,
            pin_memory=accelerator.device.type == "cuda",
        )
    )  # fmt: skip


def restore_optimizer(
    checkpoint: Checkpoint, parts: Parts, optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> None:
    """Put the rest back. A checkpoint written between two stages has no optimizer: the stage starts
    afresh."""
    if checkpoint.optimizer:
        optimizer.load_state_dict(checkpoint.optimizer)
    if ema is not None:
        # Between two stages the average starts from the weights just loaded.
        shadow = checkpoint.ema if checkpoint.ema is not None else trainable(parts.unet)
        own = trainable(parts.unet)
        ema.shadow_params = [value.detach().to(p.device, copy=True) for value, p in zip(shadow, own)]
        ema.optimization_step = checkpoint.ema_step
    scaler = parts.accelerator.scaler
    if checkpoint.scaler is not None and scaler is not None:
        scaler.load_state_dict(checkpoint.scaler)


def trainable(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters that are trained, in a fixed order."""
    return [p for p in unet.parameters() if p.requires_grad]
