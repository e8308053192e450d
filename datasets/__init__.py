"""Ground floor: cameras, clips, shards and index, the torch loader, sources, video and image measures.

Names are loaded on first use, so that `import orbit4d.datasets` pulls in neither torch nor pyarrow.
"""

from __future__ import annotations

from orbit4d.datasets.lazy import lazy_names

_HOMES = {
    "Camera": "cameras",
    "Clip": "clips",
    "DatasetWriter": "writer",
    "Index": "index",
    "InputError": "errors",
    "OrbitDataset": "loader",
    "OrbitLoader": "batches",
    "Rejection": "rejections",
    "WorkError": "errors",
    "collate": "collation",
    "decode": "codec",
    "encode_webp": "codec",
    "export_dataset": "interop_export",
    "import_diffusion4d": "interop",
    "import_gobjaverse": "interop",
    "open_reference": "reference",
    "orbit": "cameras",
    "read_clip": "reader",
    "stage_asset": "staging",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
