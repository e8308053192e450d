"""What a user asked for, checked before anything is loaded or written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from orbit4d.compose.animate.priors.opening import ANALYTIC
from orbit4d.compose.animate.priors.slots import NONE, asked_with, copy_of
from orbit4d.compose.animate.settings import (
    DEFAULT_PRIORS,
    LEARNED_STEPS,
    PRESETS,
    SLOTS,
    STAGES,
    Settings,
)
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.scores.text import WORD

#: Resolution of renders that learned priors see, where none is asked for.
LEARNED_RESOLUTION = 128
#: What is added to prompts (HeliosZhao/Animate124).
MOTION_WORDS, STATIC_WORDS = ", high-resolution, 8k, good quality", ", 8k, good quality"
_RUN = "run:"


@dataclass(frozen=True)
class Request:
    """One run of `orbit4d animate`."""

    out: Path
    image: str = ""
    text: str = ""
    static: str = ""
    via: Literal["distill", "generate"] | None = None
    run: str = ""
    preset: str = "ours"
    stages: str = ""
    priors: dict[str, str] = field(default_factory=dict)
    """Spec by slot, where one is named."""
    prompts: dict[str, str] = field(default_factory=dict)
    """"static", "refine" and "negative", where given."""
    token: str = ""
    estimator: str = "sds"
    weights: str = ""
    """`--lambda`: video=40,tile=160"""
    canonical: str = ""
    frames: int | None = None
    resolution: int | None = None
    steps: str = ""
    elevation: float = 0.0
    matte: str = "flat"
    oversample: bool = True
    motion: str = ""
    seed: int = 1
    device: str = "auto"
    two_pass: str = "auto"
    offload: str = "none"
    dry_run: bool = False
    threads: int | None = None
    guidance_every: int | None = None
    checkpoint_seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """A request that can be served."""

    request: Request
    settings: Settings
    specs: dict[str, str]
    """By slot; "none" where it stays empty."""
    stages: tuple[str, ...]
    prompts: dict[str, str]
    frames_given: bool
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What two runs in one folder must share."""
        settings = self.settings.as_config()
        for neutral in ("checkpoint_seconds", "guidance_every"):
            settings.pop(neutral)
        if copy_of("video", self.specs["video"], self.settings) is None:
            settings.pop("lora")
        if self.settings.canonical == "frozen":
            settings.pop("motion_canonical_rate")
        return {
            "settings": settings,
            "priors": self.specs,
            "prompts": self.prompts,
            "seed": self.request.seed,
            "image": _digest(self.request.image),
            "static": self.request.static,
            "token": _digest(self.request.token),
            "via": self.request.via or "distill",
            "run": self.request.run,
        }


def plan(request: Request) -> Plan:
    """Check a request. InputError, one line, for what cannot be served."""
    if request.preset not in PRESETS:
        raise InputError(f"--preset {request.preset}: choose from {', '.join(PRESETS)}")
    request = _route(request)
    specs = _specs(request)
    settings = asked_with(PRESETS[request.preset], request.estimator, weights_of(request.weights))
    settings = _changed(settings, request, specs)
    stages = stages_of(request, settings, specs)
    _check_content(request, specs, stages)
    prompts, notes = _prompts(request, specs)
    return Plan(request, settings, specs, stages, prompts, request.frames is not None, notes)


def _route(request: Request) -> Request:
    """`--via` decided: generate is the default where a run is given and no prior is."""
    named = any(spec != NONE for spec in request.priors.values())
    if request.via is None and request.run and not named:
        request = replace(request, via="generate")
    if request.via == "generate":
        if not request.run:
            raise InputError("--via generate: needs --run, a finished run of `orbit4d train`")
        if request.priors.get("video", NONE) != NONE:
            raise InputError(
                "--via generate makes the video with --run and asks no video prior: leave --prior-video out, "
                "or choose --via distill"
            )
    elif request.run and "video" not in request.priors:
        request = replace(request, priors={**request.priors, "video": f"{_RUN}{request.run}"})
    return request


def _specs(request: Request) -> dict[str, str]:
    specs = dict.fromkeys(SLOTS, NONE)
    if not request.priors and not request.run:
        specs |= DEFAULT_PRIORS[request.preset]
    specs |= request.priors
    if request.static:
        specs["2d"] = request.priors.get("2d", NONE)
    return specs


