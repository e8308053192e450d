"""JSON of foreign or generated text, read strictly: one value, no key twice, no NaN, bounded depth and size.

What a reply of a language model, a recorded run or a hand-written spec holds is data of unknown origin. The
reader refuses what two parsers could read differently, and names the fault in one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

#: Bounds on what is parsed; `docs/promises/untrusted-files.md` speaks of them.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32


class NotJson(ValueError):
    """The text is no JSON that is read here; the message says why, in one line."""


def parse_json(text: str, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value that a JSON text stands for.

    Raises:
        NotJson: not JSON, longer than `max_bytes` in UTF-8, deeper than `max_depth`, a key given twice,
            NaN, Infinity or a number beyond float64, or a text that is no Unicode (half a surrogate pair).
    """
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise NotJson("holds half of a surrogate pair, which is no Unicode text") from None
    if size > max_bytes:
        raise NotJson(f"{size} bytes, more than {max_bytes}")
    # Before the parser, whose recursion a deep text would exhaust.
    if (found := depth_of(text)) > max_depth:
        raise NotJson(f"nested {found} deep, more than {max_depth}")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise NotJson(f"no JSON: {error.msg} at character {error.pos}") from None
    _check_text(value)
    return value


def nesting(text: str) -> Iterator[tuple[int, int]]:
    """Index of each bracket or brace outside of strings, and how deep the text nests behind it."""
    depth = 0
    in_string = escaped = False
    for i, letter in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == '"':
                in_string = False
        elif letter == '"':
            in_string = True
        elif letter in "[]{}":
            depth += 1 if letter in "[{" else -1
            yield i, depth


def depth_of(text: str) -> int:
    """How deep brackets and braces nest outside of strings."""
    return max((depth for _, depth in nesting(text)), default=0)


def canonical_json(value: Any) -> str:
    """One text per value: keys sorted, no spaces, UTF-8 letters as they are; the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def printable(text: Any, most: int = 200) -> str:
    """`text` as one line of at most `most` characters without control characters, for messages and logs."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in str(text)
    )
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotJson(f"key {printable(key, 40)!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise NotJson(f"{word} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise NotJson(f"{printable(text, 40)} is beyond what a number holds")
    return value


def _integer(text: str) -> int:
    if len(text) > 40:
        raise NotJson(f"{printable(text, 40)} is beyond what a number holds")
    return int(text)


def _check_text(value: Any) -> None:
    """Escapes such as \\ud800 pass the parser and break every later write of the text."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise NotJson("holds half of a surrogate pair, which is no Unicode text") from None
