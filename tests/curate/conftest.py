"""Small asset files of the tests of datasets, for curation too."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

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


@pytest.fixture
def count_calls() -> Callable[[Callable[[], object]], int]:
    """`count_calls(work)`: how many functions, Python's and C's, `work()` calls in this thread.

    The same on every machine, however busy: it says how work grows with its input, which seconds do not.
    """

    def count(work: Callable[[], object]) -> int:
        calls = 0

        def note(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
        return calls

    return count
