"""What an export for a trainer is asked for; light, so that a command line can read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.over import Colour8, colour_of

#: Kinds of control videos. `flow` and `tracks` need the geometry pass.
CONTROLS = ("depth", "normal", "mask", "flow", "tracks")
DEPTHS = ("inverse", "linear")
CAMERA_TEXTS = ("realestate", "videox-fun")
PLUECKER = ("float16", "float32")
#: x264's quality of exported videos, and their rate where none is asked for.
CRF = 18
FPS = 24.0


@dataclass(frozen=True)
class ExportSettings:
    """What the videos, captions and cameras of an export look like. InputError for what cannot be meant."""

    frames: str | None = None
    """`all`, `4n+1`, `8n+1` or a number; None: the trainer's own rule."""
    fps: float | None = None
    """Frames a second that the files say (nothing is resampled); None: 24, or what a layout publishes."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) buckets: each clip goes into that of the nearest aspect. (): the clip's own size."""
    background: str = "white"
    """white, black, grey, `#rrggbb`, `r,g,b`, or `random` (drawn per clip from seed and name)."""
    seed: int = 0
    """Of a random background."""
    caption: str | None = None
    """Stand-in of clips without a caption."""
    caption_prefix: str = ""
    caption_suffix: str = ""
    controls: tuple[str, ...] = ()
    """Control videos, of CONTROLS."""
    depth: str = "inverse"
    """How depths become grey: inverse or linear."""
    camera_text: str | None = None
    """Camera text files beside the videos: realestate or videox-fun; None: the trainer's habit."""
    pluecker: str | None = None
    """float16 or float32: Pluecker maps as npz beside the videos."""
    exact: bool = False
    """RGB H.264 without loss, which browsers do not play."""
    test_cameras: tuple[str, ...] = ()
    """Cameras that multi-camera layouts keep for testing."""

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"--fps {self.fps:g}: give a rate above 0, at most 1000")
        if self.background != "random":
            behind(self.background)
        for size in self.sizes:
            if min(size) < 16 or max(size) > 8192:
                raise InputError(f"--size {size[0]}x{size[1]}: edges are 16 to 8192 pixels")
        for kind in self.controls:
            if kind not in CONTROLS:
                raise InputError(f"--control {kind}: known are {', '.join(CONTROLS)}")
        if len(set(self.controls)) < len(self.controls):
            raise InputError(f"--control {self.controls[-1]}: is named twice")
        _one_of("--depth", self.depth, DEPTHS)
        _one_of("--camera-txt", self.camera_text, CAMERA_TEXTS)
        _one_of("--pluecker", self.pluecker, PLUECKER)


def _one_of(option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InputError(f"{option} {value}: known are {', '.join(known)}")


def behind(text: str) -> Colour8:
    """Red, green, blue in 0 to 255 of a colour's text (`over.colour_of`). InputError for any other."""
    if (colour := colour_of(text)) is None:
        raise InputError(
            f"--background {text}: give white, black, grey, #rrggbb, r,g,b of 0 to 255, or random"
        )
    return colour


def sizes_of(text: str | None) -> tuple[tuple[int, int], ...]:
    """Sizes of `832x480` or `832x480,480x832`. Raises InputError."""
    found = []
    for part in (text or "").split(","):
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", part.strip().lower())
        if match is None:
            if text:
                raise InputError(f"--size {text}: give WIDTHxHEIGHT, several with a comma between")
            continue
        found.append((int(match[1]), int(match[2])))
    return tuple(found)
