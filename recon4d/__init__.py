"""Orbit videos to explicit 4D Gaussians. Names load on first use, so importing this costs nothing."""

from __future__ import annotations

from orbit4d.datasets.core.lazy import lazy_names

_HOMES = {
    "Scene": "scene",
    "load_scene": "scene",
    "rasterize": "raster.api",
    "reconstruct": "fitting.reconstruction",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
