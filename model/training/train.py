"""The training loop, from top to bottom.

    orbit4d train DATASET --out RUN --preset tiny
    accelerate launch -m orbit4d.model.train_main DATASET --out RUN --preset videomv-image --init i2v.pth

RUN/config.json     the resolved settings
RUN/extended.json   when it was made longer (run/extension.py)
RUN/log.jsonl       one line per step (run/log.py)
RUN/samples/        clips sampled on the way
RUN/motion.json     statistics of motion
RUN/data.json       which clips it saw
RUN/checkpoints/    what --resume continues from (run/checkpoint.py)
RUN/base/           the frozen third branch of guidance
RUN/lora/           adapters of a LoRA run (run/adapters.py)
RUN/model/          the finished pipeline, for `orbit4d generate` and `OrbitPipeline.from_pretrained`

Nothing random depends on what came before: a sample's draws hang on its number, dropout on the number of the
step. A run that is killed and resumed therefore goes through the same losses, bit by bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbit4d.datasets.commands.interrupt import stop_request
from orbit4d.datasets.core.atomic import replacing_folder
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.index.index import Index
from orbit4d.model.compute.device import device_settings
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import trained_orbit
from orbit4d.model.network.build import make_trainable, merge_lora, save_folder
from orbit4d.model.run.adapters import save_adapters
from orbit4d.model.sampling.pipeline import OrbitPipeline
from orbit4d.model.sampling.views_model import ViewsModel, ViewsRecord
from orbit4d.model.training.advice import memory_advice
from orbit4d.model.training.plan import check_batch, settled
from orbit4d.model.training.record import RunRecord
from orbit4d.model.training.stages import (
    Parts,
    Position,
    StageState,
    calibrate,
    claim_run,
    halved,
    load_parts,
    open_accelerator,
    open_stage,
    resume_point,
    trainable,
    write_facts,
)
from orbit4d.model.training.steps import (
    averaged,
    maybe_checkpoint,
    optimizer_step,
    validate,
    write_checkpoint,
)


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
    with memory_advice(config, run), device_settings(config.optim), ExitStack() as held:
        accelerator = open_accelerator(config)
        # What is wrong with either is refused before the run's folder is made.
        check_batch(config, accelerator.num_processes)
        Index(dataset)
        config = settled(claim_run(config, run, resume, accelerator, held), accelerator)

        parts = load_parts(config, dataset, accelerator, allow_missing)
        write_facts(parts, config, dataset, run)
        calibrate(parts, config)
        if config.synchronised:
            if config.optim.checkpointing:
                parts.unet.enable_gradient_checkpointing()
        else:
            make_trainable(parts.unet, config)
        checkpoint, start = resume_point(parts, config, run, resume)
        parts = halved(parts, config)
        record = None
        if accelerator.is_main_process:
            record = RunRecord(dataset, config, run, start.step, trackers)

        position = Position.of(start)
        with stop_request("interrupt") as stop:
            while position.stage < len(config.stages):
                state = open_stage(parts, config, position, checkpoint)
                checkpoint = None  # the first stage of the session alone continues from it
                run_stage(state, parts, config, run, position, record, stop.is_set)
                finish_stage(state, parts, config, run, position)

        if record is not None:
            record.close()
            save_pipeline(parts, config, run)
        accelerator.wait_for_everyone()
        return run / "model"


def run_stage(
    state: StageState,
    parts: Parts,
    config: TrainConfig,
    run: Path,
    position: Position,
    record: RunRecord | None,
    stopping: Callable[[], bool],
) -> None:
    """The steps of a stage that are left. KeyboardInterrupt when `stopping` says so, after a checkpoint."""
    stage = state.stage
    while position.done < stage.steps:
        begin = time.monotonic()
        result = optimizer_step(state, parts, config, run, position)
        position.step, position.done = position.step + 1, position.done + 1
        row: dict[str, Any] = {"step": position.step, "stage": stage.name, **result.terms}
        row |= {"lr": state.optimizer.param_groups[0]["lr"], "grad_norm": result.grad_norm}
        row |= {"seconds": position.seconds, "step_seconds": time.monotonic() - begin}
        row |= {"data_wait": result.data_wait}
        held_out = validate(state, parts, config, position)
        if held_out is not None:
            row["val_loss"] = held_out
        if record is not None:
            at_end = position.done == stage.steps
            record.write(row, parts, at_end, averaged(state.ema, parts.unet))
        crash_point("train_step_done")
        maybe_checkpoint(state, parts, config, run, position, stopping())
        parts.accelerator.wait_for_everyone()


def finish_stage(state: StageState, parts: Parts, config: TrainConfig, run: Path, position: Position) -> None:
    """Keep what the stage came to, and move `position` to the next one."""
    accelerator = parts.accelerator
    at_end = position.stage + 1 == len(config.stages)
    if at_end and position.step > position.session_start:
        # Whole, with the weights that were not averaged, so that the run can be extended.
        write_checkpoint(parts, config, run, position, state)
    # The next stage, and the finished model, start from the averaged weights.
    if state.ema is not None:
        state.ema.copy_to(trainable(parts.unet))
    if not at_end:
        accelerator.free_memory()
    if accelerator.is_main_process and state.stage.name == "static":
        save_folder(parts.unet, run / "base")
    position.stage, position.done = position.stage + 1, 0
    if not at_end:
        write_checkpoint(parts, config, run, position, None)
    accelerator.wait_for_everyone()


def save_pipeline(parts: Parts, config: TrainConfig, run: Path) -> None:
    """RUN/model, from the trained network, the frozen base, and the parts around them."""
    if config.synchronised:
        with replacing_folder(run / "model", alone=True) as draft:
            views_model(parts, config).save(draft)
            crash_point("pipeline_half")
        return
    unet = parts.unet
    base = type(unet).from_pretrained(run / "base") if (run / "base").exists() else None
    if config.optim.lora:
        save_adapters(unet, run / "lora", config.model.init)
    pipeline = OrbitPipeline.of_run(
        config,
        merge_lora(unet).eval(),
        base,
        parts.frozen,
        parts.scheduler,
        parts.motion,
        trained_orbit(parts.clips),
    )
    with replacing_folder(run / "model", alone=True) as draft:
        pipeline.save_pretrained(draft)
        crash_point("pipeline_half")


def views_model(parts: Parts, config: TrainConfig) -> ViewsModel:
    """What `orbit4d multicam` samples with, of a run on synchronised views."""
    data, sample = config.data, config.sample
    record = ViewsRecord(
        config.model.base,
        asdict(parts.frozen.spec),
        frames=data.frames,
        size=(config.views.width or data.resolution, data.resolution),
        fps=data.fps,
        steps=sample.steps,
        shift=config.views.shift,
        schedule=config.model.schedule,
        prediction=config.model.prediction,
        metres_per_unit=config.views.metres_per_unit,
        caption_affixes=(data.caption_prefix, data.caption_suffix),
        reference=config.views.reference > 0,
        views=config.views.count,
        motion=parts.motion.to_dict() if config.views.motion else None,
    )
    return ViewsModel(parts.unet.eval(), parts.frozen, record, config.preset)
