"""What a training run is made of: frozen settings, saved as RUN/config.json beside everything it made.

Defaults stand here and nowhere else; `presets.py` holds the named deviations. A run is resumed only with
the configuration it was started with, and the first differing key is named.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.config.checks import WORDS, check_values

SCHEMA = 1


@dataclass(frozen=True)
class ModelSettings:
    """The network, and the frozen parts around it."""

    base: str = "unet"
    """"unet" (OrbitUNet) or "wan" (OrbitWan)."""
    wan: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of OrbitWan; empty means the size of Wan 2.1 T2V 1.3 B."""
    variant: str = "image"
    """"text", "image" or "static3d": what OrbitUNet is conditioned on beside cameras and motion."""
    unet: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the diffusers UNet; empty means the published 1.4 B parameter size."""
    init: str = ""
    """Weights to start from: a VideoMV .pth, a RUN, or a save_pretrained folder. Empty: random weights."""
    autoencoder: str = ""
    """"unshuffle:2" (pixels, lossless), or a hub name, folder or VQGAN_autoencoder.pth of an SD f8 VAE."""
    text_encoder: str = ""
    """Hub name, folder or open_clip_pytorch_model.bin; "minilm" for the small one; empty: no text."""
    image_encoder: str = ""
    """The same for the CLIP image vector; empty: none (the first view still enters as a latent)."""
    schedule: str = "image"
    """Noise schedule of the base: "text" (scaled linear) or "image" (cosine, zero terminal SNR)."""
    prediction: str = ""
    """"epsilon", "v_prediction" or "sample" (x0); empty: the schedule's own."""
    residual: float = 0.0
    """With prediction "sample": the network says how the clip differs from what the image branch sees (the
    first view, or the static orbit), in units of this spread (losses.residual_estimate), so that a network
    trained for minutes need not first learn to copy. 0: it says the clip itself."""


@dataclass(frozen=True)
class DataSettings:
    """Which clips, and how they reach the network."""

    resolution: int = 256
    """Square size in pixels that frames are resized to."""
    frames: int = 24
    """Frames per training clip, evenly spread over the clip's own."""
    background: str = "white"
    """Colour behind the alpha: "white", "grey128", or "r,g,b"."""
    captions: bool = True
    """False gives every clip an empty caption, in training and in sampling, as VideoMV's image model has it:
    a network conditioned on captions expects one when it samples, and an image has none."""
    caption_prefix: str = ""
    """Put before every caption."""
    caption_suffix: str = ""
    """Put after every caption."""
    negative_prompt: str = ""
    """Caption that stands for "none" in caption dropout and in guidance."""
    fps: float = 8.0
    """Frame rate given to the image networks."""
    where: str = ""
    """Filter expression on the index, as in `orbit4d select`."""
    latents: str = "auto"
    """"cache" (made by `orbit4d encode`), "fly" (encode in the loop), "memory" (pixels kept in RAM after the
    first epoch, encoded in the loop), or "auto": the cache when there is one, else fly."""
    latents_folder: str = ""
    """Where the cache is, if not beside the dataset: the folder or URI that `encode --out` wrote."""
    augment: tuple[str, ...] = ()
    """Any of "roll" (a static orbit may start anywhere), "reverse" (or turn the other way), "mirror" (left
    and right swapped, camera and pixels), "arc" (consecutive frames instead of the whole turn)."""
    cameras: bool = True
    """False hides the cameras from the network: a control, to see what they are worth."""
    static_condition: float = 0.0
    """Share of samples in which an image network sees the whole static orbit in place of the first view; it
    then takes both."""
    workers: int = 4
    """Loader processes; 0 loads in the training process."""


@dataclass(frozen=True)
class LossSettings:
    """What is minimised, and what is left out at random."""

    motion_weight: float = 0.1
    """ω of the motion reconstruction loss L_mr; 0 turns it off."""
    drop_caption: float = 0.1
    """Share of samples whose caption becomes the negative prompt."""
    drop_motion: float = 0.1
    """Share of samples that are not conditioned on motion."""
    drop_image: float = 0.0
    """Share of samples whose image vector becomes zero (the first view's latent stays)."""
    shuffle_motion: bool = False
    """Tell every clip the motion of another one: a control, which must not learn to follow m."""
    offset_noise: float = 0.0
    """Weight of a noise that is constant over a frame."""
    noise_bias: float = 1.0
    """Noise levels are drawn with a density that grows as level^(bias - 1): 1 is uniform, as published; 2
    gives a short training more of the levels at which a clip is laid out."""


