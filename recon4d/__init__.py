"""Orbit videos to explicit 4D Gaussians. Names load on first use, so importing this costs nothing."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_WHERE = {
    "reconstruct": "orbit4d.recon4d.reconstruction",
    "load_scene": "orbit4d.recon4d.scene",
    "Scene": "orbit4d.recon4d.scene",
}
__all__ = sorted([*_WHERE, "rasterize"])


class _Room(ModuleType):
    """`rasterize` is a function here and a folder on disk: importing the folder must not replace it."""

    @property
    def rasterize(self) -> Any:
        """See `orbit4d.recon4d.rasterize.api.rasterize`."""
        return import_module("orbit4d.recon4d.rasterize.api").rasterize

    @rasterize.setter
    def rasterize(self, module: ModuleType) -> None:
        """The import system binds every submodule it loads; this name is taken."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


sys.modules[__name__].__class__ = _Room
