"""The state of a run: Gaussians, field, gains, Adam, random draws; how it goes to disk and comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.remote import publish
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import Deformation, hidden_matrices
from orbit4d.recon4d.fitting.adam import Adam
from orbit4d.recon4d.fitting.density import DensityState
from orbit4d.recon4d.fitting.exposure import Exposure
from orbit4d.recon4d.fitting.passes import Passes
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.graphs import Capture, cuda_capture


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
    restarts: list[int] = field(default_factory=list)
    """Fine steps at which the field had thrown the object out of all views, and was begun anew."""
    pending: list[Any] = field(default_factory=list)
    """What steps gave that was not read from the device yet; see `optimize.read_pending`."""
    capture: Capture | None = None
    """Records CUDA graphs where the fit is on a GPU."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """Buffers of the steps, made anew when a run resumes."""


def new_fit(
    gaussians: Gaussians, settings: ReconstructionSettings, seed: int, exposure: Exposure | None = None,
    device: torch.device | str = "cpu",
) -> Fit:  # fmt: skip
    """A fit at its first step, on a device. What is drawn by chance does not depend on it."""
    device = torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deformation = build_field(_sized(settings, len(gaussians))).to(device)
    gaussians = gaussians.to(device)
    adam = _adam(gaussians, deformation, settings)
    leaves = _leaves(gaussians, adam)
    seen = DensityState.empty(len(leaves), device)
    capture = cuda_capture if device.type == "cuda" else None
    return Fit(leaves, deformation, adam, generator, seen, exposure, capture=capture)


def _sized(settings: ReconstructionSettings, n: int) -> dict[str, Any]:
    """The config of the field; one that has a row for each Gaussian is told their number."""
    config = settings.deformation
    if config["kind"] != "residual":
        return config
    if settings.density.every:
        raise InputError("a residual field moves a fixed number of Gaussians: leave density.every at 0")
    return {**config, "rows": n}


def _leaves(gaussians: Gaussians, adam: Adam) -> Gaussians:
    """The Gaussians as views of Adam's array; what has no numbers stays as it is."""
    held = {
        name: adam.leaves[name][0] if name in adam.leaves else t for name, t in gaussians.tensors().items()
    }
    return Gaussians(**held)


def _adam(gaussians: Gaussians, deformation: Deformation, settings: ReconstructionSettings) -> Adam:
    groups = [
        (name, getattr(settings.rates, name), [tensor])
        for name, tensor in gaussians.tensors().items()
        if tensor.numel()
    ]
    field = ("field", settings.rates.field, list(deformation.parameters()))
    adam = Adam([*groups, field], settings.views_per_step)
    adam.orthogonalise("field", hidden_matrices(deformation), settings.rates.hidden)
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
    adam.betas = old.betas
    adam.orthogonalise("field", hidden_matrices(fit.field), old.groups["field"].muon)
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
    fit.density = DensityState.empty(len(fit.gaussians), fit.gaussians.means.device)
    fit.kept.clear()
    fit.field.bind(fit.gaussians.means)


@torch.no_grad()
def restart_field(fit: Fit, settings: ReconstructionSettings) -> None:
    """Begin the field anew from other random weights; the Gaussians and its nodes stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=fit.generator)))
        fresh = build_field(_sized(settings, len(fit.gaussians)))
    for parameter, start in zip(fit.field.parameters(), fresh.parameters()):
        parameter.copy_(start)
    for moments in (fit.adam.first, fit.adam.second):
        fit.adam.part(moments, "field").zero_()
    fit.adam.groups["field"].updates = 0
    fit.field.bind(fit.gaussians.means)
    fit.restarts.append(fit.step)
    fit.passes = Passes()


def save_checkpoint(fit: Fit, path: Path) -> None:
    """Everything a resumed run needs, on whatever device, in one atomic put."""
    state = {
        "gaussians": {name: t.detach().cpu().clone() for name, t in fit.gaussians.tensors().items()},
        "field": {name: t.cpu().clone() for name, t in fit.field.state_dict().items()},
        "adam": fit.adam.record(),
        "generator": fit.generator.get_state(),
        "density": {"gradient": fit.density.gradient.cpu(), "seen": fit.density.seen.cpu()},
        "bound": None if fit.field.bound_means is None else fit.field.bound_means.cpu(),
        "exposure": fit.exposure.record() if fit.exposure is not None else None,
        "plain": {
            "stage": fit.stage,
            "step": fit.step,
            "seconds": fit.seconds,
            "passes": fit.passes.record(),
            "history": fit.history,
            "restarts": fit.restarts,
        },
    }
    # By a handle: torch writes a path's name into the file, and the draft's is random.
    with replacing_file(path) as draft, open(draft, "wb") as file:
        torch.save(state, file)
    publish(path.parent)


def load_checkpoint(
    path: Path,
    settings: ReconstructionSettings,
    exposure: Exposure | None = None,
    device: torch.device | str = "cpu",
) -> Fit:
    """Inverse of `save_checkpoint`, on any device. Raises WorkError for a damaged file."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        fit = new_fit(Gaussians(**state["gaussians"]), settings, 0, exposure, device)
        if exposure is not None:
            exposure.restore(state["exposure"])
        fit.field.load_state_dict(state["field"])
        fit.adam.restore(state["adam"])
        fit.generator.set_state(state["generator"])
        fit.density = DensityState(**{name: t.to(device) for name, t in state["density"].items()})
        if state["bound"] is not None:
            fit.field.bind(state["bound"].to(device))
        plain = state["plain"]
        fit.stage, fit.step, fit.seconds = plain["stage"], plain["step"], plain["seconds"]
        fit.passes, fit.history = Passes.from_record(plain["passes"]), plain["history"]
        fit.restarts = plain.get("restarts", [])
    except (
        OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError, AttributeError, IndexError,
        UnpicklingError,
    ) as error:  # fmt: skip
        why = " ".join(str(error).split())[:200]
        raise WorkError(f"{path}: damaged checkpoint ({why}); delete it to start anew") from None
    return fit
