"""What a film is to show: the strict form between a sentence and everything that is built from it.

A director (rules, a language model, a recorded run) writes a `Spec`; retrieval, placement, composition and
the camera read it. Every field is always there, nothing else is, and `SPEC_SCHEMA` is written from the
classes below. The fields follow equation 3 and 4 of C3V (arXiv 2409.00558): scene, objects, their motion,
their places.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from orbit4d.compose.schema import (
    DIALECT,
    closed_object,
    first_fault,
    form,
    list_of,
    object_schema,
    optional,
    positive,
    text,
)
from orbit4d.compose.strict_json import NotJson, parse_json, printable
from orbit4d.datasets.core.errors import InputError

Director = Literal["rules", "chat", "recorded"]
Side = Literal["left", "right", "near", "far", "centre"]
PlaceKind = Literal["side", "landmark", "actor", "pixel"]
PlaceRelation = Literal[
    "at", "near", "behind", "in_front_of", "beside", "left_of", "right_of", "on", "under", "above"
]
PathShape = Literal["straight", "circle", "zigzag", "curve", "wander"]
RelationKind = Literal[
    "chase",
    "follow",
    "lead",
    "toward",
    "away_from",
    "beside",
    "behind",
    "in_front_of",
    "left_of",
    "right_of",
    "around",
    "on",
    "under",
    "above",
    "facing",
]
Move = Literal["static", "follow", "orbit", "pan_left", "pan_right", "zoom_in", "zoom_out", "bullet_time"]
Framing = Literal["close", "medium", "wide"]
Angle = Literal["low", "eye", "high", "top"]

MAX_PROMPT = 2000
MAX_ACTORS = 20
MAX_COUNT = 20
MAX_SECONDS = 600.0
MAX_SHOTS = 8
MAX_THEN = 8
MAX_TEXT = 200

_INDEX = {"type": "integer", "minimum": 0}
_TEXT = text(MAX_TEXT)
_PLACE = {"$ref": "#/$defs/place"}


def _one_of(words: Any, *more: None) -> dict[str, Any]:
    return {"enum": [*more, *get_args(words)]}


@dataclass(frozen=True)
class Place:
    """Where something starts, ends or turns around.

    `value` is one of `Side` for kind `side`, words for `landmark`, an actor's id for `actor`, and (x, y) in
    pixels of the placement camera for `pixel`.
    """

    kind: PlaceKind
    value: str | int | tuple[float, float]
    relation: PlaceRelation = "at"

    VALUES: ClassVar[dict[str, Any]] = {
        "side": _one_of(Side),
        "landmark": _TEXT,
        "actor": _INDEX,
        "pixel": list_of({"type": "number"}, 2, 2),
    }


@dataclass(frozen=True)
class Size:
    """How large an actor is: `factor` times what is usual, or `metres` of height (factor is 1 then)."""

    factor: float = field(default=1.0, metadata=form(positive(100)))
    metres: float | None = field(default=None, metadata=form(optional(positive(1000))))


@dataclass(frozen=True)
class Speed:
    """How fast it goes: `factor` times its natural speed, or `mps` metres per second."""

    factor: float = field(default=1.0, metadata=form(positive(10)))
    mps: float | None = field(default=None, metadata=form(optional(positive(1000))))


@dataclass(frozen=True)
class Path:
    """The form of an actor's way, what it goes around, and the words that say so."""

    shape: PathShape = field(default="straight", metadata=form(_one_of(PathShape)))
    around: Place | None = field(default=None, metadata=form(optional(_PLACE)))
    words: tuple[str, ...] = field(default=(), metadata=form(list_of({"type": "string"})))


@dataclass(frozen=True)
class Relation:
    """What an actor has to do with another one."""

    kind: RelationKind = field(metadata=form(_one_of(RelationKind)))
    actor: int = field(metadata=form(_INDEX))


