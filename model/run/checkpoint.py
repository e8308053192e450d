"""Checkpoints of a run: written whole or not at all.

RUN/checkpoints/step-000500/ holds model.safetensors, optimizer.pt, ema.safetensors, scaler.pt (fp16 only) and
state.json. The folder is filled under a name that starts with a dot, flushed to the disk, and renamed, so a
folder named step-* is always complete. No random state is stored: every step draws from a seed made of its
own number (training_clips.py, training/steps.py), and the sampler's position is the step.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_folder, write_json
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.core.remote import publish


@dataclass(frozen=True)
class State:
    """Where a run stands."""

    step: int
    """Optimizer steps done, over all stages."""
    stage: int
    """Number of the stage the next step belongs to."""
    stage_step: int
    """Steps done within that stage."""
    seconds: float
    """Wall time spent so far, over all sessions."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to continue."""

    state: State
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    ema: list[Tensor] | None
    ema_step: int
    scaler: dict[str, Any] | None


def folder_of(run: Path, step: int) -> Path:
    """RUN/checkpoints/step-<6 digits>."""
    return run / "checkpoints" / f"step-{step:06d}"


def save(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`. WorkError when the disk does not take it."""
    final = folder_of(run, checkpoint.state.step)
    try:
        with replacing_folder(final, durable=True) as draft:
            save_file({k: v.contiguous() for k, v in checkpoint.model.items()}, draft / "model.safetensors")
            crash_point("checkpoint_half")
            torch.save(checkpoint.optimizer, draft / "optimizer.pt")
            if checkpoint.ema is not None:
                save_file({f"{i:06d}": t for i, t in enumerate(checkpoint.ema)}, draft / "ema.safetensors")
            if checkpoint.scaler is not None:
                torch.save(checkpoint.scaler, draft / "scaler.pt")
            state = asdict(checkpoint.state) | {"ema_step": checkpoint.ema_step}
            write_json(draft / "state.json", state)
            crash_point("checkpoint_before_rename")
    except OSError as error:
        raise WorkError(
            f"{final}: the checkpoint could not be written ({error}): free space and --resume"
        ) from error
    crash_point("checkpoint_after_rename")
    for old in complete(run)[: -max(1, keep)]:
        shutil.rmtree(old, ignore_errors=True)
    publish(run)
    return final


def complete(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return naturally(p for p in (run / "checkpoints").glob("step-*") if (p / "state.json").is_file())


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint, None before the first."""
    found = complete(run)
    return found[-1] if found else None


def load(folder: Path, device: torch.device) -> Checkpoint:
    """Read a checkpoint back; WorkError when it is damaged, naming the folder to delete."""
    if device.type == "cpu":
        # One of several processes says "cpu:0", which safetensors does not know.
        device = torch.device("cpu")
    try:
        values = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        ema_step = values.pop("ema_step")
        ema_file, scaler_file = folder / "ema.safetensors", folder / "scaler.pt"
        ema = load_file(ema_file, device=str(device)) if ema_file.exists() else None
        return Checkpoint(
            state=State(**values),
            model=load_file(folder / "model.safetensors", device=str(device)),
            optimizer=torch.load(folder / "optimizer.pt", map_location=device, weights_only=True),
            ema=None if ema is None else [ema[k] for k in sorted(ema)],
            ema_step=ema_step,
            scaler=torch.load(scaler_file, weights_only=True) if scaler_file.exists() else None,
        )
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, TypeError, SafetensorError) as error:
        raise WorkError(
            f"{folder}: damaged checkpoint ({error}): delete that folder and --resume from the one before"
        ) from error
