"""`--help` of every command: what each option is for, in groups, and defaults that are the settings' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import click
import pytest

from orbit4d.app.cli import command as umbrella
from orbit4d.compose.cli.production import Wanted
from orbit4d.compose.completion.novel_view import Request
from orbit4d.datasets.commands.options import Command
from orbit4d.model.guided.modes import Settings as GuidanceSettings
from orbit4d.model.sampling.generate import Request as GenerateRequest
from orbit4d.model.sampling.multicam import MulticamRequest
from orbit4d.recon4d.fitting.completion.slot import CompletionSettings
from orbit4d.recon4d.inputs.loading import OrbitSpec
from orbit4d.recon4d.inputs.open_views import ViewOptions

#: Options of a command from which on its help is in groups.
MANY = 8


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(words, command) of everything that can be called below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


ALL = dict(commands(umbrella))


def options(found: click.Command) -> list[click.Option]:
    return [p for p in found.params if isinstance(p, click.Option) and not p.hidden]


def test_all_commands_are_seen() -> None:
    assert {"render", "compose run", "compose swap", "animate make", "novel-view", "multicam"} <= set(ALL)
    assert {"eval benchmark", "recon4d", "curate", "review"} <= set(ALL)


@pytest.mark.parametrize("words", ALL)
def test_every_option_is_described(words: str) -> None:
    found = ALL[words]
    assert isinstance(found, Command), "the class that serves -h, groups and places"
    assert found.help, "what it does"
    assert "Example" in f"{found.help}{found.epilog}", "with an example"
    for option in options(found):
        assert option.help, f"{option.opts[0]} has no description"
        assert option.help[0].isupper() or not option.help[0].isalpha() or " " in option.help, option.help
        assert option.help.endswith((".", ".)")), f"{option.opts[0]}: {option.help}"


@pytest.mark.parametrize("words", ALL)
def test_many_options_stand_in_groups(words: str) -> None:
    found = ALL[words]
    assert isinstance(found, Command)
    grouped = [name for names in found.groups.values() for name in names]
    known = [option.opts[0] for option in options(found)]
    assert len(grouped) == len(set(grouped)), "an option in two groups"
    assert set(grouped) <= set(known), f"no such option: {sorted(set(grouped) - set(known))}"
    if found.groups or len(known) >= MANY:
        assert set(grouped) == set(known), f"in no group: {sorted(set(known) - set(grouped))}"


# Defaults ---------------------------------------------------------------------------------------------------

#: (command, settings, {option: field where the names differ}): of options and fields of one name, and of
#: those listed, the defaults are equal. They are repeated where reading the settings would load torch.
SETTINGS: list[tuple[str, type[Any], dict[str, str]]] = [
    ("recon4d", OrbitSpec, {"fov": "fov_x_deg", "elevation": "elevation_deg"}),
    ("recon4d", CompletionSettings, {"complete_views": "views", "complete_mode": "mode"}),
    ("recon4d", ViewOptions, {}),
    ("novel-view", Request, {}),
    ("novel-view", GuidanceSettings, {}),
    ("multicam", MulticamRequest, {}),
    ("generate", GenerateRequest, {}),
    ("compose run", Wanted, {}),
]


@pytest.mark.parametrize(("words", "settings", "names"), SETTINGS, ids=lambda value: str(value)[:40])
def test_defaults_are_those_of_the_settings(words: str, settings: type[Any], names: dict[str, str]) -> None:
    defaults = {each.name: each.default for each in fields(settings)}
    given, compared = ALL[words].make_context(words, [], resilient_parsing=True).params, 0
    for option in options(ALL[words]):
        name = names.get(str(option.name), str(option.name))
        if name not in defaults or defaults[name] is MISSING or isinstance(defaults[name], tuple):
            continue
        default = given[str(option.name)]
        assert default == defaults[name], f"{option.opts[0]} of {words}, {settings.__name__}.{name}"
        compared += 1
    assert compared >= max(len(names), 1)
