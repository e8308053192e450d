"""Ground floor: cameras, clips, shards and index, the torch loader, sources, video and image measures.

Names are loaded on first use, so that `import orbit4d.datasets` pulls in neither torch nor pyarrow.
"""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