def weights_of(text: str) -> dict[str, float]:
    """`video=40,tile=160` as numbers. InputError for anything else."""
    found = {}
    for part in filter(None, text.split(",")):
        slot, equals, number = part.partition("=")
        try:
            found[slot.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--lambda {text}: write SLOT=NUMBER with commas, such as video=40,tile=160")
    return found


def _changed(settings: Settings, request: Request, specs: dict[str, str]) -> Settings:
    """The preset with what the request says otherwise."""
    learned = any(not spec.startswith(ANALYTIC) for spec in specs.values() if spec != NONE)
    changes: dict[str, Any] = {"elevation": request.elevation}
    if learned and request.preset == "ours":
        changes |= {"steps": LEARNED_STEPS, "resolution": LEARNED_RESOLUTION}
    if request.steps:
        try:
            numbers = tuple(int(part) for part in request.steps.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3:
            raise InputError(f"--steps {request.steps}: give three numbers, of static, motion and refine")
        changes["steps"] = numbers
    if request.canonical:
        if request.canonical not in ("frozen", "trained"):
            raise InputError(f"--canonical {request.canonical}: choose frozen or trained")
        changes["canonical"] = request.canonical
    if not request.oversample:
        changes |= {"zero_rate": 0.0, "mirror": 0.0}
    for name in ("frames", "resolution", "guidance_every", "checkpoint_seconds"):
        if (value := getattr(request, name)) is not None:
            changes[name] = value
    return replace(settings, **changes)


def stages_of(request: Request, settings: Settings, specs: dict[str, str]) -> tuple[str, ...]:
    """The stages to run. InputError for an unknown one, or none that can run."""
    named = tuple(filter(None, request.stages.split(","))) or STAGES
    for name in named:
        if name not in STAGES:
            raise InputError(f"--stages {request.stages}: choose from {', '.join(STAGES)}")
    asked = [stage for stage in STAGES if stage in named]
    needs = {"motion": "video", "refine": "tile"}
    for stage in asked:
        slot = needs.get(stage)
        if request.stages and slot and specs[slot] == NONE and request.via != "generate":
            raise InputError(f"--stages {request.stages}: {stage} needs --prior-{slot}")
    if request.static and "static" in asked:
        asked.remove("static")
    if request.via == "generate":
        asked = [stage for stage in asked if stage == "refine"]
    kept = [
        stage
        for stage, steps in zip(STAGES, settings.steps)
        if stage in asked and steps > 0 and specs.get(needs.get(stage, ""), "") != NONE
    ]
    if "static" in kept and specs["2d"] == NONE and specs["3d"] == NONE:
        raise InputError(
            "stage static needs --prior-2d or --prior-3d, or --static to start from a still object"
        )
    if not kept and request.via != "generate":
        raise InputError("nothing is to be done: no stage has both steps and a prior; see --prior-video")
    return tuple(kept)


def _check_content(request: Request, specs: dict[str, str], stages: tuple[str, ...]) -> None:
    """What a run is about must be given, unless the priors know the object."""
    learned = {slot: spec for slot, spec in specs.items() if spec != NONE and not spec.startswith(ANALYTIC)}
    known = any(spec.startswith(ANALYTIC) for spec in specs.values())
    if not request.image and not request.static and not known:
        raise InputError("give an IMAGE (or --static, a still object to start from)")
    reads_text = any(not spec.startswith(_RUN) for slot, spec in learned.items() if slot != "3d")
    if reads_text and stages and not request.text.strip():
        raise InputError('the motion text is empty: say what happens, such as "a panda is dancing"')


def _prompts(request: Request, specs: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Prompts by stage, and warnings. InputError for a learned word without its file."""
    text = request.text.strip()
    asked = {name: value for name, value in request.prompts.items() if value}
    prompts = {
        "static": asked.get("static", text) + STATIC_WORDS if text or "static" in asked else "",
        "motion": text + MOTION_WORDS if text else "",
        "refine": asked.get("refine", text + MOTION_WORDS if text else ""),
        "negative": asked.get("negative", ""),
    }
    words = sorted({word for prompt in prompts.values() for word in WORD.findall(prompt)})
    if words and not request.token:
        raise InputError(f"{words[0]} in a prompt is a learned word: give its file with --token")
    reader = specs["video"]
    in_motion = WORD.findall(prompts["motion"])
    if in_motion and reader != NONE and not reader.startswith((ANALYTIC, _RUN)):
        raise InputError(
            f"{in_motion[0]} in the motion text: --prior-video {reader} reads it and has another text model "
            "than the word; say it in --prompt-static or --prompt-refine alone"
        )
    if not request.token:
        return prompts, ()
    if not Path(request.token).is_file():
        raise InputError(f"--token {request.token}: no such file; make one with `orbit4d animate token`")
    if words:
        return prompts, ()
    return prompts, (f"warning: --token {request.token} is not used: no prompt names a word like <token>",)


def _digest(path: str) -> str:
    """SHA-256, hex, of a file; "" for none. InputError where it cannot be read."""
    if not path:
        return ""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
