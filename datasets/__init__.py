"""Ground floor: cameras, clips, shards and index, the torch loader, sources, video and image measures.

Names are loaded on first use, so that `import orbit4d.datasets` pulls in neither torch nor pyarrow.
"""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"orbit4d.datasets.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
