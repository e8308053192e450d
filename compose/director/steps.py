"""The five steps in which a director is asked: what is said, and what a reply must hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orbit4d.compose.director.replies import Check
from orbit4d.compose.schema import Schema, closed_object, list_of
from orbit4d.compose.spec import SPEC_SCHEMA, spec_fault
from orbit4d.compose.strict_json import printable

N_POINTS = 20
SYSTEM = "Answer with JSON for this schema and nothing else."
#: Fields of a spec that the product knows better than a model.
OWN_FIELDS = ("version", "prompt", "director")
_PIXELS: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 100_000}
_COORDINATE: Schema = {"type": "number", "minimum": -100_000, "maximum": 100_000}


@dataclass(frozen=True)
class Step:
    """One question: `name` of the step, the words, the schema of the answer, and a further check."""

    name: str
    text: str
    schema: Schema
    check: Check | None = None


def _asked_schema() -> dict[str, Any]:
    properties = {k: v for k, v in SPEC_SCHEMA["properties"].items() if k not in OWN_FIELDS}
    return {**SPEC_SCHEMA, **closed_object(properties), "$defs": SPEC_SCHEMA["$defs"]}


SPEC_ASKED = _asked_schema()


def spec_step(prompt: str) -> Step:
    """Step 1: the prompt into a spec, without the fields that we fill in."""

    def check(value: Any) -> str | None:
        fault = spec_fault({**value, "version": 1, "prompt": prompt, "director": "chat"})
        return fault or _unprintable(value)

    text = (
        "Split this description of a film into its scene, its actors with their motion, and what the camera "
        "does. Copy nouns from the description; invent nothing. Leave unknown fields null.\n\n" + prompt
    )
    return Step("spec", text, SPEC_ASKED, check)


def scale_step(object_: str, start: str, width: int, height: int) -> Step:
    """Step 2: how large the actor would be in the picture, in pixels."""
    text = (
        f"This is the scene, {width} x {height} pixels. How tall would {_words(object_)} be in it, standing "
        f"at {_words(start)}, in pixels? Give height and width."
    )
    schema = closed_object({"height": _PIXELS, "width": _PIXELS})

    def check(value: Any) -> str | None:
        if value["height"] > height or value["width"] > width:
            return f"height and width: larger than the picture of {width} x {height} pixels"
        return None

    return Step("scale", text, schema, check)


def place_step(name: str, place: str, width: int, height: int, start: Sequence[float] | None = None) -> Step:
    """Steps 3 and 4, `start` and `end`: the pixel in the middle of a place."""
    text = f"Draw a box around {_words(place)} in this picture. Give the pixel at its centre."
    if start is not None:
        text += f" The red mark at ({start[0]:g}, {start[1]:g}) is where the actor starts."
    schema = closed_object({"x": _COORDINATE, "y": _COORDINATE})
    return Step(name, text, schema, lambda value: _outside("", value["x"], value["y"], width, height))


def path_step(
    start: Sequence[float], end: Sequence[float], box: Sequence[float], width: int, height: int
) -> Step:
    """Step 5: twenty points of the middle of the actor's box; `box` is its (width, height) in pixels."""
    text = (
        f"The actor is the box drawn at the start. It moves from ({start[0]:g}, {start[1]:g}) to "
        f"({end[0]:g}, {end[1]:g}) on the ground, around what stands in its way. Give {N_POINTS} points of "
        "the middle of the box."
    )
    schema = closed_object({"points": list_of(list_of(_COORDINATE, 2, 2), N_POINTS, N_POINTS)})

    def check(value: Any) -> str | None:
        points = value["points"]
        for i, (x, y) in enumerate(points):
            if fault := _outside(f"points[{i}]: ", x, y, width, height):
                return fault
        for name, point, wanted in (("first", points[0], start), ("last", points[-1], end)):
            if abs(point[0] - wanted[0]) > box[0] / 2 or abs(point[1] - wanted[1]) > box[1] / 2:
                return f"points: the {name} is more than half a box from ({wanted[0]:g}, {wanted[1]:g})"
        return None

    return Step("path", text, schema, check)


def _outside(where: str, x: float, y: float, width: int, height: int) -> str | None:
    if math.isfinite(x) and math.isfinite(y) and 0 <= x <= width and 0 <= y <= height:
        return None
    return f"{where}({x:g}, {y:g}) is outside the picture of {width} x {height} pixels"


def _words(text: str) -> str:
    return printable(text, 200)


def _unprintable(value: Any, where: str = "") -> str | None:
    """Control characters in a text that would be printed or become words of a search."""
    if isinstance(value, str) and not value.isprintable():
        return f"{where or 'a text'}: holds control characters"
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return next((fault for key, one in members if (fault := _unprintable(one, f"{where}/{key}"))), None)
