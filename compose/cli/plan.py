"""`orbit4d compose plan`: the spec of a prompt and what a library has for it; fits and draws nothing."""

from __future__ import annotations

import copy
from typing import Any

import click

from orbit4d.compose.cli.run import run
from orbit4d.datasets.commands.options import Command


def _same_options() -> list[click.Parameter]:
    """Those of `compose PROMPT`; a plan needs no library and no folder."""
    found: list[click.Parameter] = []
    for param in run.params:
        param = copy.copy(param)
        param.required = isinstance(param, click.Argument)
        if param.name != "dry_run":
            found.append(param)
    return found


@click.command(
    "plan",
    cls=Command,
    params=_same_options(),
    epilog="Example: orbit4d compose plan 'a fox chases a rat' --library assets/ --json",
    groups={
        "Director": "--director --chat-url --chat-model --chat-timeout --chat-repairs",
        "Library": "--library --license --strict --encoder",
        "Plan": "--seed --json --out --cache --refresh",
        "Scene": "--scene --refine --refine-model --tau-units --depth-model --relight --rig-moment",
        "Film": "--frames --fps --size",
    },
)
@click.option("--json", "as_json", is_flag=True, help="Print spec and cast as JSON.")
def plan(as_json: bool, **asked: Any) -> None:
    """Print what a prompt is understood as, which assets would play it, and where they would stand.

    Without --library only the spec is printed. Options are those of `orbit4d compose PROMPT` and are checked
    as there. Nothing is fitted, rendered, written or downloaded.
    """
    assert run.callback is not None
    run.callback(**asked, dry_run="json" if as_json else True)
