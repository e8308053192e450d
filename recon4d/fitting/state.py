"""The state of a run: Gaussians, field, gains, Adam, random draws; how it goes to disk and comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.remote import publish
from orbit4d.recon4d.deformation.field import Deformation, build_field
from orbit4d.recon4d.fitting.adam import Adam
from orbit4d.recon4d.fitting.density import DensityState
from orbit4d.recon4d.fitting.exposure import Exposure
from orbit4d.recon4d.fitting.passes import Passes
from orbit4d.recon4d.fitting.settings import Settings
from orbit4d.recon4d.gaussians import Gaussians


@dataclass
class Fit:
    """Everything that changes during a run; what a checkpoint holds."""

    gaussians: Gaussians
    field: Deformation
    adam: Adam
    """Whose flat array the tensors of `gaussians` and `field` are views of."""
    generator: torch.Generator
    density: DensityState
    exposure: Exposure | None = None
    """Gains of the training views, where they are fitted."""
    stage: str = "coarse"
    step: int = 0
    """Steps done in the stage."""
    seconds: float = 0.0
    """Time spent, over all runs."""
    passes: Passes = field(default_factory=Passes)
    """Losses of the views, in this stage and at this resolution."""
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[Any, Any] = field(default_factory=dict)
    """Buffers of the steps, made anew when a run resumes."""


def new_fit(gaussians: Gaussians, settings: Settings, seed: int, exposure: Exposure | None = None) -> Fit:
    """A fit at its first step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deformation = build_field(settings.deformation)
    adam = _adam(gaussians, deformation, settings)
    leaves = _leaves(gaussians, adam)
    return Fit(leaves, deformation, adam, generator, DensityState.empty(len(leaves)), exposure)


def _leaves(gaussians: Gaussians, adam: Adam) -> Gaussians:
    """The Gaussians as views of Adam's array; what has no numbers stays as it is."""
    held = {
        name: adam.leaves[name][0] if name in adam.leaves else t for name, t in gaussians.tensors().items()
    }
    return Gaussians(**held)


def _adam(gaussians: Gaussians, deformation: Deformation, settings: Settings) -> Adam:
    groups = [
        (name, getattr(settings.rates, name), [tensor])
        for name, tensor in gaussians.tensors().items()
        if tensor.numel()
    ]
    adam = Adam([*groups, ("field", settings.rates.field, list(deformation.parameters()))])
    _bind_field(adam, deformation)
    return adam


def _bind_field(adam: Adam, deformation: Deformation) -> None:
    """Make the field's parameters views of Adam's array."""
    for parameter, leaf in zip(deformation.parameters(), adam.leaves["field"]):
        parameter.data = leaf.data
    adam.leaves["field"] = list(deformation.parameters())


@torch.no_grad()
def replace_gaussians(fit: Fit, grown: Gaussians, origin: Tensor) -> None:
    """Swap the Gaussians; survivors keep their moments in Adam, newcomers start with none."""
    old = fit.adam
    groups = [
        (name, group.base, [getattr(grown, name)]) for name, group in old.groups.items() if name != "field"
    ]
    adam = Adam([*groups, ("field", old.groups["field"].base, old.leaves["field"])])
    kept = origin >= 0
    for name, group in old.groups.items():
        adam.groups[name].rate, adam.groups[name].updates = group.rate, group.updates
        for before, after in ((old.first, adam.first), (old.second, adam.second)):
            if name == "field":
                adam.part(after, name).copy_(old.part(before, name))
                continue
            shape = (-1, *getattr(grown, name).shape[1:])
            adam.part(after, name).view(shape)[kept] = old.part(before, name).view(shape)[origin[kept]]
    _bind_field(adam, fit.field)
    fit.adam, fit.gaussians = adam, _leaves(grown, adam)
    fit.density = DensityState.empty(len(fit.gaussians))
    fit.kept.clear()
    fit.field.bind(fit.gaussians.means)


def save_checkpoint(fit: Fit, path: Path) -> None:
    """Everything a resumed run needs, in one atomic put."""
    state = {
        "gaussians": {name: t.detach() for name, t in fit.gaussians.tensors().items()},
        "field": fit.field.state_dict(),
        "adam": fit.adam.record(),
        "generator": fit.generator.get_state(),
        "density": {"gradient": fit.density.gradient, "seen": fit.density.seen},
        "bound": fit.field.bound_means,
        "exposure": fit.exposure.record() if fit.exposure is not None else None,
        "plain": {
            "stage": fit.stage,
            "step": fit.step,
            "seconds": fit.seconds,
            "passes": fit.passes.record(),
            "history": fit.history,
        },
    }
    # By a handle: torch writes a path's name into the file, and the draft's is random.
    with replacing_file(path) as draft, open(draft, "wb") as file:
        torch.save(state, file)
    publish(path.parent)


def load_checkpoint(path: Path, settings: Settings, exposure: Exposure | None = None) -> Fit:
    """Inverse of `save_checkpoint`. Raises WorkError for a damaged file."""
    try:
        state = torch.load(path, weights_only=True)
        fit = new_fit(Gaussians(**state["gaussians"]), settings, 0, exposure)
        if exposure is not None:
            exposure.restore(state["exposure"])
        fit.field.load_state_dict(state["field"])
        fit.adam.restore(state["adam"])
        fit.generator.set_state(state["generator"])
        fit.density = DensityState(**state["density"])
        if state["bound"] is not None:
            fit.field.bind(state["bound"])
        plain = state["plain"]
        fit.stage, fit.step, fit.seconds = plain["stage"], plain["step"], plain["seconds"]
        fit.passes, fit.history = Passes.from_record(plain["passes"]), plain["history"]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError) as error:
        raise WorkError(f"{path}: damaged checkpoint ({error}); delete it to start anew") from None
    return fit
