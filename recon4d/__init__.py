"""Orbit videos to explicit 4D Gaussians. Names load on first use, so importing this costs nothing."""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
