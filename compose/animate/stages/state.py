"""Everything that changes during a run; how it goes to disk and comes back to the bit."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.compose.animate.settings import STAGES, Settings
from orbit4d.compose.animate.stages.clock import Clock
from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import WorkError
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.fitting.adam import Adam
from orbit4d.recon4d.gaussians import Gaussians


@dataclass
class Still:
    """A copy that nothing trains: what refine takes its conditions from."""

    gaussians: Gaussians
    field: Deformation


@dataclass
class State:
    """A run at a step of a stage."""

    stage: str
    gaussians: Gaussians
    field: Deformation
    adam: Adam
    generator: torch.Generator
    """Of t, noise and backgrounds."""
    rng: random.Random
    """Of times and cameras."""
    frozen: Still | None = None
    step: int = 0
    seconds: float = 0.0
    """In this stage, over all runs."""
    clock: Clock = field(default_factory=Clock)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is known of stages that ended."""
    calls: dict[str, int] = field(default_factory=dict)
    """Evaluations of priors before this process, by slot."""
    copy: dict[str, Any] | None = None
    """What a checkpoint holds of the trained copy of the video prior (`vsd`, `msd`)."""


def digest(gaussians: Gaussians, field: Deformation | None = None) -> str:
    """SHA-256, hex, of all tensors: what is frozen has one."""
    total = hashlib.sha256()
    tensors = [*gaussians.tensors().values()]
    tensors += [] if field is None else [*field.state_dict().values()]
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def generators(seed: int, stage: str) -> tuple[torch.Generator, random.Random]:
    """Those of a stage: a run that leaves a stage out draws the same in the others."""
    own = seed + STAGES.index(stage)
    return torch.Generator().manual_seed(own), random.Random(own)


def begin(
    stage: str, gaussians: Gaussians, deformation: Deformation, settings: Settings, seed: int,
    frozen: Still | None = None,
) -> State:  # fmt: skip
    """A stage at its first step."""
    generator, rng = generators(seed, stage)
    adam, leaves = _adam(stage, gaussians.detached(), deformation, settings)
    return State(stage, leaves, deformation, adam, generator, rng, frozen)


def trains_canonical(stage: str, settings: Settings) -> bool:
    """Whether a stage changes the canonical Gaussians."""
    return stage != "motion" or settings.canonical == "trained"


def _adam(
    stage: str, gaussians: Gaussians, deformation: Deformation, settings: Settings
) -> tuple[Adam, Gaussians]:
    """The optimiser of a stage, and the Gaussians as views of its array where they are trained."""
    shares = {"static": 1.0, "motion": settings.motion_canonical_rate, "refine": settings.canonical_rate}
    groups: list[tuple[str, float, list[Tensor]]] = []
    if trains_canonical(stage, settings):
        groups += [
            (name, shares[stage] * getattr(settings.rates, name), [tensor])
            for name, tensor in gaussians.tensors().items()
            if tensor.numel()
        ]
    if stage != "static":
        rate = settings.field_rate if stage == "motion" else settings.refine_field_rate
        groups.append(("field", rate, list(deformation.parameters())))
    adam = Adam(groups)
    adam.betas = settings.betas
    held = {k: adam.leaves[k][0] if k in adam.leaves else t for k, t in gaussians.tensors().items()}
    if stage != "static":
        for parameter, leaf in zip(deformation.parameters(), adam.leaves["field"]):
            parameter.data = leaf.data
        adam.leaves["field"] = list(deformation.parameters())
    return adam, Gaussians(**held)


def save_checkpoint(state: State, path: Path) -> None:
    """In one atomic put."""
    version, numbers, gauss = state.rng.getstate()
    frozen = state.frozen
    held = {
        "stage": state.stage,
        "step": state.step,
        "seconds": state.seconds,
        "spent": dict(state.clock.spent),
        "records": state.records,
        "calls": state.calls,
        "copy": state.copy,
        "gaussians": _tensors(state.gaussians),
        "field": _field(state.field),
        "adam": state.adam.record(),
        "generator": state.generator.get_state(),
        "rng": [version, list(numbers), gauss],
        "frozen": None if frozen is None else [_tensors(frozen.gaussians), _field(frozen.field)],
    }
    with replacing_file(path) as draft, open(draft, "wb") as file:
        torch.save(held, file)


def load_checkpoint(path: Path, settings: Settings, device: torch.device) -> State:
    """Inverse of `save_checkpoint`. WorkError for a damaged file."""
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
        field_of = _built(held["field"], device)
        gaussians = Gaussians(**held["gaussians"]).to(device)
        state = begin(held["stage"], gaussians, field_of, settings, 0)
        state.adam.restore(held["adam"])
        state.generator.set_state(held["generator"])
        version, numbers, gauss = held["rng"]
        state.rng.setstate((version, tuple(numbers), gauss))
        if held["frozen"] is not None:
            tensors, config = held["frozen"]
            state.frozen = Still(Gaussians(**tensors).to(device), _built(config, device))
        state.step, state.seconds = held["step"], held["seconds"]
        state.copy = held.get("copy")
        state.clock.spent, state.records, state.calls = held["spent"], held["records"], held["calls"]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError) as error:
        raise WorkError(f"{path}: damaged checkpoint ({error}); delete it to start again") from None
    return state


def _tensors(gaussians: Gaussians) -> dict[str, Tensor]:
    return {name: t.detach().cpu().clone() for name, t in gaussians.tensors().items()}


def _field(deformation: Deformation) -> dict[str, Any]:
    bound = deformation.bound_means
    return {
        "config": deformation.config,
        "tensors": {name: t.detach().cpu().clone() for name, t in deformation.state_dict().items()},
        "bound": None if bound is None else bound.cpu().clone(),
    }


def _built(record: dict[str, Any], device: torch.device) -> Deformation:
    built = build_field(record["config"])
    built.load_state_dict(record["tensors"])
    built.to(device)
    if record["bound"] is not None:
        built.bind(record["bound"].to(device))
    return built
