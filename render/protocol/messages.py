"""What driver and Blender child say, as types: each message is a frozen dataclass that becomes JSON and back.

`to_json` and `from_json` follow the type hints. A field that is missing, that nobody knows, or that has
another type is a ProtocolError which names it. NaN and infinity, which are no JSON, become null where the
hint allows None and are refused elsewhere. What the other tasks get and give is a
plain object inside the typed envelope.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

M = TypeVar("M")


class ProtocolError(Exception):
    """A message that is not what its type says; the text names the field."""


# Envelopes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """To the child: run the task of this name."""

    task: str
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """From the child, once: bpy is imported."""

    type: ClassVar[str] = "ready"
    versions: dict[str, str]


@dataclass(frozen=True)
class Event:
    """From the child while a task runs: `imported` (asset read), `action` (one is done), and tasks' own."""

    type: ClassVar[str] = "event"
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """The task's answer."""

    type: ClassVar[str] = "result"
    result: dict[str, Any]


@dataclass(frozen=True)
class Refused:
    """The input is bad in itself (`code` says how): trying again is pointless."""

    type: ClassVar[str] = "refused"
    code: str
    detail: str


@dataclass(frozen=True)
class Failed:
    """The task raised: trying again may help."""

    type: ClassVar[str] = "error"
    detail: str
    traceback: str = ""


Answer = Ready | Event | Done | Refused | Failed
_ANSWERS: dict[str, type[Any]] = {kind.type: kind for kind in (Ready, Event, Done, Refused, Failed)}


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """The object that stands on a line, with its `type`."""
    return {"type": answer.type, **to_json(answer)}


def answer_of(message: dict[str, Any]) -> Answer:
    """The answer on a line. Raises ProtocolError."""
    values = dict(message)
    name = values.pop("type", None)
    kind = _ANSWERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"no message is of type {name!r}")
    found: Answer = from_json(kind, values)
    return found


# Task `render_clips` ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RenderedAction:
    """One action whose views lie in the scratch folder."""

    index: int
    name: str
    window: tuple[float, float]
    """Start and end in seconds on the asset's clock."""
    scale: float
    centre: tuple[float, float, float]
    files: tuple[str, ...]
    """WebP images, one per view of the plan."""
    passes: dict[str, tuple[str, ...]]
    """Array files of each pass, one per view."""
    measures: dict[str, dict[str, float]]
    """Measures of each clip, under `<rig>/<orbit>`."""
    seconds: float
    plan_sha256: str
    """`Plan.sha256` of what was rendered: whoever builds the clips plans again, and must come to the same."""
    ground: float | None = None
    """Height of the ground under the object, in the world of the clips; None without a ground."""
    geometry: dict[str, str] | None = None
    """{"file"} in the scratch folder that holds its surfaces, or {"refused", "detail"}; None: not asked
    for.
    """
    skeleton: dict[str, str] | None = None
    """The same of its skeleton."""


@dataclass(frozen=True)
class RejectedAction:
    """An action of which no clip is made, and why."""

    index: int
    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class RenderResult:
    """The answer of `render_clips`."""

    actions: tuple[RenderedAction, ...]
    rejected: tuple[RejectedAction, ...]
    flags: tuple[str, ...]
    samples: int | None
    timings: dict[str, float]
    versions: dict[str, str]
    lights: tuple[dict[str, Any], ...] = ()
    """What each light of the settings came to."""


# JSON -------------------------------------------------------------------------------------------------------


def to_json(message: Any) -> dict[str, Any]:
    """A message as what `json` writes. Raises ProtocolError for NaN and infinity where no null may stand."""
    found: dict[str, Any] = _out(type(message), message, type(message).__name__)
    return found


def from_json(kind: type[M], values: Any) -> M:
    """The message of class `kind` that `to_json` made `values` of. Raises ProtocolError."""
    found: M = _in(kind, values, kind.__name__)
    return found


#: Class -> the hints of its fields, once read.
_HINTS: dict[Any, dict[str, Any]] = {}


def _is_message(hint: Any) -> bool:
    return is_dataclass(hint)


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind)
        _HINTS[kind] = {each.name: hints[each.name] for each in fields(kind)}
    return _HINTS[kind]


def _out(hint: Any, value: Any, where: str) -> Any:
    """`value` as JSON; what is of another type than its hint is refused here and not by the reader."""
    if _is_message(hint):
        return {name: _out(h, getattr(value, name), f"{where}.{name}") for name, h in _hints(hint).items()}
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ProtocolError(f"{where} is {value}, which JSON does not have")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        (inner,) = (each for each in arguments if each is not type(None))
        return _out(inner, value, where)
    if origin is tuple:
        return [_out(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(_items(hint, value, where))]
    if origin is dict:
        return {key: _out(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    return _in(hint, value, where)


def _in(hint: Any, value: Any, where: str) -> Any:
    if _is_message(hint):
        return _message(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (each for each in arguments if each is not type(None))
        return _in(inner, value, where)
    if origin is tuple:
        return tuple(_in(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(_items(hint, value, where)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ProtocolError(f"{where} is {value!r}, no object")
        return {str(key): _in(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ProtocolError(f"{where} is {value!r}, not {hint.__name__}")
    return value


def _items(hint: Any, value: Any, where: str) -> list[tuple[Any, Any]]:
    """(hint, item) for each item of a list that stands for a tuple."""
    arguments = typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise ProtocolError(f"{where} is {value!r}, no list")
    if arguments[-1] is Ellipsis:
        return [(arguments[0], item) for item in value]
    if len(value) != len(arguments):
        raise ProtocolError(f"{where} holds {len(value)} values, not {len(arguments)}")
    return list(zip(arguments, value))


def _message(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ProtocolError(f"{where} is {values!r}, no object")
    hints = _hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ProtocolError(f"{where} has no field {unknown[0]}")
    for each in fields(kind):
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ProtocolError(f"{where}.{each.name} is missing")
    return kind(**{name: _in(hints[name], value, f"{where}.{name}") for name, value in values.items()})
