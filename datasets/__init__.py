"""Ground floor: cameras, clips, shards and index, the torch loader, sources, video and image measures.

Names are loaded on first use, so that `import orbit4d.datasets` pulls in neither torch nor pyarrow.
"""

from __future__ import annotations

from orbit4d.datasets.core.lazy import lazy_names

_HOMES = {
    "Camera": "cameras.camera",
    "Clip": "store.clip",
    "DatasetWriter": "store.writer",
    "Index": "index.index",
    "InputError": "core.errors",
    "OrbitDataset": "loader.dataset",
    "OrbitLoader": "loader.batches",
    "Rejection": "store.rejections",
    "WorkError": "core.errors",
    "collate": "loader.collation",
    "decode": "images.codec",
    "encode_webp": "images.codec",
    "export_dataset": "layouts.exporting",
    "import_diffusion4d": "layouts.diffusion4d",
    "import_gobjaverse": "layouts.diffusion4d",
    "open_reference": "index.reference",
    "orbit": "cameras.camera",
    "read_clip": "index.reader",
    "stage_asset": "store.staging",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
