"""A run that is made longer: `train --resume` with more steps than RUN was started with.

    RUN/extended.json     one entry per extension: {"from_steps": 800, "to_steps": 1200}

The further steps are the last stage's; the stages before it are done and stay as they were. Learning rates
are those of the longer stage (learning_rate.py). Samples, noise and dropout hang on the number of the step,
and the last checkpoint holds the optimizer and the averaged weights, so at a constant rate the run goes
through the same losses as one that was started with as many steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.learning_rate import learning_rate
from orbit4d.model.config.settings import Stage, TrainConfig, check_same, from_dict
from orbit4d.model.run.checkpoint import State
from orbit4d.model.run.log import write_json


def settled(run: Path, saved: Mapping[str, Any], asked: TrainConfig, resume: bool) -> TrainConfig:
    """What a run that has begun continues with: `asked`, its stages as RUN has them or, when more steps are
    asked for, with a longer last stage.

    InputError for fewer steps, for any other setting than the run's, and for a run that is not to be resumed.
    """
    before = from_dict({k: saved[k] for k in ("stages", "views", "model") if k in saved}).stages
    old, new = (sum(stage.steps for stage in stages) for stages in (before, asked.stages))
    if not _lengths_alone_differ(before, asked.stages):
        stages = before  # refused below, as any other setting that differs
    elif new > old:
        stages = (*before[:-1], replace(before[-1], steps=before[-1].steps + new - old))
        asked = replace(asked, stages=stages)
    elif new == old and (before == asked.stages or _extensions(run)):
        stages, asked = before, replace(asked, stages=before)
    else:
        raise InputError(
            f"{run}: was started with {old} steps ({_listed(before)}), now asked for {new} "
            f"({_listed(asked.stages)}): give --steps {old}, more with --resume to extend it, or another "
            "--out"
        )
    written = {**saved, "stages": [asdict(stage) for stage in stages]}
    check_same(written, asked, str(run), init=_weights_of(run))
    if not resume:
        how = f"extend it to {new} steps" if new > old else "continue"
        start = f", with --init {run} to start from its weights" if _weights_of(run) else ""
        raise InputError(
            f"{run}: already holds a run of {old} steps: add --resume to {how}, or give another --out{start}"
        )
    if stages != before:
        _extend(run, written, asked, old)
    return asked


def start_of(state: State, config: TrainConfig) -> State:
    """Where a run continues from a checkpoint. A run that an older orbit4d finished says that all of its
    stages are done; when it was made longer since, it continues in its last one, with a new optimizer."""
    if state.stage < len(config.stages) or state.step >= config.total_steps:
        return state
    steps_before = sum(stage.steps for stage in config.stages[:-1])
    return replace(state, stage=len(config.stages) - 1, stage_step=state.step - steps_before)


def _extend(run: Path, written: dict[str, Any], config: TrainConfig, old: int) -> None:
    last, name = config.stages[-1], config.stages[-1].name
    new, had = config.total_steps, config.stages[-1].steps - (config.total_steps - old)
    # The record first: with it alone, the same command extends the run again.
    kept = [entry for entry in _extensions(run) if entry["to_steps"] <= old]
    write_json(run / "extended.json", {"extensions": [*kept, {"from_steps": old, "to_steps": new}]})
    write_json(run / "config.json", written)
    shorter = replace(last, steps=had)
    ended, goes_on = learning_rate(config, shorter, max(had - 1, 0)), learning_rate(config, last, had)
    print(
        f"extending {run} from {old} to {new} steps: its last stage ({name}) has {last.steps} where it had "
        f"{had}, at the {config.optim.schedule} rates of the longer stage ({ended:.3g} at step {had} of "
        f"{had}, {goes_on:.3g} at the next of {last.steps})",
        flush=True,
    )


def _lengths_alone_differ(one: tuple[Stage, ...], other: tuple[Stage, ...]) -> bool:
    return [replace(stage, steps=1) for stage in one] == [replace(stage, steps=1) for stage in other]


def _extensions(run: Path) -> list[dict[str, int]]:
    path = run / "extended.json"
    return json.loads(path.read_text(encoding="utf-8"))["extensions"] if path.exists() else []


def _weights_of(run: Path) -> str:
    """RUN, when it holds finished weights that `--init` takes."""
    return str(run) if (run / "model").exists() else ""


def _listed(stages: tuple[Stage, ...]) -> str:
    return ", ".join(f"{stage.name} {stage.steps}" for stage in stages)
