"""Options of `orbit4d export DATASET`: which format, and how videos, captions and cameras come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.settings import (
    CAMERA_TEXTS,
    CONTROLS,
    DEPTHS,
    PLUECKER,
    ExportSettings,
    sizes_of,
)

#: Formats whose writers know no settings. Tests hold these lists against the writers.
PLAIN = ("nerfstudio", "diffusion4d", "frames", "hf-card")
TRAINERS = ("musubi", "diffsynth", "videox-fun", "ltx", "finetrainers", "diffusers", "videofolder")
MULTI_CAMERA = ("syncamvideo-2024", "syncamvideo-2025", "multicamvideo", "recammaster", "dnerf", "n3dv")

_VIDEO = "--fps --exact --background --seed"
GROUPS = {
    "Which clips": "--where --split",
    "Videos": f"--frames --size {_VIDEO}",
    "Captions": "--caption --caption-prefix --caption-suffix",
    "Geometry": "--points --point-seed --moments --up --gap --tracks-video",
    "Controls and cameras": "--control --depth --camera-txt --pluecker --test-cameras",
}
#: Option's name in Python -> formats that heed it.
_HEEDED = {
    **dict.fromkeys(("frames", "fps", "background", "seed", "exact"), (*TRAINERS, *MULTI_CAMERA)),
    **dict.fromkeys(("sizes", "controls", "depth", "camera_text", "pluecker"), TRAINERS),
    **dict.fromkeys(("caption", "caption_prefix", "caption_suffix"), (*TRAINERS, "recammaster")),
    "test_cameras": ("dnerf", "n3dv"),
}
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--frames", {"help": "Frames of a clip: all, 4n+1, 8n+1 or a number. Default: the trainer's."}),
    ("--size", {"help": "WIDTHxHEIGHT of the videos; of several (a,b) that of the nearest aspect."}),
    ("--fps", {"type": float, "help": "Frames a second that the videos say (24); nothing is resampled."}),
    ("--exact", {"is_flag": True, "default": None, "help": "RGB without loss; browsers do not play it."}),
    ("--background", {"help": "white, black, grey, #rrggbb, r,g,b, or random per clip (white)."}),
    ("--seed", {"type": int, "help": "Seed of a random background (0)."}),
    ("--caption", {"help": "Caption of clips that have none."}),
    ("--caption-prefix", {"help": "Text in front of every caption, blanks included."}),
    ("--caption-suffix", {"help": "Text behind every caption, blanks included."}),
    ("--control", {"multiple": True, "type": click.Choice(CONTROLS), "help": "Control video; repeatable."}),
    ("--depth", {"type": click.Choice(DEPTHS), "help": "Grey of a depth: of 1/z or z (inverse)."}),
    ("--camera-txt", {"type": click.Choice(CAMERA_TEXTS), "help": "Camera text files of this convention."}),
    ("--pluecker", {"type": click.Choice(PLUECKER), "help": "Write Pluecker maps (npz) of this type."}),
    ("--test-cameras", {"help": "Cameras kept for testing: cam03,cam07 or 3,7."}),
)  # fmt: skip
_PYTHON_NAMES = {"camera_txt": "camera_text", "size": "sizes", "control": "controls"}


def export_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of videos, captions and cameras; the command collects them with `settings_of`."""
    for name, how in reversed(_OPTIONS):
        function = click.option(name, **how)(function)
    return function


def settings_of(layout: str, given: dict[str, Any]) -> ExportSettings:
    """Settings of the options that were given. Raises InputError for one that `layout` does not heed."""
    asked: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        name = _PYTHON_NAMES.get(name, name)
        if layout not in _HEEDED[name]:
            option = next(o for o, _ in _OPTIONS if _PYTHON_NAMES.get(_python(o), _python(o)) == name)
            raise InputError(f"{option}: --format {layout} has no use for it; it is heeded by "
                             f"{', '.join(_HEEDED[name])}")  # fmt: skip
        asked[name] = value
    if "sizes" in asked:
        asked["sizes"] = sizes_of(asked["sizes"])
    if "controls" in asked:
        asked["controls"] = tuple(asked["controls"])
    if "test_cameras" in asked:
        asked["test_cameras"] = tuple(
            part.strip() for part in asked["test_cameras"].split(",") if part.strip()
        )
    return ExportSettings(**asked)


def _python(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
