"""What a test needs beside Python: read from its fixtures and its code, and compared with what it starts.

Markers `blender`, `ray`, `shared`, and `slow` where a fixture is, are set here, so that no test has to
remember them; one that starts Blender or Ray by a command line alone carries its marker itself. A test that
starts either without its marker fails. `slow` of a single test, and `gpu`, are written at the test.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

_BOTH = ("blender", "ray")
#: Fixtures whose own code does not show what they start.
FIXTURES = {
    "in_blender": ("blender",),
    "cubes": ("blender",),
    "shared": ("shared",),
    "tiny_scene": ("slow",),  # a fit
}
#: Names of functions, classes and modules that start a Blender or a Ray, or need one.
NAMES = {
    "BlenderChild": ("blender",),
    "Worker": ("blender",),
    "bpy": ("blender",),
    "build_assets": ("blender",),
    "ray": ("ray",),
    "ray_cluster": ("ray",),
    "train_on_ray": ("ray",),
    "run_fleet": _BOTH,
    "render_assets": _BOTH,
    "TruthCache": _BOTH,
    "orbit4d.curate.measuring.measure": _BOTH,
    "orbit4d.curate.measuring.measure_sources": _BOTH,
}
#: The same in programs, or their names, that a test hands to another process.
PROGRAMS = {
    r"import bpy|BlenderChild|orbit4d\.render\.blender\.main": ("blender",),
    r"import ray|ray_cluster\(|ray\.init|^ray$": ("ray",),
    r"run_fleet|orbit4d\.(curate|render)\.cli import main": _BOTH,
    r"^(mypy|sphinx)$": ("slow",),
    r"^05_render_an_asset\.py$|^06_own_curation_rule\.py$": _BOTH,
}

#: Files whose tests run command lines of pages: what these start stands in no test.
FILES = {"test_tutorials.py": ("blender", "ray", "slow")}


def needs(functions: Iterable[FunctionType], fixtures: Iterable[str] = ()) -> set[str]:
    """Markers of a test that is made of `functions` and uses fixtures of these names."""
    found = {marker for name in fixtures for marker in FIXTURES.get(name, ())}
    for function in functions:
        for kind, text in _mentions(function, set()):
            if kind == "name":
                words = {text, *text.split(".")}
                found |= {marker for word in words for marker in NAMES.get(word, ())}
            else:
                found |= {m for pattern, ms in PROGRAMS.items() if re.search(pattern, text) for m in ms}
    return found


def _mentions(function: FunctionType, seen: set[FunctionType]) -> Iterator[tuple[str, str]]:
    """("name" or "text", what stands) in the code of a function and of those of its file that it uses."""
    if function in seen:
        return
    seen.add(function)
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        for name in code.co_names:
            yield "name", name
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and value.__code__.co_filename == code.co_filename:
                yield from _mentions(value, seen)
            elif isinstance(value, str):
                yield "text", value
            elif value is not None:
                yield "name", f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                codes.append(constant)
            elif isinstance(constant, str) and constant != function.__doc__:
                yield "text", constant


def functions_of(item: pytest.Item) -> list[FunctionType]:
    """The functions that make a test: its own, without decorators, and those of its fixtures."""
    test = getattr(item, "obj", None)
    test = getattr(getattr(test, "hypothesis", None), "inner_test", test)
    found: list[Any] = [test]
    info = getattr(item, "_fixtureinfo", None)
    for definitions in info.name2fixturedefs.values() if info is not None else ():
        found += [definition.func for definition in definitions]
    plain = (inspect.unwrap(getattr(each, "__func__", each)) for each in found if each is not None)
    return [each for each in plain if isinstance(each, FunctionType)]


def mark(items: Iterable[pytest.Item]) -> None:
    """Set the markers of all tests that were collected."""
    for item in items:
        found = needs(functions_of(item), getattr(item, "fixturenames", ()))
        for marker in sorted(found.union(FILES.get(item.path.name, ()))):
            item.add_marker(marker)


# What is started -------------------------------------------------------------------------------------------

_started: set[str] = set()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: the processes that this one starts."""
    if event != "subprocess.Popen":
        return
    given = arguments[1]
    words = [given] if isinstance(given, str | bytes | os.PathLike) else list(given or ())
    texts = [os.fsdecode(word) for word in words]
    if any("orbit4d.render.blender.main" in text or "import bpy" in text for text in texts):
        _started.add("blender")
    if texts and os.path.basename(texts[0]) in ("raylet", "gcs_server"):
        _started.add("ray")


class Watch:
    """Plugin: a test that starts Blender or Ray and does not carry the marker fails."""

    def __init__(self) -> None:
        sys.addaudithook(_watch)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        _started.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        yield
        unmarked = _started - {marker.name for marker in item.iter_markers()}
        if unmarked:
            pytest.fail(
                f"starts {' and '.join(sorted(unmarked))} without the marker: name what starts it in "
                "tests/markers.py, or mark the test",
                pytrace=False,
            )