@dataclass(frozen=True)
class ViewSettings:
    """Synchronised views of a scene: what `train` of a sync preset learns."""

    count: int = 1
    """Views of a scene in a sample; 1: single videos, as all other presets have them."""
    multi: float = 0.6
    """Share of samples that are synchronised videos."""
    images: float = 0.2
    """Share of samples that are one-frame videos: the views of a scene at one time."""
    single: float = 0.2
    """Share of samples that are one video copied to all views, with identity cameras. What a dataset has
    nothing for hands its share to the others."""
    reference: float = 0.9
    """Share of videos whose view 0 is clean."""
    azimuth_from: float = 30.0
    """Largest difference of azimuth from the reference, degrees, at the start; it grows linearly."""
    azimuth_to: float = 180.0
    """And at the end of its growth."""
    elevation_from: float = 15.0
    """The same for elevation."""
    elevation_to: float = 45.0
    """And at the end of its growth."""
    curriculum: float = 0.5
    """Share of the steps over which the differences grow."""
    width: int = 0
    """Width in pixels where views are wider than high (data.resolution is their height); 0: square."""
    shift: float = 5.0
    """Shift of flow matching's levels."""
    metres_per_unit: float = 2.0
    """Metres that a unit of the dataset stands for."""
    motion: bool = False
    """Tell the network the motion magnitude of a scene: the mean over its views, of a still camera the mean
    squared difference from its first frame where the index has no other (loss.drop_motion drops it)."""
    still_camera: bool = False
    """Take single videos only where the background stands still too (corner tracks; each clip is decoded once
    at the start), for imported clips whose cameras are not known to be true."""
    shuffle_cameras: bool = False
    """Tell every scene the cameras of another one: a control, which must not learn to use them."""


@dataclass(frozen=True)
class OptimSettings:
    """How it is minimised."""

    lr: float = 3e-5
    """Peak learning rate."""
    schedule: str = "constant"
    """Learning rate over a stage: "constant" or "cosine" (to a twentieth)."""
    warmup: int = 0
    """Steps of linear warm-up at the start of each stage."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay."""
    effective_batch: int = 128
    """Clips per optimizer step, over all processes and accumulated micro-batches."""
    batch: int | str = 1
    """Clips per micro-batch and process; "auto": as many as the device takes, and with them what is
    recomputed (training/plan.py), printed where the run begins."""
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    ema: float = 0.9999
    """Decay of the averaged weights; 0 keeps none."""
    optimizer: str = "adamw"
    """"adamw", "muon" (muon.py; for networks trained from nothing), or "adamw8bit" (bitsandbytes, CUDA
    only)."""
    precision: str = "no"
    """"no" (float32), "bf16" or "fp16"."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: slower, far less memory."""
    recompute: str = "blocks"
    """What `checkpointing` recomputes: "blocks" (every block whole) or "attention" (the transformers alone,
    which keep the most for the least work: faster, more memory)."""
    weights: str = "auto"
    """What a step under bf16 or fp16 computes with: "half" (weights of that precision; the optimizer, the
    averages and checkpoints hold float32 ones), "float32" (casts at every use), or "auto": half on a GPU."""
    graphs: str = "auto"
    """CUDA graphs of the micro-step, launched as one: "on", "off", or "auto" (on a GPU where the step can be
    captured; what stands in the way is printed)."""
    compile: bool = False
    """torch.compile for the blocks of the network: minutes at the start; needs a C++ compiler, on a GPU
    Triton."""
    tf32: bool = False
    """TensorFloat-32 in float32 products on a GPU: twice as fast or more, 10 bits of mantissa."""
    deterministic: bool = False
    """On a GPU the same bits in every run: slower, and refused for what has no deterministic kernel. A CPU
    gives the same bits either way."""
    lora: int = 0
    """Rank of LoRA adapters on the attention projections; 0 trains all weights."""


