"""Small asset files of the tests of datasets, for curation too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[1] / "datasets" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("orbit4d_tests_datasets", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_assets = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _assets
_SPEC.loader.exec_module(_assets)

make_cube, cube_document, pack_glb, cubes = (
    _assets.make_cube,
    _assets.cube_document,
    _assets.pack_glb,
    _assets.cubes,
)
