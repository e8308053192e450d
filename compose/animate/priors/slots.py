"""Which prior fills which slot: specs checked, models loaded, and a line about each. Nothing is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orbit4d.compose.animate.priors.opening import ANALYTIC, analytic_score, split_spec
from orbit4d.compose.animate.priors.truth import Truth, open_truth
from orbit4d.compose.animate.settings import SLOTS, Distilling, Lora, Settings
from orbit4d.compose.animate.stages.asking import Slot
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.distill.cost import cpu_step
from orbit4d.model.distill.estimators import ESTIMATORS
from orbit4d.model.distill.lora import LoraCopy
from orbit4d.model.distill.scores.loading import load_score, register_analytic
from orbit4d.model.distill.scores.published import known

NONE = "none"
#: Estimators that take the difference to a second model.
TWO_MODELS = ("vsd", "msd")
register_analytic(analytic_score)
#: What a slot's absence means.
_WITHOUT = {
    "2d": "none",
    "3d": "none",
    "video": "none, stage 2 is not run",
    "tile": "none, stage 3 is not run",
}
NOT_LEARNED = "not a learned prior: results say nothing about real images"


def check_device(specs: Mapping[str, str], device: str, asked: str) -> list[str]:
    """What a step of each published model takes on a CPU that was asked for.

    InputError for one on a CPU that nobody asked for.
    """
    notes = []
    for name, spec in specs.items():
        if device != "cpu" or (facts := known(spec)) is None:
            continue
        if asked == "auto":
            raise InputError(
                f"--prior-{name} {spec}: there is no GPU, and a step of {facts[0]} takes "
                f"{cpu_step(facts[0])} on this CPU; give --device cpu to run it all the same"
            )
        notes.append(f"prior {name}: a step of {facts[0]} takes {cpu_step(facts[0])} on this CPU")
    return notes


def licence_notes(specs: Mapping[str, str]) -> list[str]:
    """The licence of each published prior that is used."""
    notes = []
    for spec in dict.fromkeys(specs.values()):
        if (facts := known(spec)) is not None:
            limit = "" if facts[1].commercial else ", non-commercial use only"
            notes.append(
                f"weights {facts[0]}: licence {facts[1].licence}{limit}; check it before you use them"
            )
    return notes


def open_truths(specs: Mapping[str, str]) -> dict[str, Truth]:
    """Known scenes by path, each opened once."""
    paths = {split_spec(spec)[0] for spec in specs.values() if spec.startswith(ANALYTIC)}
    return {path: open_truth(path) for path in sorted(paths)}


def asked_with(settings: Settings, estimator: str, weights: Mapping[str, float]) -> Settings:
    """The settings with another estimator of the video prior, and other weights. InputError for unknown
    ones."""
    if estimator not in ESTIMATORS:
        raise InputError(f"--estimator {estimator}: {or_known(estimator, ESTIMATORS)}")
    distilling = dict(settings.distilling)
    for slot, weight in weights.items():
        if slot not in SLOTS:
            raise InputError(f"--lambda {slot}={weight:g}: {or_known(slot, SLOTS)}")
        distilling[slot] = replace(distilling[slot], weight=weight)
    if estimator != distilling["video"].estimator:
        changed: dict[str, Any] = {"estimator": estimator}
        if estimator == "ism":
            changed |= {"scale": 7.5, "form": "from_uncond", "t_range": (0.02, 0.5)}
        if estimator == "vsd":
            changed |= {"scale": 7.5}
        distilling["video"] = replace(distilling["video"], **changed)
    return replace(settings, distilling=distilling)


def copy_of(name: str, spec: str, settings: Settings) -> Lora | None:
    """How the second model of a slot is trained; None where it has none, or one in closed form."""
    learned = spec != NONE and not spec.startswith(ANALYTIC)
    trained = name == "video" and learned and settings.distilling[name].estimator in TWO_MODELS
    return settings.lora if trained else None


def load_slots(
    specs: Mapping[str, str], settings: Settings, truths: Mapping[str, Truth], lens: Camera,
    token: str | None = None, device: str = "cpu", two_pass: bool = True, seed: int = 1,
) -> dict[str, Slot]:  # fmt: skip
    """The slots that are filled. InputError, naming the option, for a prior that cannot be loaded."""
    slots: dict[str, Slot] = {}
    for name in SLOTS:
        spec = specs.get(name, NONE)
        if spec == NONE:
            continue
        asked = settings.distilling[name]
        try:
            model = _loaded(spec, name, truths, lens, token, device)
            slot = Slot(name, spec, model, asked, two_pass=two_pass)
            if name == "video":
                _second(slot, truths, lens, settings, seed)
        except InputError as error:
            raise InputError(f"--prior-{name}: {error}") from error
        slots[name] = slot
    return slots


def _loaded(
    spec: str, name: str, truths: Mapping[str, Truth], lens: Camera, token: str | None, device: str
) -> Any:
    if spec.startswith(ANALYTIC):
        return analytic_score(spec, name, truths[split_spec(spec)[0]], lens)
    return load_score(spec, name, device=device, token=token if name in ("2d", "tile") else None)


def _second(slot: Slot, truths: Mapping[str, Truth], lens: Camera, settings: Settings, seed: int) -> None:
    """The second model of `msd` and `vsd`: closed forms have one, a network is adapted in the run."""
    if slot.asked.estimator not in TWO_MODELS:
        return
    if slot.model.kind != "analytic":
        slot.copy = LoraCopy(slot.model, settings.lora.rank, settings.lora.rate, seed)
    elif slot.asked.estimator == "msd":
        slot.still = analytic_score(slot.spec, "still", truths[split_spec(slot.spec)[0]], lens)


def describe(name: str, spec: str, model: Any, asked: Distilling, copy: Lora | None = None) -> str:
    """The line that a run prints about a slot; `model` None: it is not loaded yet; `copy`: how its second
    model is trained."""
    if spec == NONE:
        return f"prior {name}: {_WITHOUT[name]}"
    kind = getattr(model, "kind", None) or ("analytic" if spec.startswith(ANALYTIC) else "not loaded")
    source = getattr(model, "source", spec)
    where = spec if kind in ("analytic", "not loaded") or source == spec else f"{spec}, {source}"
    unguided = model is not None and not getattr(model, "unconditional", True)
    guidance = "unguided" if unguided else f"{asked.form} {asked.scale:g}"
    t = f"t {asked.t_range[0]:g}-{asked.t_range[1]:g}"
    by_angle = " x angle/180" if asked.by_angle else ""
    short = getattr(model, "name", spec.partition(":")[0])
    line = f"prior {name}: {short} ({kind}, {where}), {asked.estimator} {guidance}, {t}, weight "
    line += f"{asked.weight:g}{by_angle}"
    if copy is not None:
        line += f", its second model a LoRA of rank {copy.rank} trained on renders at rate {copy.rate:g}"
    return f"{line}; {NOT_LEARNED}" if kind in ("analytic", "random") else line


def record_of(slot: Slot, before: int = 0) -> dict[str, Any]:
    """What is stored of a slot; `before` are calls of earlier processes."""
    record = {
        "spec": slot.spec,
        "kind": slot.model.kind,
        "source": getattr(slot.model, "source", slot.spec),
        "calls": before + slot.model.calls,
    }
    if (copy := slot.copy) is not None:
        record["lora"] = {"rank": copy.rank, "steps": copy.steps, "loss": copy.loss if copy.steps else None}
    return record
