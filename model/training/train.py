"""The training loop, from top to bottom.

    orbit4d train DATASET --out RUN --preset tiny
    accelerate launch -m orbit4d.model.train_main DATASET --out RUN --preset videomv-image --init i2v.pth

RUN/config.json     the resolved settings          RUN/log.jsonl      one line per step (run_log.py)
RUN/extended.json   when it was made longer        RUN/samples/       clips sampled on the way
RUN/lora/           adapters of a LoRA run (adapters.py)
RUN/motion.json     statistics of motion           RUN/checkpoints/   what --resume goes on from
(run_checkpoint.py) RUN/data.json       which clips it saw             RUN/base/          the frozen third
branch of guidance RUN/model/          the finished pipeline, for `orbit4d generate` and
`OrbitPipeline.from_pretrained`

Nothing random depends on what came before: a sample's draws hang on its number, dropout on the number of the
step. A run that is killed and resumed therefore goes through the same losses, bit by bit on a CPU.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.loader.worker_faults import worker_faults
from orbit4d.model.config.learning_rate import learning_rate
from orbit4d.model.config.settings import TrainConfig, to_dict
from orbit4d.model.data.clip_source import TRAIN, VALIDATION, describe_clips, open_clips, trained_orbit
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.data.training_clips import StepBatches, TrainingClips, collate
from orbit4d.model.diffusion.objective import training_loss, validation_loss
from orbit4d.model.diffusion.schedule import make_scheduler
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.network.build import (
    build_unet,
    make_trainable,
    merge_lora,
    save_folder,
    trainable_state,
)
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.adapters import save_adapters
from orbit4d.model.run.checkpoint import Checkpoint, State
from orbit4d.model.run.claim import claimed, has_begun
from orbit4d.model.run.extension import start_of
from orbit4d.model.run.log import RunLog, write_json
from orbit4d.model.sampling.pipeline import OrbitPipeline
from orbit4d.model.training.calibrate import (
    calibrate_cameras,
    calibrate_image_branch,
    first_views,
    orbit_cameras,
)
from orbit4d.model.training.optimizers import make_optimizer
from orbit4d.model.training.sample_clips import SampleClips


def train(
    config: TrainConfig,
    dataset: str,
    run: Path,
    resume: bool = False,
    trackers: tuple[str, ...] = (),
    allow_missing: bool = False,
) -> Path:
    """Train on the training split of `dataset` and leave a pipeline in RUN/model; returns that folder.

    Called by every process of the run alike (one, `accelerate launch`, or Ray Train). InputError for a run
    that already exists without `resume` or was started with other settings; WorkError for a loss that is not
    a number and for memory that does not suffice, naming what to change.
    """
    try:
        with ExitStack() as held:
            return _train(config, dataset, run, resume, trackers, allow_missing, held)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        where = "beside its steps (loading, validation, a checkpoint)"
        raise WorkError(out_of_memory(config, run, where)) from error


def _train(
    config: TrainConfig,
    dataset: str,
    run: Path,
    resume: bool,
    trackers: tuple[str, ...],
    allow_missing: bool,
    held: ExitStack,
) -> Path:
    precision = config.optim.precision
    # accelerate's own refusal is no one line of ours.
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("optim.precision=fp16 needs a GPU: use bf16 or no")
    # accelerate keeps one state per process, which refuses a second training with another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
    is_main, device = accelerator.is_main_process, accelerator.device
    accumulate = micro_batches(config, accelerator.num_processes)
    Index(dataset)  # a dataset that is not there is refused before the run's folder is made
    if is_main:
        config = held.enter_context(claimed(run, config, resume))
    accelerator.wait_for_everyone()
    config = broadcast_object_list([config])[0]  # of a run that was extended, as the first process read it

    frozen = FrozenParts.load(PartsSpec.of(config), device)
    scheduler = make_scheduler(config.model.schedule, config.model.prediction, config.sample.spacing)
    clips = open_clips(dataset, config, frozen, TRAIN)
    validation = open_clips(dataset, config, frozen, VALIDATION)
    unet = build_unet(config, frozen.latent_channels, allow_missing)
    frozen.check_widths(unet)
    motion = MotionStatistics.measure(clips, config, shown=is_main)
    unet.set_motion_statistics(motion.mean_log10, motion.std_log10)
    if is_main:
        write_json(run / "motion.json", motion.to_dict())
        write_json(run / "data.json", describe_clips(dataset, clips, validation))
        # As it was loaded, before `make_trainable`. A resumed run has its base, maybe from its static stage.
        if config.model.init and config.sample.w2 and not (run / "base").exists():
            save_folder(unet, run / "base")
    if not config.model.init:
        calibrate_cameras(unet, orbit_cameras(clips))
    if not config.model.init and unet.is_image:
        calibrate_image_branch(unet, frozen.to_latents(first_views(clips), device)[:, :, 0].cpu())
    make_trainable(unet, config)

    found = run_checkpoint.latest(run) if resume else None
    checkpoint = run_checkpoint.load(found, device) if found else None
    if checkpoint is not None:
        restore_weights(checkpoint, unet)
    nothing_yet = State(step=0, stage=0, stage_step=0, seconds=0.0)
    start = start_of(checkpoint.state, config) if checkpoint else nothing_yet
    log = RunLog(run, start.step, trackers, to_dict(config)) if is_main else None
    progress = Progress("train", config.total_steps, "step") if is_main else None
    if progress and start.step:
        progress.done = start.step
        print(f"resuming {run} at step {start.step} of {config.total_steps}", flush=True)

    samples = SampleClips(dataset, config) if log and config.sample_every else None
    step, began = start.step, time.monotonic() - start.seconds
    with stop_request() as stopping:
        for number, stage in list(enumerate(config.stages))[start.stage :]:
            done = start.stage_step if number == start.stage else 0
            clips.require(static=stage.name == "static")
            training_clips = TrainingClips(clips, config.data, config.loss, stage, config.seed, number)
            batches = iter(
                DataLoader(
                    training_clips,
                    batch_sampler=StepBatches(
                        len(clips), config.seed, number, config.optim.batch, accumulate,
                        accelerator.process_index, accelerator.num_processes, done,
                    ),
                    num_workers=config.data.workers,
                    collate_fn=collate,
                    pin_memory=device.type == "cuda",
                )
            )  # fmt: skip
            optimizer = make_optimizer(unet, config)
            network, optimizer = accelerator.prepare(unet, optimizer)
            ema = (
                EMAModel(trainable(unet), decay=config.optim.ema, foreach=True) if config.optim.ema else None
            )
            if checkpoint is not None:
                restore_optimizer(checkpoint, unet, optimizer, ema, accelerator)
                checkpoint = None
            unet.train()

            while done < stage.steps:
                begin, waited = time.monotonic(), 0.0
                torch.manual_seed(step_seed(config.seed, number, done, accelerator.process_index))
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, stage, done)
                terms: dict[str, float] = {}
                try:
                    for micro in range(accumulate):
                        waiting = time.monotonic()
                        with worker_faults(config.data.workers, "--set data.workers"):
                            batch = next(batches)
                        waited += time.monotonic() - waiting
                        last = micro == accumulate - 1
                        with nullcontext() if last else accelerator.no_sync(network), accelerator.autocast():
                            losses = training_loss(network, batch, frozen, scheduler, config, device)
                            accelerator.backward(losses["loss"] / accumulate)
                        for name, value in losses.items():
                            terms[name] = terms.get(name, 0.0) + float(value.detach()) / accumulate
                    norm = accelerator.clip_grad_norm_(trainable(unet), config.optim.clip or math.inf)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                except (RuntimeError, MemoryError) as error:
                    if not ran_out_of_memory(error):
                        raise
                    raise WorkError(out_of_memory(config, run, f"in step {step + 1}")) from error
                if accelerator.num_processes > 1:
                    terms = mean_over_processes(accelerator, terms)
                if not math.isfinite(terms["loss"]):
                    raise WorkError(not_finite(config, run, step))
                if ema is not None:
                    ema.step(trainable(unet))
                step, done = step + 1, done + 1

                seconds = time.monotonic() - began
                row = {"step": step, "stage": stage.name, **terms, "lr": optimizer.param_groups[0]["lr"]}
                row |= {"grad_norm": float(norm), "seconds": seconds}
                row |= {"step_seconds": time.monotonic() - begin, "data_wait": waited}
                if len(validation) and (done == stage.steps or done % config.validate_every == 0) and is_main:
                    with averaged(ema, unet):
                        row["val_loss"] = validation_loss(unet, validation, stage, frozen, scheduler, config)
                if log and progress:
                    log.write(row)
                    if samples and (step % config.sample_every == 0 or done == stage.steps):
                        with averaged(ema, unet):
                            drawn = samples.draw(unet, frozen, motion, stage.name)
                        if drawn is not None:
                            log.write_clips(step, drawn, config.data.fps, samples.split)
                    progress.update(1, loss=f"{terms['loss']:.4f}")
                crash_point("train_step_done")
                stop = in_any_process(accelerator, stopping())
                if (done % config.checkpoint_every == 0 or stop) and done < stage.steps:
                    state = State(step, number, done, time.monotonic() - began)
                    write_checkpoint(run, state, unet, optimizer, ema, accelerator, config)
                    if stop:
                        raise KeyboardInterrupt
                accelerator.wait_for_everyone()

            at_end = number + 1 == len(config.stages)
            if at_end and step > start.step:
                # Whole, with the weights that were not averaged, so that the run can be extended.
                state = State(step, number, done, time.monotonic() - began)
                write_checkpoint(run, state, unet, optimizer, ema, accelerator, config)
            # The next stage, and the finished model, start from the averaged weights.
            if ema is not None:
                ema.copy_to(trainable(unet))
            if not at_end:
                accelerator.free_memory()
            if is_main and stage.name == "static":
                save_folder(unet, run / "base")
            if not at_end:
                state = State(step, number + 1, 0, time.monotonic() - began)
                write_checkpoint(run, state, unet, None, None, accelerator, config)
            accelerator.wait_for_everyone()

    if progress and log:
        progress.close()
        log.close()
        save_pipeline(run, config, unet, frozen, scheduler, motion, trained_orbit(clips))
    accelerator.wait_for_everyone()
    return run / "model"


def micro_batches(config: TrainConfig, processes: int) -> int:
    """Micro-batches per optimizer step and process, so that their sum over all is the effective batch."""
    per_pass = config.optim.batch * processes
    accumulate, rest = divmod(config.optim.effective_batch, per_pass)
    if rest or accumulate < 1:
        raise InputError(
            f"optim.effective_batch={config.optim.effective_batch} is no multiple of "
            f"batch {config.optim.batch} x {processes} processes: set optim.batch to a divisor"
        )
    return accumulate


def step_seed(seed: int, stage: int, step: int, rank: int) -> int:
    """Seed of everything one process draws from torch's global generator in one step (dropout)."""
    return int(np.random.SeedSequence([seed, stage, step, rank]).generate_state(1)[0])


