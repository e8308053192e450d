"""What a step of a published prior takes on a CPU: counted work over the speed of this machine."""

from __future__ import annotations

import time
from functools import cache

import torch

#: Operations of one branch of the network at its own size (a clip, or the images of a step) and of the
#: encoder for one frame, in 1e12, and frames; counted on the meta device with torch's FlopCounterMode.
WORK: dict[str, tuple[float, float, int]] = {
    "sd15": (0.803, 1.117, 1),
    "zero123": (0.176, 0.273, 1),
    "zero123-xl": (0.176, 0.273, 1),
    "modelscope": (4.887, 0.273, 16),
    "zeroscope": (21.395, 0.778, 24),
    "controlnet-tile": (12.782, 4.879, 2),
}
#: Encoder passes of a frame: one for its latents, one with a graph, one backward.
_ENCODER_PASSES = 3
_EDGE = 1024


def step_work(name: str) -> float:
    """Work of one guided step of a short name, both branches and the encoder, 1e12 operations."""
    branch, encoder, frames = WORK[name]
    return 2 * branch + _ENCODER_PASSES * frames * encoder


@cache
def cpu_speed() -> float:
    """1e12 operations a second that a float32 matrix product reaches here, the best of three."""
    a = torch.ones(_EDGE, _EDGE)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * _EDGE**3 / max(best, 1e-9) / 1e12


def cpu_step(name: str) -> str:
    """How long a step takes at least, in words: networks do not reach the speed of a matrix product."""
    seconds = step_work(name) / cpu_speed()
    shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{shown} or more ({step_work(name):.1f} TFLOP)"
