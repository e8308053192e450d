"""`orbit4d compose plan`: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orbit4d.compose import Spec
from orbit4d.compose.cli.plan import plan
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
