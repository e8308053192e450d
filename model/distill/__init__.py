"""Score distillation: what a prior says of a sample, as a gradient."""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
