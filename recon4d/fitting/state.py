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
    adam: torch.optim.Adam
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


def new_fit(gaussians: Gaussians, settings: Settings, seed: int, exposure: Exposure | None = None) -> Fit:
    """A fit at its first step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deformation = build_field(settings.deformation)
    leaves = _leaves(gaussians)
    adam = _adam(leaves, deformation, settings)
    return Fit(leaves, deformation, adam, generator, DensityState.empty(len(leaves)), exposure)


def _leaves(gaussians: Gaussians) -> Gaussians:
    return Gaussians(**{name: t.detach().clone().requires_grad_() for name, t in gaussians.tensors().items()})


def _adam(gaussians: Gaussians, deformation: Deformation, settings: Settings) -> torch.optim.Adam:
    rates = settings.rates
    groups: list[dict[str, Any]] = [
        {"params": [tensor], "lr": getattr(rates, name), "base": getattr(rates, name), "name": name}
        for name, tensor in gaussians.tensors().items()
        if tensor.numel()
    ]
    groups.append(
        {"params": list(deformation.parameters()), "lr": rates.field, "base": rates.field, "name": "field"}
    )
    return torch.optim.Adam(groups, eps=1e-15, fused=True)


@torch.no_grad()
def replace_gaussians(fit: Fit, grown: Gaussians, origin: Tensor) -> None:
    """Swap the Gaussians; survivors keep their moments in Adam, newcomers start with none."""
    leaves = _leaves(grown)
    for group in fit.adam.param_groups:
        if group["name"] == "field":
            continue
        old = group["params"][0]
        new = getattr(leaves, group["name"])
        state = fit.adam.state.pop(old, {})
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                moments = torch.zeros_like(new)
                moments[origin >= 0] = state[key][origin[origin >= 0]]
                state[key] = moments
        if state:
            fit.adam.state[new] = state
        group["params"] = [new]
    fit.gaussians = leaves
    fit.density = DensityState.empty(len(leaves))
    fit.field.bind(leaves.means)


def save_checkpoint(fit: Fit, path: Path) -> None:
    """Everything a resumed run needs, in one atomic put."""
    state = {
        "gaussians": {name: t.detach() for name, t in fit.gaussians.tensors().items()},
        "field": fit.field.state_dict(),
        "adam": fit.adam.state_dict(),
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
        fit.adam.load_state_dict(state["adam"])
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