@dataclass(frozen=True)
class Actor:
    """One kind of thing in the film, `count` of it; `id` is its index in `Spec.actors`.

    `action` is a canonical verb (docs/reference/compose.md lists them) or the verb's lemma; `action_given`
    is False where the prompt names no motion and `idle` stands in. `distance_m` is in metres.
    """

    id: int = field(metadata=form(_INDEX))
    object: str = field(metadata=form(_TEXT))
    action: str = field(default="idle", metadata=form(_TEXT))
    action_text: str = field(default="", metadata=form(text(MAX_TEXT, 0)))
    action_given: bool = field(default=False, metadata=form({"type": "boolean"}))
    then: tuple[str, ...] = field(default=(), metadata=form(list_of(_TEXT, MAX_THEN)))
    count: int = field(default=1, metadata=form({"type": "integer", "minimum": 1, "maximum": MAX_COUNT}))
    size: Size = field(default=Size(), metadata=form(object_schema(Size)))
    start: Place | None = field(default=None, metadata=form(optional(_PLACE)))
    end: Place | None = field(default=None, metadata=form(optional(_PLACE)))
    path: Path = field(default=Path(), metadata=form(object_schema(Path)))
    speed: Speed = field(default=Speed(), metadata=form(object_schema(Speed)))
    distance_m: float | None = field(default=None, metadata=form(optional(positive(100_000))))
    relation: Relation | None = field(default=None, metadata=form(optional(object_schema(Relation))))


@dataclass(frozen=True)
class Shot:
    """One shot of the camera; None: the director decides. `of` is the actor it looks at, None: all."""

    move: Move | None = field(default=None, metadata=form(_one_of(Move, None)))
    shot: Framing | None = field(default=None, metadata=form(_one_of(Framing, None)))
    angle: Angle | None = field(default=None, metadata=form(_one_of(Angle, None)))
    of: int | None = field(default=None, metadata=form(optional(_INDEX)))


@dataclass(frozen=True)
class Setting:
    """The scene: a noun phrase without its article, None where none is named."""

    text: str | None = field(default=None, metadata=form(optional(_TEXT)))


