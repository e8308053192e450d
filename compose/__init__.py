"""What needs a model and Gaussians together: distillation, completion, direction. Names load on first use."""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
