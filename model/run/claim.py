"""Whose RUN it is: one run's settings in RUN/config.json, one process at a time that trains in it.

A run owns its folder from its first step on. Until then (a start that failed for a mistyped --init or for
memory leaves no more than settings) any command may claim the folder again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path
from orbit4d.model.config.settings import TrainConfig, to_dict
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.extension import settled
from orbit4d.model.run.log import write_json

#: What a start leaves beside config.json that a start with other settings must not find.
_LEFT_BY_A_START = ("base", "wandb.json", "extended.json")


@contextmanager
def claimed(run: Path, config: TrainConfig, resume: bool) -> Iterator[TrainConfig]:
    """Make RUN, or check that it is the same run, and keep other processes out while the body runs. Gives the
    settings that the run has: those asked for, its stages as it was extended (extension.py).

    InputError for a run that another process is training, that has taken steps with other settings or
    without `resume`, and for a `resume` where no run was started.
    """
    path = local_path(run) / "config.json"
    if resume and not path.exists():
        raise InputError(f"{run}: holds no run to resume: leave --resume out to start one")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    except OSError as error:
        raise _unwritable(run, error) from error
    with lock:
        _keep_others_out(lock, run)
        if has_begun(run):
            config = settled(run, _settings(path), config, resume)
        else:
            _start(run, config)
        yield config


def has_begun(run: Path) -> bool:
    """Whether a step was taken in RUN: there is a line of log, a checkpoint, or a model."""
    log = run / "log.jsonl"
    if log.exists() and log.stat().st_size:
        return True
    return run_checkpoint.latest(run) is not None or (run / "model").exists()


def _start(run: Path, config: TrainConfig) -> None:
    path = run / "config.json"
    if path.exists():
        _settings(path)
    try:
        if path.exists():
            for name in _LEFT_BY_A_START:
                left = run / name
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        write_json(path, to_dict(config))
    except OSError as error:
        raise _unwritable(run, error) from error


def _settings(path: Path) -> dict[str, Any]:
    """Settings of the run at `path`; InputError for a config.json of something else, say of a model."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict) or not {"schema", "stages", "optim"} <= set(values):
        raise InputError(f"{path}: holds no settings of a run: give another --out")
    return values


def _keep_others_out(lock: Any, run: Path) -> None:
    """Take the lock until its file is closed. It belongs to this process alone (no loader worker that
    outlives a kill holds it on), and reaches other nodes where their file system passes locks on."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(
                f"{run}: another process is training there: wait for it, or give another --out"
            ) from error
        # A file system without locks: the run is worth more than the guard.


def _unwritable(run: Path, error: OSError) -> InputError:
    return InputError(f"{run}: cannot write there ({error.strerror}): give another --out")
