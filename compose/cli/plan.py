"""`orbit4d compose plan`: the spec of a prompt and what a library has for it; fits and draws nothing."""

from __future__ import annotations

import json
from typing import Any

import click

from orbit4d.compose.cli.options import chat_settings, directing, encoder_of, open_libraries, searching
from orbit4d.compose.cli.would_stand import place_lines, places
from orbit4d.compose.director.directing import Directed, direct, spelling_lines
from orbit4d.compose.library.casting import Cast, cast, credits_of
from orbit4d.compose.library.credits import unknown_licences
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.commands.options import Command


@click.command(
    "plan",
    cls=Command,
    epilog="Example: orbit4d compose plan 'a fox chases a rat' --library assets/ --json",
    groups={
        "Director": "--director --chat-url --chat-model --chat-timeout --chat-repairs",
        "Library": "--library --license --strict --encoder",
    },
)
@click.argument("prompt")
@directing
@searching
@click.option("--json", "as_json", is_flag=True, help="Print spec and cast as JSON.")
def plan(
    prompt: str,
    director: str,
    chat_url: str,
    chat_model: str,
    chat_timeout: float,
    chat_repairs: int,
    libraries: tuple[str, ...],
    licences: str,
    strict: bool,
    encoder: str,
    seed: int,
    as_json: bool,
) -> None:
    """Print what a prompt is understood as, which assets would play it, and where they would stand.

    Without --library only the spec is printed. Nothing is fitted, rendered or downloaded.
    """
    settings = chat_settings(chat_url, chat_model, chat_timeout, chat_repairs, seed)
    directed = direct(prompt, director, settings)
    casts: list[Cast] = []
    dropped: dict[str, int] = {}
    if libraries:
        library = open_libraries(libraries, licences)
        casts, dropped = cast(directed.spec, library, strict, encoder_of(encoder)), dict(library.dropped)
    stand, gave = places(directed.spec, casts, seed) if casts else ([], [])
    lines = [*last_lines(directed, casts, dropped), *place_lines(stand), *gave]
    if as_json:
        click.echo(json.dumps({**plan_json(directed, casts), "places": stand}, indent=1, ensure_ascii=False))
        for line in lines:
            click.echo(line, err=True)
        return
    click.echo(directed.spec.as_text(), nl=False)
    for line in lines:
        click.echo(line)


def plan_json(directed: Directed, casts: list[Cast]) -> dict[str, Any]:
    """Spec, cast and corrections as a plain dict."""
    return {
        "spec": directed.spec.as_json(),
        "director": directed.who,
        "corrections": [list(pair) for pair in directed.corrections],
        "cast": [one.as_json() for one in casts],
        "notes": list(directed.notes),
    }


def last_lines(directed: Directed, casts: list[Cast], dropped: dict[str, int]) -> list[str]:
    """What a run says at its end: who directed, who plays what, which words were not used."""
    lines = [f"director  {directed.who}", *(f"          {note}" for note in directed.notes)]
    lines += spelling_lines(directed)
    for one in casts:
        lines.append(f"actor {one.actor:<4}{one.line(directed.spec.actors[one.actor])}")
    if not casts:
        lines += [f"actor {a.id:<4}no motion named: idle" for a in directed.spec.actors if not a.action_given]
    if directed.spec.unused:
        words = ", ".join(f'"{printable(word, 40)}"' for word in directed.spec.unused)
        lines.append(f"unused    {words}")
    for name, n in sorted(dropped.items()):
        lines.append(f"left out  {n} assets under {printable(name, 60)}")
    unknown = unknown_licences(credits_of(casts))
    if unknown:
        lines.append(f"licence   unknown of {', '.join(printable(uid, 60) for uid in unknown)}")
    return lines
