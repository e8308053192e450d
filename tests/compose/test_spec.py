"""The spec: its schema against the published contract, round trips, invariants, strict reading."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orbit4d.compose import SPEC_SCHEMA, Spec
from orbit4d.compose.schema import first_fault
from orbit4d.compose.spec import spec_fault
from orbit4d.compose.strict_json import NotJson, depth_of, parse_json, printable
from orbit4d.datasets import InputError

FULL: dict[str, Any] = {
    "version": 1,
    "prompt": "a small fox runs to a white barn; it meets a sparkling dog",
    "director": "rules",
    "scene": {"text": "forest"},
    "actors": [
        {
            "id": 0,
            "object": "fox",
            "action": "run",
            "action_text": "runs",
            "action_given": True,
            "then": ["idle"],
            "count": 2,
            "size": {"factor": 0.5, "metres": None},
            "start": {"kind": "side", "value": "left", "relation": "at"},
            "end": {"kind": "landmark", "value": "white barn", "relation": "near"},
            "path": {
                "shape": "circle",
                "around": {"kind": "actor", "value": 1, "relation": "at"},
                "words": ["circle"],
            },
            "speed": {"factor": 1.5, "mps": 2.5},
            "distance_m": 20.0,
            "relation": {"kind": "toward", "actor": 1},
        },
        {
            "id": 1,
            "object": "dog",
            "action": "idle",
            "action_text": "",
            "action_given": False,
            "then": [],
            "count": 1,
            "size": {"factor": 1.0, "metres": 0.7},
            "start": {"kind": "pixel", "value": [10.5, 20.0], "relation": "at"},
            "end": None,
            "path": {"shape": "straight", "around": None, "words": []},
            "speed": {"factor": 1.0, "mps": None},
            "distance_m": None,
            "relation": None,
        },
    ],
    "excluded": ["person"],
    "camera": [{"move": "orbit", "shot": "close", "angle": None, "of": 0}],
    "duration_s": 7.5,
    "unused": ["sparkling"],
}

#: Values that each place of a spec is tried with.
PROBES = [
    *(None, True, False, 0, 1, 2, 20, 21, -1, 1.0, 0.5, 1e9, "", "x", "left", "at", "landmark", "side"),
    *("pixel", "rules", "x" * 200, "x" * 201, [], {}, [1, 2], [1.5, 2.5], [1, 2, 3], ["x"], ["x", ""]),
    *({"text": "x"}, {"kind": "side", "value": "near", "relation": "at"}, {"factor": 2, "metres": 3}),
    *({"kind": "actor", "value": 1.0, "relation": "on"}, {"kind": "actor", "value": 1.5, "relation": "on"}),
]


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every member of a plain value."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [p for key in keys for p in ((*here, key), *places(value[key], (*here, key)))]


def changed(path: tuple[Any, ...], probe: Any) -> dict[str, Any]:
    spec = copy.deepcopy(FULL)
    holder: Any = spec
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = copy.deepcopy(probe)
    return spec


def test_a_full_spec_round_trips_and_keeps_its_bytes() -> None:
    spec = Spec.from_json(FULL)
    assert spec.as_json() == FULL
    assert Spec.from_json(spec.as_text()) == spec
    assert Spec.from_json(json.dumps(FULL, sort_keys=True)).as_text() == spec.as_text()


def test_our_schema_is_a_schema_that_a_validator_takes() -> None:
    jsonschema.Draft202012Validator.check_schema(SPEC_SCHEMA)
    jsonschema.validate(FULL, SPEC_SCHEMA)


def test_our_schema_accepts_what_the_contract_accepts_and_nothing_else(shared: Path) -> None:
    """Every place of a full spec is tried with every probe, lost, and given a key too many."""
    text = (shared / "fixtures" / "c3v" / "spec.schema.json").read_text(encoding="utf-8")
    contract = jsonschema.Draft202012Validator(json.loads(text))
    ours = jsonschema.Draft202012Validator(SPEC_SCHEMA)
    tried = accepted = 0
    for path in places(FULL):
        for probe in PROBES[:: 1 if len(path) < 5 else 2]:
            spec = changed(path, probe)
            valid = contract.is_valid(spec)
            assert ours.is_valid(spec) == valid, (path, probe)
            assert (first_fault(spec, SPEC_SCHEMA) is None) == valid, (path, probe)
            tried, accepted = tried + 1, accepted + valid
        lost = copy.deepcopy(FULL)
        holder: Any = lost
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        assert (first_fault(lost, SPEC_SCHEMA) is None) == contract.is_valid(lost), path
        if isinstance(holder, dict):
            holder["extra"] = 1
            assert first_fault(lost, SPEC_SCHEMA) is not None and not contract.is_valid(lost)
    assert tried > 1000 and 0 < accepted < tried


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("actors", 1, "id"), 0, "actors[1].id: 0 is not its index 1"),
        (("actors", 0, "relation", "actor"), 2, "actors[0].relation.actor: there is no actor 2"),
        (("actors", 0, "relation", "actor"), 0, "actors[0].relation.actor: is the actor itself"),
        (("actors", 0, "path", "around", "value"), 5, "actors[0].path.around.value: there is no actor 5"),
        (("actors", 1, "end"), {"kind": "actor", "value": 1, "relation": "at"}, "is the actor itself"),
        (("camera", 0, "of"), 9, "camera[0].of: there is no actor 9"),
        (("unused",), ["robot"], "unused: 'robot' is no word of the prompt"),
    ],
)
def test_invariants_are_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    fault = spec_fault(changed(path, value))
    assert fault is not None and message in fault
    with pytest.raises(InputError, match="spec: "):
        Spec.from_json(changed(path, value))


def test_faults_are_one_short_line_whatever_stands_there(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        evil = "".join(chr(draw.choice([10, 13, 27, 0, 0x202E, 65, 0x1F600])) for _ in range(300))
        fault = spec_fault(changed(draw.choice(places(FULL)), evil))
        assert fault is None or (fault.isprintable() and len(fault) <= 300), fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "beyond"),
        ('{"a": ' + "9" * 5000 + "}", "beyond"),
        ("[" * 1000 + "]" * 1000, "nested 1000 deep"),
        ('"' + "x" * 300_000 + '"', "more than 262144"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("{'a': 1}", "no JSON"),
        ("", "no JSON"),
        ('{"a": 1} {"b": 2}', "no JSON"),
    ],
)
def test_strict_json_refuses(text: str, message: str) -> None:
    with pytest.raises(NotJson, match=message) as caught:
        parse_json(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_strict_json_reads_what_json_reads() -> None:
    value = {"a": [1, 2.5, '[[[{\\"', None, True], "é": {"b": "\n"}}
    assert parse_json(json.dumps(value)) == value
    assert depth_of('{"a": ["]]]{{{ \\" [", []]}') == 3


def test_printable_hides_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(printable("x" * 500)) == 200
