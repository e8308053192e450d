"""What the render modes mean."""

from __future__ import annotations

import torch
from torch import Tensor

#: Where hardly anything was drawn the expected depth is 0 / this, and not 0 / 0 (gsplat's constant).
MIN_WEIGHT = 1e-10


def wants_rgb(render_mode: str) -> bool:
    return render_mode.startswith("RGB")


def wants_depth(render_mode: str) -> bool:
    return render_mode != "RGB"


def finish_depth(rendered: Tensor, alphas: Tensor, render_mode: str) -> Tensor:
    """Divide the last channel by the sum of weights in the modes that ask for the expected depth."""
    if not render_mode.endswith("ED"):
        return rendered
    expected = rendered[..., -1:] / alphas.clamp(min=MIN_WEIGHT)
    return torch.cat([rendered[..., :-1], expected], dim=-1) if rendered.shape[-1] > 1 else expected
