"""Orbit videos to explicit 4D Gaussians. Names load on first use, so importing this costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "rasterize": "orbit4d.recon4d.rasterize",
    "reconstruct": "orbit4d.recon4d.reconstruct",
    "load_scene": "orbit4d.recon4d.scene",
    "Scene": "orbit4d.recon4d.scene",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