def trainable(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters that are trained, in a fixed order."""
    return [p for p in unet.parameters() if p.requires_grad]


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


def write_checkpoint(run, state, unet, optimizer, ema, accelerator, config) -> None:
    """Save on the main process; the others wait."""
    if accelerator.is_main_process:
        content = Checkpoint(
            state=state,
            model=trainable_state(unet),
            optimizer=optimizer.state_dict() if optimizer is not None else {},
            ema=ema.shadow_params if ema is not None else None,
            ema_step=ema.optimization_step if ema is not None else 0,
            scaler=accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        )
        run_checkpoint.save(run, content, config.keep_checkpoints)
    accelerator.wait_for_everyone()


def restore_weights(checkpoint: Checkpoint, unet: torch.nn.Module) -> None:
    """Put a checkpoint's weights back: all that is left to do of a run whose stages are done."""
    unexpected = unet.load_state_dict(checkpoint.model, strict=False).unexpected_keys
    if unexpected:
        raise WorkError(f"the checkpoint has weights this network lacks ({unexpected[0]}): other version?")


def restore_optimizer(checkpoint: Checkpoint, unet, optimizer, ema, accelerator) -> None:
    """Put the rest back. A checkpoint written between two stages has no optimizer: the stage starts
    afresh."""
    if checkpoint.optimizer:
        optimizer.load_state_dict(checkpoint.optimizer)
    if ema is not None:
        # Between two stages the average starts from the weights just loaded.
        shadow = checkpoint.ema if checkpoint.ema is not None else trainable(unet)
        ema.shadow_params = [value.detach().clone() for value in shadow]
        ema.optimization_step = checkpoint.ema_step
    if checkpoint.scaler is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(checkpoint.scaler)


def mean_over_processes(accelerator: Accelerator, terms: dict[str, float]) -> dict[str, float]:
    """Average of each number over the processes."""
    values = torch.tensor(list(terms.values()), dtype=torch.float32, device=accelerator.device)
    return dict(zip(terms, accelerator.reduce(values, "mean").tolist()))


def in_any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` holds in one process at least: the same answer in all. A signal reaches them at
    different times, and one that stopped a step early would leave the others waiting for it."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum"))


def save_pipeline(run, config, unet, frozen, scheduler, motion, orbit) -> None:
    """RUN/model, from the trained network, the frozen base, and the parts around them."""
    base = type(unet).from_pretrained(run / "base") if (run / "base").exists() else None
    if config.optim.lora:
        save_adapters(unet, run / "lora", config.model.init)
    pipeline = OrbitPipeline.of_run(config, merge_lora(unet).eval(), base, frozen, scheduler, motion, orbit)
    partial = run / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    crash_point("pipeline_half")
    shutil.rmtree(run / "model", ignore_errors=True)
    os.replace(partial, run / "model")


@contextmanager
def stop_request() -> Iterator[Any]:
    """A function that says whether Ctrl-C or SIGTERM came: the loop stops after the step it is in.

    A second Ctrl-C stops at once; not within a second of the first, since a launcher passes on to its
    processes the signal that the terminal has sent them already. Signals belong to the main thread;
    elsewhere (Ray Train) nothing is caught.
    """
    asked = threading.Event()
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def ask(kind: int, frame: Any) -> None:
        nonlocal first
        if asked.is_set() and time.monotonic() - first > 1.0:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        asked.set()

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield asked.is_set
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice, on a GPU or (a plain RuntimeError) on the CPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in str(error) for w in words)


def out_of_memory(config: TrainConfig, run: Path, where: str) -> str:
    """One line on what to change."""
    o = config.optim
    hints, others = [], []
    if o.batch > 1:
        hints.append(f"optim.batch={o.batch // 2} (the effective batch stays {o.effective_batch})")
    if not o.checkpointing:
        hints.append("optim.checkpointing=true")
    if o.precision == "no":
        others.append("optim.precision=bf16")
    if o.optimizer != "adamw8bit":
        others.append("optim.optimizer=adamw8bit")
    if not o.lora:
        others.append("optim.lora=16")
    others.append("data.resolution or data.frames lower")
    if has_begun(run):
        # What it has learned so far is kept only under settings that do not change what is learned.
        go_on = f"try --resume --set {', or '.join(hints)}; or" if hints else "try"
        advice = f"{go_on} start another --out with --set {', or '.join(others)}"
    else:
        advice = f"try --set {', or '.join(hints + others)}"
    return f"out of memory {where}: {advice}; --dry-run estimates what fits"


def not_finite(config: TrainConfig, run: Path, step: int) -> str:
    """One line on what to change."""
    hints = [f"optim.lr={config.optim.lr / 3:.1e}"]
    if config.optim.precision == "fp16":
        hints.insert(0, "optim.precision=bf16")
    if not config.optim.clip:
        hints.insert(0, "optim.clip=1.0")
    last = run_checkpoint.latest(run)
    kept = f"the last good checkpoint is {last.name}" if last else "there is no checkpoint yet"
    return (
        f"the loss is not a number in step {step + 1} ({kept}): start another --out with --set "
        f"{', or '.join(hints)}"
    )