@dataclass(frozen=True)
class Stage:
    """One pass of the loop over one kind of clip."""

    name: str
    """"static" (static orbits, no motion) or "dynamic"; with synchronised views "single" (the base, on single
    videos) or "views" (the view module, the base frozen)."""
    steps: int
    """Optimizer steps."""
    static_share: float = 0.0
    """Share of static orbits, conditioned on m = 0, mixed into a dynamic stage."""
    lr_scale: float = 1.0
    """Factor on the learning rate in this stage."""
    condition_scale: float = 1.0
    """Factor on data.static_condition: a static stage that sees the whole orbit need only copy it."""


@dataclass(frozen=True)
class SampleSettings:
    """Defaults of `orbit4d generate`."""

    steps: int = 50
    """DDIM steps."""
    spacing: str = "leading"
    """Which steps: "leading" (981, 961, .., 1 of 50, as VideoMV) or "trailing" (from pure noise on; for few
    steps)."""
    w1: float = 7.0
    """Weight against the unconditional branch (7 is ordinary guidance 8)."""
    w2: float = 0.5
    """Weight against the frozen base, which knows no motion."""
    w_motion: float = 0.0
    """Weight against the same network conditioned on m = 0 (not in the paper)."""
    precision: str = "auto"
    """What the networks sample in on a GPU: "fp16", "bf16", "no" (float32), or "auto": fp16. A CPU samples
    in float32."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    preset: str = "custom"
    """Name of the preset it started from."""
    seed: int = 0
    """The one seed."""
    stages: tuple[Stage, ...] = (Stage("dynamic", 6000),)
    """In order; the network that ends a static stage is kept frozen as the third guidance branch."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """The network."""
    data: DataSettings = field(default_factory=DataSettings)
    """The clips."""
    loss: LossSettings = field(default_factory=LossSettings)
    """The objective."""
    views: ViewSettings = field(default_factory=ViewSettings)
    """Synchronised views."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """The optimizer."""
    sample: SampleSettings = field(default_factory=SampleSettings)
    """Sampling afterwards."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    checkpoint_minutes: float = 30.0
    """And minutes between them at most, for steps that are long; 0: steps alone count."""
    keep_checkpoints: int = 2
    """How many of the newest are kept."""
    validate_every: int = 250
    """Steps between validations."""
    validate_clips: int = 16
    """Clips of the validation split that are inspected, always with the same noise."""
    sample_every: int = 0
    """Steps between sample clips, in RUN/samples and in the trackers; 0: none."""
    sample_clips: int = 4
    """How many: of the validation split where it has clips, always with the same noise."""
    schema: int = SCHEMA
    """Version of this layout."""

    @property
    def synchronised(self) -> bool:
        """Whether it learns views of scenes, not single clips."""
        return self.views.count > 1

    @property
    def total_steps(self) -> int:
        """Optimizer steps over all stages."""
        return sum(stage.steps for stage in self.stages)


