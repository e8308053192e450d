"""What a driver and its Blender child say to each other: one JSON object per line.

`messages.py` says which objects there are. To the child a Request, {"task": ..., "payload": {...}}; back from
it one Ready, then for each task any number of Events and one of Done, Refused and Failed, each with its
`type`.

Pixels never travel on this pipe: a task writes them into the scratch folder that its payload names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: A task is the name of a module in orbit4d.render.blender: nothing else can be reached by name.
TASK_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")


class RefusedInput(Exception):
    """Raised by a task whose input is bad in itself, so that no second attempt is made."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def encode(message: Mapping[str, Any]) -> bytes:
    """One line of JSON. NaN and infinity become null, since they are not JSON."""
    try:
        text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(message), allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """The message on one line; None for a line that is not one, which some library printed."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
