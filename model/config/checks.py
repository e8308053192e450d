"""Which values a setting may have: one table, read when a configuration is built.

A value that the code would quietly take for another (an unknown schedule, say, for the other one), or stumble
over an hour later, is refused in one line that names the setting and what it takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known

#: Settings that take one of a few words.
CHOICES: dict[str, tuple[str, ...]] = {
    "model.variant": ("text", "image", "static3d"),
    "model.schedule": ("text", "image"),
    "model.prediction": ("epsilon", "v_prediction", "sample", ""),
    "data.latents": ("auto", "cache", "fly", "memory"),
    "optim.schedule": ("constant", "cosine"),
    "optim.optimizer": ("adamw", "muon", "adamw8bit"),
    "optim.precision": ("no", "bf16", "fp16"),
    "optim.recompute": ("blocks", "attention"),
    "optim.weights": ("auto", "half", "float32"),
    "optim.graphs": ("auto", "on", "off"),
    "sample.precision": ("auto", "fp16", "bf16", "no"),
    "sample.spacing": ("leading", "trailing"),
    "stages.name": ("static", "dynamic", "single", "views"),
    "model.base": ("unet", "wan"),
}
#: What `model.unet` may hold: arguments of `OrbitUNet` but its variant, which is a setting of its own.
UNET = (
    "sample_size",
    "in_channels",
    "out_channels",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "cross_attention_dim",
    "attention_head_dim",
    "camera_dim",
    "camera_harmonics",
    "camera_zero_init",
    "frame_index_embedding",
    "temporal_dropout",
    "transformer_in_heads",
    "latent_token_grid",
    "first_view",
    "view_sync",
    "view_index",
)
#: What `model.wan` may hold: arguments of `OrbitWan`.
WAN = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "eps",
    "rope_max_seq_len",
    "view_blocks",
    "view_index",
)
#: Settings that take a list of words.
LISTS: dict[str, tuple[str, ...]] = {"data.augment": ("roll", "reverse", "mirror", "arc", "channels")}


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; `ends` says, as in mathematics, whether they are in it themselves."""

    low: float = 0.0
    high: float = math.inf
    ends: str = "[]"

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{self.low:g} or more" if self.ends[0] == "[" else f"above {self.low:g}"
        return f"{self.low:g} to {self.high:g}" + ("" if self.ends == "[]" else f", without {self.high:g}")


_FROM_0, _FROM_1, _SHARE = Interval(), Interval(low=1), Interval(high=1)
#: Words that settings of numbers take beside them.
WORDS: dict[str, tuple[str, ...]] = {"optim.batch": ("auto",)}
#: Settings that take numbers. Weights of guidance take any.
NUMBERS: dict[str, Interval] = {
    "seed": _FROM_0,
    "checkpoint_every": _FROM_1,
    "checkpoint_minutes": _FROM_0,
    "keep_checkpoints": _FROM_1,
    "validate_every": _FROM_1,
    "validate_clips": _FROM_1,
    "sample_every": _FROM_0,
    "sample_clips": _FROM_1,
    "stages.steps": _FROM_1,
    "stages.static_share": _SHARE,
    "stages.lr_scale": _FROM_0,
    "stages.condition_scale": _FROM_0,
    "model.residual": _FROM_0,
    "data.resolution": _FROM_1,
    "data.frames": Interval(low=2),
    "data.fps": Interval(ends="(]"),
    "data.static_condition": _SHARE,
    "data.workers": _FROM_0,
    "loss.motion_weight": _FROM_0,
    "loss.drop_caption": _SHARE,
    "loss.drop_motion": _SHARE,
    "loss.drop_image": _SHARE,
    "loss.offset_noise": _FROM_0,
    "loss.noise_bias": Interval(ends="(]"),
    "views.count": _FROM_1,
    "views.width": _FROM_0,
    "views.multi": _SHARE,
    "views.images": _SHARE,
    "views.single": _SHARE,
    "views.reference": _SHARE,
    "views.azimuth_from": Interval(high=180),
    "views.azimuth_to": Interval(high=180),
    "views.elevation_from": Interval(high=180),
    "views.elevation_to": Interval(high=180),
    "views.curriculum": _SHARE,
    "views.shift": Interval(ends="(]"),
    "views.metres_per_unit": Interval(ends="(]"),
    "optim.lr": _FROM_0,
    "optim.warmup": _FROM_0,
    "optim.weight_decay": _FROM_0,
    "optim.effective_batch": _FROM_1,
    "optim.batch": _FROM_1,
    "optim.clip": _FROM_0,
    # An average that never moves would end as the weights that it started from.
    "optim.ema": Interval(high=1, ends="[)"),
    "optim.lora": _FROM_0,
    "sample.steps": Interval(low=1, high=1000),
}


def check_values(flat: Mapping[str, Any]) -> None:
    """InputError, naming setting, value and fix, for the first value that is none of those it may have.

    `flat` holds every setting by its dotted name, as `config.flatten` gives it; `stages` is a list of
    dictionaries.
    """
    if not flat["stages"]:
        raise InputError("stages=[]: give at least one stage, such as name dynamic with steps 6000")
    for key, value in flat.items():
        if key == "stages":
            for stage in value:
                for name, of_stage in stage.items():
                    _check(f"stages.{name}", of_stage)
        else:
            _check(key, value)
    for name in flat["model.unet"]:
        if name not in UNET:
            raise InputError(f"model.unet.{name}: no such argument of the network; {or_known(name, UNET)}")
    for name in flat["model.wan"]:
        if name not in WAN:
            raise InputError(f"model.wan.{name}: no such argument of the network; {or_known(name, WAN)}")
    _check_views(flat)
    if flat["data.latents_folder"] and flat["data.latents"] not in ("auto", "cache"):
        raise InputError(
            f"data.latents_folder={flat['data.latents_folder']}: is for data.latents=cache, which is "
            f"{flat['data.latents']}: set one of them otherwise"
        )
    if flat["model.variant"] == "text" and not flat["data.captions"]:
        raise InputError("data.captions=false: a text model has nothing else to go by; leave it true")


def _check_views(flat: Mapping[str, Any]) -> None:
    names = {stage["name"] for stage in flat["stages"]}
    if flat["views.count"] == 1:
        if flat["model.base"] == "wan":
            _check_wan_orbit(flat)
        if names & {"single", "views"}:
            raise InputError("stages.name=views: is for views.count of 2 or more; set static or dynamic")
        return
    if names - {"single", "views"}:
        raise InputError(f"stages.name={sorted(names)[0]}: with views.count above 1 give single or views")
    if flat["model.base"] == "unet" and (flat["model.variant"] != "text" or "single" in names):
        raise InputError(
            "model.variant: views on an OrbitUNet need the text variant, trained before (--init)"
        )
    if not flat["views.multi"] + flat["views.images"] + flat["views.single"]:
        raise InputError("views.multi=0: give one of views.multi, views.images, views.single a share")
    if flat["sample_every"]:
        raise InputError(
            "sample_every: views are not sampled on the way; set it to 0 and use orbit4d multicam"
        )
    if flat["optim.lora"] and flat["views.count"] > 1:
        raise InputError("optim.lora: the view module is trained whole and the base is frozen; set it to 0")


def _check_wan_orbit(flat: Mapping[str, Any]) -> None:
    """What single orbits on a Wan base have no use for is refused, not passed over."""
    if flat["data.augment"]:
        raise InputError("data.augment: is for an OrbitUNet; of orbits on model.base=wan, set it to []")
    if flat["model.image_encoder"]:
        raise InputError("model.image_encoder: model.base=wan sees a first view as latents; leave it out")
    if flat["model.residual"] or flat["model.prediction"]:
        raise InputError(
            "model.prediction, model.residual: model.base=wan predicts a velocity; leave them out"
        )
    if flat["model.wan"].get("view_blocks"):
        raise InputError("model.wan.view_blocks: single orbits have no views; leave it out")
    if flat["loss.offset_noise"]:
        raise InputError("loss.offset_noise: is of VideoMV's image base; with model.base=wan set it to 0")
    if flat["optim.optimizer"] == "muon":
        raise InputError("optim.optimizer=muon: knows an OrbitUNet's matrices; with model.base=wan use adamw")
    if flat["optim.compile"] or flat["optim.recompute"] != "blocks" or flat["optim.graphs"] == "on":
        raise InputError(
            "optim.compile, optim.recompute=attention, optim.graphs=on: are for an OrbitUNet; with "
            "model.base=wan leave them out"
        )


def _check(key: str, value: Any) -> None:
    if key in CHOICES and value not in CHOICES[key]:
        raise InputError(f"{key}={value}: give {_words(CHOICES[key], 'or')}")
    if key in LISTS:
        unknown = [word for word in value if word not in LISTS[key]]
        if unknown:
            raise InputError(f"{key}: no such word as {unknown[0]}; known are {_words(LISTS[key], 'and')}")
    if key in NUMBERS and value not in NUMBERS[key] and value not in WORDS.get(key, ()):
        raise InputError(f"{key}={json.dumps(value)}: give a number, {NUMBERS[key]}")


def _words(known: tuple[str, ...], joint: str) -> str:
    shown = [word or "nothing" for word in known]
    return f"{', '.join(shown[:-1])} {joint} {shown[-1]}"