_NESTED = {
    "model": ModelSettings,
    "data": DataSettings,
    "loss": LossSettings,
    "views": ViewSettings,
    "optim": OptimSettings,
    "sample": SampleSettings,
}
#: Settings that may name a file or folder of this machine.
PATHS = (
    "model.init",
    "model.autoencoder",
    "model.text_encoder",
    "model.image_encoder",
    "data.latents_folder",
)
#: Keys that may differ on resume: they change neither the data, nor the objective. Those of `optim`, for a
#: run that met the end of its memory or moves to another card, change how its sums are rounded and what
#: dropout draws, as another number of processes does; a step still takes the same samples with the same noise
#: (data.StepBatches).
_FREE = {
    "data.workers",
    "data.latents",
    "data.latents_folder",
    "sample_every",
    "sample_clips",
    "keep_checkpoints",
    "checkpoint_every",
    "checkpoint_minutes",
    "validate_every",
    "validate_clips",
    "optim.checkpointing",
    "optim.batch",
    "optim.recompute",
    "optim.weights",
    "optim.graphs",
    "optim.compile",
    "optim.tf32",
    "optim.deterministic",
    "sample.precision",
}


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain JSON-ready dictionary."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Inverse of `to_dict`; an unknown key, a value that a setting does not take (config_checks.py), or
    another schema is an InputError that names it."""
    if values.get("schema", SCHEMA) != SCHEMA:
        raise InputError(
            f"this run's configuration has schema {values['schema']}, this orbit4d reads {SCHEMA}: "
            "use the version that made it"
        )
    kwargs: dict[str, Any] = dict(values)
    for name, cls in _NESTED.items():
        if name in kwargs:
            kwargs[name] = _build(cls, kwargs[name], name + ".")
    if "stages" in kwargs:
        kwargs["stages"] = tuple(_build(Stage, stage, "stages.") for stage in kwargs["stages"])
    config = _build(TrainConfig, kwargs, "")
    check_values(flatten(to_dict(config)))
    return config


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        name = prefix + unknown[0]
        raise InputError(f"unknown setting {name}: {or_known(name, [prefix + k for k in known])}")
    absent = [k for k, f in known.items() if k not in values and _is_required(f)]
    if absent:
        raise InputError(f"{prefix}{absent[0]} is not given: {json.dumps(dict(values))}")
    return cls(**{k: tuple(v) if k == "augment" else v for k, v in values.items()})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionary to dotted keys; lists and the UNet arguments stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and prefix + key not in ("model.unet", "model.wan"):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def override(config: TrainConfig, assignments: Iterable[str]) -> TrainConfig:
    """Apply `key=value` assignments with dotted keys, say `optim.lr=1e-4` or `data.augment=["roll"]`.

    Values are JSON; anything that is not JSON is taken as text. `steps=N` shares N out over the stages in
    the proportion they had. InputError for a key that is none and a value that does not fit.
    """
    pairs = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write it as key=value, for example optim.lr=1e-4")
        try:
            pairs.append((key, json.loads(text)))
        except json.JSONDecodeError:
            pairs.append((key, text))
    return assign(config, pairs, "--set")


def assign(config: TrainConfig, pairs: Iterable[tuple[str, Any]], where: str) -> TrainConfig:
    """`override` with values that were read already; `where` says in messages where they come from."""
    values = to_dict(config)
    for key, value in pairs:
        if key == "steps":
            _share_steps(values["stages"], value)
            continue
        *path, last = key.split(".")
        node: Any = values
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or (
            last not in node and path not in (["model", "unet"], ["model", "wan"])
        ):
            raise InputError(f"{where} {key}: no such setting; {or_known(key, [*flatten(values), 'steps'])}")
        old = node.get(last)
        like = 1 if old in WORDS.get(key, ()) else old
        if old is not None and value not in WORDS.get(key, ()) and not _same_kind(like, value):
            also = "".join(f", or {word}" for word in WORDS.get(key, ()))
            raise InputError(
                f"{where} {key}={_said(value)}: expected a {type(like).__name__} like "
                f"{json.dumps(like)}{also}"
            )
        whole = isinstance(like, int) and isinstance(value, float)
        node[last] = int(value) if whole else value
    return from_dict(values)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _same_kind(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, int | float):
        return isinstance(new, int | float) and (isinstance(old, float) or float(new).is_integer())
    return isinstance(new, type(old))


def _share_steps(stages: list[dict[str, Any]], total: Any) -> None:
    if not isinstance(total, int) or isinstance(total, bool) or total < len(stages):
        raise InputError(f"steps={total}: give a whole number, at least {len(stages)} (one per stage)")
    old = sum(stage["steps"] for stage in stages)
    left = total
    for i, stage in enumerate(stages):
        rest = len(stages) - i - 1
        share = left if rest == 0 else max(1, min(left - rest, round(total * stage["steps"] / old)))
        stage["steps"] = share
        left -= share


def _equal(key: str, old: Any, new: Any) -> bool:
    """Whether two values of a setting are one; a file or folder may be named in two ways."""
    if old == new or key not in PATHS or not (old and new and Path(old).exists()):
        return bool(old == new)
    return Path(old).resolve() == Path(new).resolve()


def check_same(saved: Mapping[str, Any], config: TrainConfig, where: str, init: str = "") -> None:
    """Raise an InputError naming the first setting in which `config` differs from what `where` was run
    with. A setting that is newer than that run had what is the default now. `init` is the folder whose
    weights another run may start from, where there is one."""
    old, new = flatten(to_dict(TrainConfig())) | flatten(saved), flatten(to_dict(config))
    for key in sorted(set(old) | set(new)):
        if key not in _FREE and not _equal(key, old.get(key), new.get(key)):
            raise InputError(
                f"{where} was started with {key}={json.dumps(old.get(key))}, now asked for "
                f"{json.dumps(new.get(key))}: give the old value, or another --out"
                + (f" (with --init {init} to start from its weights)" if init else "")
            )
