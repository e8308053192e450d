"""Which director writes the spec of a run, and what a run says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from orbit4d.compose.director.chat import ChatDirector, ChatSettings, recorded_director
from orbit4d.compose.director.grammar import read_prompt
from orbit4d.compose.director.recording import Recording
from orbit4d.compose.spec import Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError, OrbitError

DIRECTORS = "rules, chat, chat,rules or recorded:FILE"


@dataclass(frozen=True)
class Directed:
    """A spec, who wrote it in words for the last lines of a run, and further lines to print.

    `chat` is the director that also answers the steps of placement, None where the rules direct.
    """

    spec: Spec
    who: str
    notes: tuple[str, ...] = ()
    corrections: tuple[tuple[str, str], ...] = ()
    chat: ChatDirector | None = field(default=None, compare=False)


def direct(
    prompt: str, director: str = "rules", chat: ChatSettings | None = None, record: Path | None = None
) -> Directed:
    """The spec of a prompt by the director of a name; `record` is where a chat's replies are written.

    Raises:
        InputError: the director is unknown, or what it refuses.
        WorkError: an endpoint cannot be used; `chat,rules` continues with the rules then, and reports it.
    """
    name, _, file = director.partition(":")
    if name == "recorded" and file:
        replay = recorded_director(file, chat.seed if chat is not None else 0)
        spec = replay.spec(prompt)
        return Directed(spec, f"recorded ({printable(file, 80)}; no language model ran)", chat=replay)
    if director == "rules":
        return _by_rules(prompt)
    if director not in ("chat", "chat,rules"):
        raise InputError(f"--director {printable(director, 60)!r}: is none of {DIRECTORS}")
    held = Recording.load(record).replies if record is not None and record.is_file() else {}
    asked = ChatDirector(chat or ChatSettings(), Recording(record, held))
    try:
        spec = asked.spec(prompt)
    except OrbitError as error:
        if director == "chat":
            raise
        fallen = _by_rules(prompt)
        line = f"chat wrote nothing: {printable(error, 180)}"
        return Directed(fallen.spec, fallen.who, (line, *fallen.notes), fallen.corrections)
    host = asked.transport.host if asked.transport is not None else ""
    who = f"chat ({printable(asked.settings.model, 60)} at {printable(host, 60)})"
    return Directed(spec, who, tuple(asked.notes), chat=asked)


def spelling_lines(directed: Directed) -> list[str]:
    """One line for each word whose spelling was corrected."""
    return [f'spelling  "{printable(said, 40)}" read as "{read}"' for said, read in directed.corrections]


def _by_rules(prompt: str) -> Directed:
    reading = read_prompt(prompt)
    return Directed(reading.spec, "rules (grammar; no language model ran)", (), reading.corrections)
