"""The published priors by short name: where they are, what they are for, and under which licence.

Facts of score-distillation's field: Stable Diffusion 1.5, Zero-1-to-3, ModelScope and Zeroscope, ControlNet
tile. A name that is not here may still be a hub name (org/name) or a folder in diffusers' layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Slot = Literal["2d", "3d", "video", "tile"]
SLOTS: tuple[Slot, ...] = ("2d", "3d", "video", "tile")
#: What fills a slot, in words for errors.
SLOT_WORDS: dict[str, str] = {
    "2d": "an image model with a text encoder",
    "3d": "a model of views relative to a reference",
    "video": "a text-to-video model",
    "tile": "Stable Diffusion 1.5 with a tile ControlNet",
}


@dataclass(frozen=True)
class Published:
    """One prior that others have published."""

    hub: tuple[str, ...]
    """Names under which the hub has it, the first that answers is taken."""
    slot: Slot
    licence: str
    """Of the weights."""
    commercial: bool = True
    """False where the licence forbids commercial use."""
    size: tuple[int, int] | None = None
    """Height and width in pixels; None: what the network's configuration says."""
    frames: int | None = None
    """Longest clip it was trained on."""


PUBLISHED: dict[str, Published] = {
    "sd15": Published(
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
        "2d",
        "CreativeML OpenRAIL-M",
    ),
    "zero123": Published(("bennyguo/zero123-diffusers",), "3d", "not found"),
    "zero123-xl": Published(
        ("bennyguo/zero123-xl-diffusers", "Yuyang-z/zero123-xl", "kxhit/zero123-xl"), "3d", "not found"
    ),
    "modelscope": Published(
        ("damo-vilab/text-to-video-ms-1.7b", "ali-vilab/text-to-video-ms-1.7b"),
        "video",
        "CC BY-NC 4.0",
        commercial=False,
        frames=16,
    ),
    "zeroscope": Published(
        ("cerspense/zeroscope_v2_576w",),
        "video",
        "CC BY-NC 4.0",
        commercial=False,
        size=(320, 576),
        frames=24,
    ),
    "controlnet-tile": Published(("lllyasviel/control_v11f1e_sd15_tile",), "tile", "CreativeML OpenRAIL-M"),
}
#: Clip length that is assumed of a folder or hub name which is none of the above.
CLIP_FRAMES = 16


def known(spec: str) -> tuple[str, Published] | None:
    """Short name and facts of a spec that is a short name or one of the hub names above; else None."""
    for name, published in PUBLISHED.items():
        if spec == name or spec in published.hub:
            return name, published
    return None