@dataclass(frozen=True)
class Spec:
    """A film in words that programs read. See `from_json` for what is checked.

    `excluded` are objects that must not be there; `camera` is empty where the director decides; `duration_s`
    is in seconds; `unused` are content words of the prompt that nothing came of, in order.
    """

    prompt: str = field(metadata=form(text(MAX_PROMPT, 0)))
    actors: tuple[Actor, ...] = field(metadata=form(list_of({"$ref": "#/$defs/actor"}, MAX_ACTORS, 1)))
    director: Director = field(default="rules", metadata=form(_one_of(Director)))
    scene: Setting = field(default=Setting(), metadata=form(object_schema(Setting)))
    excluded: tuple[str, ...] = field(default=(), metadata=form(list_of(_TEXT, MAX_ACTORS)))
    camera: tuple[Shot, ...] = field(default=(), metadata=form(list_of({"$ref": "#/$defs/shot"}, MAX_SHOTS)))
    duration_s: float | None = field(default=None, metadata=form(optional(positive(MAX_SECONDS))))
    unused: tuple[str, ...] = field(default=(), metadata=form(list_of({"type": "string"})))
    version: int = field(default=1, metadata=form({"const": 1}))

    def as_json(self) -> dict[str, Any]:
        """The spec as plain dicts, lists, strings and numbers that `SPEC_SCHEMA` accepts."""
        return {name: _plain(getattr(self, name)) for name in SPEC_SCHEMA["required"]}

    def as_text(self) -> str:
        """`as_json` as the bytes of spec.json: the same for the same prompt, always."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, value: Any, what: str = "spec") -> Spec:
        """The spec that a plain dict, or its JSON text, stands for; `what` names it in messages.

        Raises:
            InputError: it is no JSON, breaks `SPEC_SCHEMA`, or an invariant: ids are the indices, actors
                that are named exist and are not the actor itself, `unused` words occur in the prompt.
        """
        try:
            value = parse_json(value) if isinstance(value, str) else value
        except NotJson as error:
            raise InputError(
                f"{what}: {error}; give a spec as `orbit4d compose plan --json` prints"
            ) from None
        if fault := spec_fault(value):
            raise InputError(f"{what}: {fault}; give a spec as `orbit4d compose plan --json` prints")
        actors = tuple(_actor(entry) for entry in value["actors"])
        camera = tuple(Shot(**shot) for shot in value["camera"])
        lists = {name: tuple(value[name]) for name in ("excluded", "unused")}
        scene = Setting(**value["scene"])
        return cls(**{**value, **lists, "actors": actors, "camera": camera, "scene": scene, "version": 1})


def spec_fault(value: Any) -> str | None:
    """The first way in which a plain value is no spec, schema first and then the invariants."""
    return first_fault(value, SPEC_SCHEMA) or next(_broken_invariants(value), None)


def words_of(prompt: str) -> set[str]:
    """Words of a prompt in lower case, as `Spec.unused` holds them."""
    return set(re.findall(r"[^\W_]+(?:['’\-][^\W_]+)*", prompt.lower()))


def _broken_invariants(value: dict[str, Any]) -> Iterator[str]:
    n = len(value["actors"])
    for index, actor in enumerate(value["actors"]):
        here = f"actors[{index}]"
        if actor["id"] != index:
            yield f"{here}.id: {actor['id']} is not its index {index}"
        named = [(f"{here}.relation.actor", actor["relation"]["actor"])] if actor["relation"] else []
        places = {"start": actor["start"], "end": actor["end"], "path.around": actor["path"]["around"]}
        named += [
            (f"{here}.{name}.value", place["value"])
            for name, place in places.items()
            if place is not None and place["kind"] == "actor"
        ]
        for where, other in named:
            if other >= n:
                yield f"{where}: there is no actor {other}; there are {n}"
            if other == index:
                yield f"{where}: is the actor itself"
    for index, shot in enumerate(value["camera"]):
        if shot["of"] is not None and shot["of"] >= n:
            yield f"camera[{index}].of: there is no actor {shot['of']}; there are {n}"
    prompt = value["prompt"].lower()
    for word in value["unused"]:
        if word.lower() not in prompt:
            yield f"unused: {printable(word, 40)!r} is no word of the prompt"


def _actor(value: dict[str, Any]) -> Actor:
    relation = value["relation"] and Relation(value["relation"]["kind"], int(value["relation"]["actor"]))
    path = value["path"]
    changed = {
        "id": int(value["id"]),
        "count": int(value["count"]),
        "then": tuple(value["then"]),
        "size": Size(**value["size"]),
        "speed": Speed(**value["speed"]),
        "start": _place(value["start"]),
        "end": _place(value["end"]),
        "path": Path(path["shape"], _place(path["around"]), tuple(path["words"])),
        "relation": relation,
    }
    return Actor(**{**value, **changed})


def _place(value: dict[str, Any] | None) -> Place | None:
    if value is None:
        return None
    found = value["value"]
    if value["kind"] == "pixel":
        found = (float(found[0]), float(found[1]))
    elif value["kind"] == "actor":
        found = int(found)
    return Place(value["kind"], found, value["relation"])


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _place_schema() -> dict[str, Any]:
    """One form per kind: JSON Schema without `if`, which language models' endpoints do not take."""
    relation = _one_of(PlaceRelation)
    forms = [
        closed_object({"kind": {"type": "string", "const": kind}, "value": form, "relation": relation})
        for kind, form in Place.VALUES.items()
    ]
    return {"anyOf": forms}


def _spec_schema() -> dict[str, Any]:
    schema = object_schema(Spec)
    order = [
        "version",
        "prompt",
        "director",
        "scene",
        "actors",
        "excluded",
        "camera",
        "duration_s",
        "unused",
    ]
    schema["required"] = order
    schema["properties"] = {name: schema["properties"][name] for name in order}
    defs = {"actor": object_schema(Actor), "place": _place_schema(), "shot": object_schema(Shot)}
    return {"$schema": DIALECT, "title": "orbit4d compose spec", **schema, "$defs": defs}


#: JSON Schema 2020-12 of `Spec.as_json()`: no other keys, every key required.
SPEC_SCHEMA: dict[str, Any] = _spec_schema()
