"""`orbit4d compose plan`: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orbit4d.compose import Spec, rules_director
from orbit4d.compose.characters.concepts import clip_of
from orbit4d.compose.characters.gltf_rig import read_gltf
from orbit4d.compose.cli.group import compose
from orbit4d.compose.cli.parts import Wanted, sized
from orbit4d.compose.cli.plan import plan
from orbit4d.compose.cli.run import run as compose_run
from orbit4d.compose.placement.planning import Cast
from orbit4d.datasets import InputError
from orbit4d.datasets.commands.command import run

LIBRARY = """uid,action,caption,licence,author
horse,Gallop,a horse,CC0-1.0,Ann
horse,Idle,a horse,CC0-1.0,Ann
rat,Rat_Run,a rat,,
seal,Swim,a seal,CC-BY-NC-4.0,Bob
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "actions.csv"
    path.write_text(LIBRARY, encoding="utf-8")
    return path


def test_it_says_who_directed_what_stood_in_and_what_was_not_used(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plan, ["a unicorn galops while a rat stares, cinematic", "--library", str(library)]) == 0
    out = capsys.readouterr().out
    assert "director  rules (grammar; no language model ran)" in out
    assert 'spelling  "galops" read as "gallops"' in out
    assert '"unicorn gallops": horse, Gallop (stands in for unicorn' in out
    assert "rat, Rat_Run (no motion for stare" in out
    assert 'unused    "cinematic"' in out and "left out  1 assets under CC-BY-NC-4.0" in out
    assert "licence   unknown of rat" in out


def test_json_holds_a_spec_and_the_five_best(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(plan, ["a horse runs", "--library", str(library), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Spec.from_json(found["spec"]).actors[0].object == "horse"
    assert found["cast"][0]["uid"] == "horse" and found["cast"][0]["best"][0]["action"] == "Gallop"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jumps"], "nobody in it"),
        (["a fox", "--director", "gpt"], "is none of rules, chat"),
        (["a fox", "--director", "chat"], "--chat-url"),
        (["a fox", "--director", "chat", "--chat-url", "http://a:b@c/v1"], "ORBIT4D_CHAT_KEY"),
        (["a fox", "--director", "recorded:none.jsonl"], "none.jsonl"),
        (["a fox", "--library", "none.csv"], "no such library"),
        (["a fox", "--library", "LIBRARY", "--license", "mit"], "leaves no asset of 3"),
        (["a robot", "--library", "LIBRARY", "--strict"], "no asset for 'robot'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    library: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(plan, [str(library) if word == "LIBRARY" else word for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err and "Traceback" not in err


def test_it_says_where_they_would_stand(toys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a fox walks from the left to the right while a 2 m tall wolf stands"
    assert run(plan, [prompt, "--library", str(toys.library), "--json"]) == 0
    said = capsys.readouterr()
    fox, wolf = json.loads(said.out)["places"]
    assert fox["start"][0] < 0 < fox["end"][0] and fox["speed_mps"] > 0
    assert wolf["start"] == wolf["end"] and wolf["metres"] == 2 and wolf["speed_mps"] == 0
    assert "place 1   2 m tall, stands at (" in said.err


def test_places_that_nobody_can_know_are_said(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(plan, ["a horse gallops", "--library", str(library)]) == 0
    assert "places    not known: horse has no glTF file here" in capsys.readouterr().out


def test_a_dry_run_is_a_plan_and_writes_nothing(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a plan takes every option of `compose`, checks it, and heeds it."""
    out = tmp_path / "out"
    words = ["a fox walks 3 metres, then jumps", "--library", str(toys.library), "--out", str(out)]
    assert run(compose, [*words, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert run(compose, ["plan", *words]) == 0
    assert capsys.readouterr().out == dry and not out.exists()
    assert "then jump: not shown, walk is all it does" in dry
    assert {param.name for param in plan.params} >= {p.name for p in compose_run.params} - {"dry_run"}
    assert run(plan, [*words, "--scene", "procedural:beach", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["scene"]["text"] == "beach"
    for more, message in (
        (["--scene", "nowhere"], "--scene nowhere: take procedural:"),
        (["--scene", str(tmp_path)], "no scene (no scene.json)"),
        (["--frames", "1"], "2 to 2000"),
        (["--depth-model", "x"], "--depth-model: lifts"),
        (["--out", str(tmp_path)], "holds other files"),
    ):
        (tmp_path / "file").write_text("")
        assert run(plan, [*words, *more]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("prompt", "more", "seconds", "said"),
    [
        ("a fox walks", {}, 2.0, ""),
        ("a fox walks for 6 seconds", {}, 6.0, ""),
        ("a fox walks for 6 seconds", {"frames": 48}, 2.0, "2.00 s long, where the prompt says 6"),
        ("a fox walks for 6 seconds", {"frames": 144}, 6.0, ""),
        ("a fox walks 4 metres at 0.5 m/s", {"fps": 10.0}, 8.25, ""),
    ],
)
def test_how_long_a_film_is(toys: Any, prompt: str, more: dict[str, Any], seconds: float, said: str) -> None:
    spec = rules_director(prompt)
    character = read_gltf(str(toys.library.parent / "toy_fox.glb"))
    casts = [Cast(0, clip_of(character, "Walk"), 0.5)]
    notes: list[str] = []
    wanted = sized(Wanted(prompt, (), **more), spec, casts, notes)
    assert -1e-6 <= wanted.frames / wanted.fps - seconds < 1 / wanted.fps
    assert said in " ".join(notes) and bool(notes) == bool(said)
    with pytest.raises(InputError, match=r"600 s at 24 frames a second are 14400 frames"):
        sized(Wanted(prompt, ()), rules_director("a fox walks for 10 minutes"), casts, notes)
