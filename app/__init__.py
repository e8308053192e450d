"""The command `orbit4d`, its demo and gallery."""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
