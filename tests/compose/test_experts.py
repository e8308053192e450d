"""The registry of experts: a package built in the test adds one, a broken one costs a line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orbit4d.compose import Concept, ExpertRequest, expert
from orbit4d.compose.experts import ask, expert_problems, experts, get_expert
from orbit4d.datasets import InputError


def build(folder: Path, name: str, module: str, point: str) -> None:
    """An installed distribution by hand: a module and its metadata."""
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[orbit4d.experts]\n{point}\n", encoding="utf-8")


def test_a_package_brings_an_expert_and_a_broken_one_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (
        "from orbit4d.compose import Concept\n"
        "def make(request):\n"
        "    return Concept('scene', 'a test', True, value=(request.text, request.seed))\n"
    )
    build(tmp_path, "good_expert_of_test", good, "scene:painted = good_expert_of_test:make")
    bad = "raise OSError('no\\x1b weights')\n"
    build(tmp_path, "bad_expert_of_test", bad, "object:lost = bad_expert_of_test:make")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(RuntimeWarning, match="lost of bad_expert_of_test: OSError"):
        found = experts("scene")
    assert "painted" in found and "lost" not in experts("object")
    concept = ask("scene", "painted", ExpertRequest("a beach", 3))
    assert concept.is_model and concept.value == ("a beach", 3)
    (problem,) = [line for line in expert_problems() if "bad_expert_of_test" in line]
    assert problem.isprintable()
    sys.modules.pop("good_expert_of_test", None)


def test_the_decorator_registers_and_wrong_use_is_named() -> None:
    @expert("motion", "still")
    def still(request: ExpertRequest) -> Concept:
        return Concept("motion", "nobody")

    assert get_expert("motion", "still") is still

    @expert("motion", "wrong")
    def wrong(request: ExpertRequest) -> Concept:
        return "no concept"  # type: ignore[return-value]

    with pytest.raises(InputError, match="returned str and no Concept"):
        ask("motion", "wrong", ExpertRequest(""))
    with pytest.raises(InputError, match=r"no motion expert of this name; there are: .*still"):
        get_expert("motion", "none")
    with pytest.raises(InputError, match="role 'cook' is none of"):
        expert("cook", "x")  # type: ignore[arg-type]


def test_built_in_experts_bring_assets_and_scenes(tmp_path: Path) -> None:
    rows = [{"uid": "fox", "caption": "a fox", "action": "Walk", "licence": "CC0-1.0", "author": "Ann"}]
    found = ask("object", "library", ExpertRequest("foxes", about={"library": rows, "action": "walking"}))
    assert found.value.uid == "fox" and not found.is_model and found.credits[0].author == "Ann"
    stage = ask(
        "scene", "procedural", ExpertRequest("a sunny beach", 1, about={"places": {"rock": (1.0, 1.0)}})
    )
    assert stage.value.name == "beach" and stage.value.landmarks[0].name == "rock" and not stage.is_model
    with pytest.raises(InputError, match="no scene"):
        ask("scene", "scene-folder", ExpertRequest(str(tmp_path)))
    with pytest.raises(InputError, match="needs about"):
        ask("motion", "library", ExpertRequest("fox"))
