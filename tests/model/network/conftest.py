"""A small OrbitWan and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.model import OrbitWan, view_cameras

#: Arguments of a Wan network of 25 thousand weights.
TINY = {
    "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "text_dim": 10, "freq_dim": 16,
    "num_layers": 3,
}  # fmt: skip


def _network(loud: bool = False, seed: int = 0, **kwargs: Any) -> OrbitWan:
    torch.manual_seed(seed)
    net = OrbitWan(**{**TINY, "view_blocks": "all", **kwargs}).eval()
    if loud:
        for name, parameter in net.view_sync.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3 if "norm" not in name else 1.0)
    return net


def _inputs(scenes: int = 1, views: int = 2, frames: int = 2, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    rows = scenes * views
    angles = torch.rand(scenes, views, generator=generator) * 360
    c2w = np.array([[[orbit_c2w(float(a), 10.0, 2.0)] * frames for a in row] for row in angles])
    return {
        "hidden_states": torch.randn(rows, 16, frames, 4, 6, generator=generator),
        "timestep": torch.linspace(900.0, 300.0, rows),
        "encoder_hidden_states": torch.randn(scenes, 5, 10, generator=generator).repeat_interleave(views, 0),
        "camera": view_cameras(c2w).flatten(0, 1),
        "views": views,
    }


@pytest.fixture(scope="session")
def network() -> Callable[..., OrbitWan]:
    """`network(loud=True, **kwargs)`: a seeded OrbitWan; loud: nothing of the view module is zero."""
    return _network


@pytest.fixture(scope="session")
def inputs() -> Callable[..., dict[str, Any]]:
    """`inputs(scenes, views, frames)`: arguments of one pass."""
    return _inputs
