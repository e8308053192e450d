"""Curation: measure assets once, decide by named rules in a second, report.

Names are loaded on first use, so that `import orbit4d.curate` stays light.
"""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
