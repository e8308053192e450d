"""What to change when memory does not suffice or the loss is no number: one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.claim import has_begun

BESIDE_STEPS = "beside its steps (loading, validation, a checkpoint)"


@contextmanager
def memory_advice(config: TrainConfig, run: Path, where: str = BESIDE_STEPS) -> Iterator[None]:
    """Memory that does not suffice as WorkError; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise WorkError(out_of_memory(config, run, where)) from error


def check_finite(terms: Mapping[str, float], config: TrainConfig, run: Path, step: int) -> None:
    """WorkError when the loss of the step after `step` steps is not a number."""
    if not math.isfinite(terms["loss"]):
        raise WorkError(not_finite(config, run, step))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice, on a GPU or (a plain RuntimeError) on the CPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in str(error) for w in words)


def out_of_memory(config: TrainConfig, run: Path, where: str) -> str:
    """One line on what to change."""
    o = config.optim
    hints, others = [], []
    if isinstance(o.batch, int) and o.batch > 1:
        hints.append(f"optim.batch={o.batch // 2} (the effective batch stays {o.effective_batch})")
    if not o.checkpointing:
        hints.append("optim.checkpointing=true")
    elif o.recompute != "blocks":
        hints.append("optim.recompute=blocks")
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
