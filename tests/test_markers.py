"""The law of markers: who starts Blender or Ray is known before it runs, and found out when it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

HERE = Path(__file__).resolve().parent


def needs_of(text: str, file: str = "test_x.py") -> set[str]:
    """Markers of the function `test` of a module of this text."""
    module: dict[str, object] = {"__name__": "test_x"}
    exec(compile(text, file, "exec"), module)
    test = module["test"]
    assert isinstance(test, FunctionType)
    return _markers().needs([test])


def _markers() -> ModuleType:
    return sys.modules["orbit4d_tests_markers"]


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("import json\ndef test(): json.dumps('ray of light, Blender')", set()),
        ("def test(): import ray", {"ray"}),
        ("def test():\n    from ray.cluster_utils import Cluster", {"ray"}),
        ("def test(): pytest.importorskip('ray')", {"ray"}),
        ("CODE = 'import bpy'\ndef test(): run(CODE)", {"blender"}),
        ("def helper():\n    with BlenderChild(): pass\ndef test(): helper()", {"blender"}),
        ("def test(): (lambda: render_assets())()", {"blender", "ray"}),
        ("from orbit4d.curate import measure\ndef test(): measure([])", {"blender", "ray"}),
        ("def test(suite): suite.measure()", set()),
        ("def test():\n    '''No import bpy here.'''", set()),
    ],
)
def test_what_a_test_needs_is_read_from_its_code(text: str, markers: set[str]) -> None:
    assert needs_of(text) == markers


def test_fixtures_bring_their_markers(request: pytest.FixtureRequest) -> None:
    names = {"in_blender": {"blender"}, "shared": {"shared"}, "tmp_path": set()}
    assert {name: _markers().needs([], [name]) for name in names} == names


CONFTEST = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("markers", {path!r})
markers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(markers)
def pytest_configure(config):
    for name in ("blender", "ray"):
        config.addinivalue_line("markers", name)
    config.pluginmanager.register(markers.Watch())
def pytest_collection_modifyitems(items):
    markers.mark(items)
"""

# A command line that no reading finds: the process that is started is what gives it away.
HIDDEN = """
import subprocess, sys
import pytest
def start(*words):
    subprocess.run([sys.executable, "-c", "", *words])
def test_hidden():
    start(".".join(["orbit4d", "render", "blender", "main"]))
@pytest.mark.blender
def test_marked():
    start(".".join(["orbit4d", "render", "blender", "main"]))
def test_neither():
    start("nothing")
def test_seen():
    "import " + "bpy"
    start("import bpy")
"""


def test_a_start_without_its_marker_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(path=str(HERE / "markers.py")))
    (tmp_path / "test_hidden.py").write_text(HIDDEN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_hidden.py::test_hidden - " in done.stdout
    assert "starts blender without the marker" in done.stdout


def test_unknown_markers_are_refused(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getoption("strict_markers")
    known = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {"slow", "blender", "ray", "shared", "gpu", "random"} <= known
