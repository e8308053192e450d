"""Thresholds of the rules and their presets; light, so that a command line can read them before any table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from orbit4d.datasets.core.errors import InputError


def _rule(default: Any, text: str) -> Any:
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Rules:
    """Thresholds; None switches a rule off. A YAML file holds the same names."""

    # Set on clips labelled by eye (tests/curate/labels.csv): slow swims stay, breathing on the spot goes.
    min_motion: float | None = _rule(0.014, "low_motion: motion_geometry below this")
    max_motion: float | None = _rule(1.5, "drastic: motion_geometry above this")
    max_growth: float | None = _rule(3.0, "flies_away: union_growth above this")
    # Off at 1: the scale `fit` keeps everything in the frame, and jumps and falls that would leave the first
    # box's frame are good clips. The published render uses the first box, so its preset rejects them.
    max_boundary: float | None = _rule(1.0, "boundary: out_of_frame above this")
    max_touch: float | None = _rule(0.0, "boundary: boundary_touch of a rendered dataset above this")
    min_coverage: float | None = _rule(
        0.005, "empty: coverage of silhouette, preview or render below this, or any frame blank"
    )
    min_fit: float | None = _rule(0.02, "small: coverage_fit below this")
    # Wheels and tracks that run on the spot: vertices travel, and nothing is seen of it. A patterned globe
    # slides along itself as well, but looks different at once; both must hold.
    min_shape: float | None = _rule(
        0.16, "unseen: motion_shape below this share of motion_geometry, and max_alike as well"
    )
    max_alike: float | None = _rule(
        0.7, "unseen: ssim_object_quarter, _half and _peak all above this, and min_shape as well; or all 1"
    )
    max_torn: float | None = _rule(0.1, "exploded: torn_edges above this")
    min_seconds: float | None = _rule(None, "too_short: moving window shorter than this, seconds")
    max_seconds: float | None = _rule(None, "too_long: moving window longer than this, seconds")
    max_triangles: int | None = _rule(None, "too_heavy: n_triangles above this")
    max_missing_textures: int | None = _rule(None, "missing_textures: n_missing_textures above this")
    min_nonrigid: float = _rule(0.005, "rigid: motion_nonrigid below this, when rigid is drop")
    rigid: str = _rule("keep", "keep or drop assets that only move as one rigid body (reason rigid)")
    # Kept by default: a plain box facing the camera is seen in one colour and nothing is wrong with it.
    flat: str = _rule("keep", "keep or drop assets seen in one single colour (reason flat)")
    duplicates: str = _rule(
        "keep", "keep or drop near duplicates of an earlier asset (reason near_duplicate)"
    )
    license: tuple[str, ...] = _rule((), "license: patterns such as CC0* or CC-BY-4.0; others are rejected")
    benchmarks: str = _rule(
        "drop",
        "drop, keep or test (split test only) objects of benchmarks (reason benchmark:<name>)",
    )
    keep: str = _rule("", "keep: rows that this SQL expression over tags and measures is not true for")
    max_ssim: float | None = _rule(None, "ssim_still: both SSIM of the preview rule above this")
    min_ssim: float | None = _rule(None, "ssim_drastic: either SSIM of the preview rule below this")
    ssim_frames: str = _rule("window", "window or raw: which times the preview rule compares")
    still: str = _rule("drop", "keep or drop what does not move at all (reason static)")

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; it is one of {', '.join(choices)}")
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in _CHOICES or value is None:
                continue
            if entry.name == "keep":
                if not isinstance(value, str):
                    raise InputError("keep is an expression such as score >= 2 and not is_scene")
            elif entry.name == "license":
                if isinstance(value, str) or not all(isinstance(pattern, str) for pattern in value):
                    raise InputError("license is a list of patterns such as CC0*, CC-BY-4.0")
                object.__setattr__(self, "license", tuple(value))
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{entry.name} is {value!r}; it must be a number")


_CHOICES = {
    "rigid": ("keep", "drop"),
    "flat": ("keep", "drop"),
    "duplicates": ("keep", "drop"),
    "benchmarks": ("keep", "drop", "test"),
    "still": ("keep", "drop"),
    "ssim_frames": ("window", "raw"),
}

#: `diffusion4d` is the paper's rules alone (arXiv 2405.16645, section 3.2): both SSIM above 0.95 is too
#: little motion, either below 0.4 drastic, both at raw frames; and nothing may leave the frame. For that last
#: rule, which the paper gives no threshold for, any vertex outside counts.
PRESETS = {
    "default": Rules(),
    "diffusion4d": Rules(
        min_motion=None,
        max_motion=None,
        max_growth=None,
        max_boundary=0.0,
        min_coverage=None,
        min_fit=None,
        min_shape=None,
        max_alike=None,
        max_torn=None,
        still="keep",
        max_ssim=0.95,
        min_ssim=0.4,
        ssim_frames="raw",
    ),
}
