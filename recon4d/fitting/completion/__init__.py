"""Completion of unseen views: a slot that a higher package fills, and the fit that follows."""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
