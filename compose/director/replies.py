"""Reading what a language model answered: text that is data, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orbit4d.compose.schema import Schema, first_fault
from orbit4d.compose.strict_json import NotJson, nesting, parse_json

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*\Z", re.DOTALL)
#: What a step checks beyond its schema: the fault in one line, or None.
Check = Callable[[Any], str | None]


class InvalidReply(ValueError):
    """A reply that cannot be used; the message is the first fault in one line."""


def json_of(text: str) -> str:
    """The JSON in a reply: inside its one code fence, else all of it, else the first balanced object."""
    fenced = _FENCE.match(text)
    inner = fenced.group(1).strip() if fenced else text.strip()
    return inner if inner.startswith("{") and inner.endswith("}") else _first_object(inner)


def read_reply(text: str, schema: Schema, check: Check | None = None) -> Any:
    """The value of a reply. Raises InvalidReply: no JSON, strict reading, schema, or the step's own check."""
    try:
        value = parse_json(json_of(text))
    except NotJson as error:
        raise InvalidReply(str(error)) from None
    fault = first_fault(value, schema) or (check(value) if check is not None else None)
    if fault:
        raise InvalidReply(fault)
    return value


def _first_object(text: str) -> str:
    start = text.find("{")
    if start < 0:
        raise InvalidReply("holds no JSON object")
    for i, depth in nesting(text[start:]):
        if depth == 0:
            return text[start : start + i + 1]
    raise InvalidReply("its JSON object does not end")
