"""Options made from a dataclass: flags, types, defaults, help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from orbit4d.datasets.commands.settings_options import FieldOption, field_docs, options_of
from orbit4d.render import cli as render_cli
from orbit4d.render.fleet.settings import FleetSettings


@dataclass(frozen=True)
class Settings:
    """Of a test."""

    n_views: int = 3
    """Views
    of an orbit."""
    max_rss_bytes: int | None = 2 << 30
    """Memory."""
    mood: Literal["calm", "wild"] = "calm"
    """How."""
    dry: bool = False
    """Nothing is written."""
    place: str | None = None
    """Where."""
    shape: tuple[int, int] = (1, 2)
    """No option can have this."""
    bare: int = 0


def invoke(*words: str) -> Any:
    @click.command()
    @options_of(Settings, "n_views", "max_rss_bytes", "mood", "dry", "place")
    def command(**options: Any) -> None:
        click.echo(repr(Settings(**options)))

    return CliRunner().invoke(command, [*words])


def test_defaults_are_those_of_the_fields_and_options_change_them() -> None:
    assert eval(invoke().output) == Settings()
    given = invoke("--n-views", "5", "--max-rss", "512M", "--mood", "wild", "--dry", "--place", "here")
    assert eval(given.output) == Settings(5, 512 << 20, "wild", True, "here")


def test_help_is_the_docstring_with_type_choices_and_default() -> None:
    text = " ".join(invoke("--help").output.split())
    assert "--n-views INTEGER Views of an orbit. [default: 3]" in text
    assert "--max-rss SIZE Memory. [default: 2G]" in text
    assert "--mood [calm|wild] How. [default: calm]" in text
    assert "--dry Nothing is written." in text and "--place TEXT Where." in text


@pytest.mark.parametrize("words", [("--n-views", "x"), ("--mood", "sad"), ("--max-rss", "much")])
def test_wrong_values_are_bad_use(words: tuple[str, ...]) -> None:
    assert invoke(*words).exit_code == 2


def test_what_no_option_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="shape: no option has the type"):
        options_of(Settings, "shape")(lambda: None)
    with pytest.raises(KeyError):
        options_of(Settings, "absent")(lambda: None)
    assert "bare" not in field_docs(Settings)


def test_the_fleets_options_are_its_settings() -> None:
    """Every field but those that commands fill in is an option of `render`, and every field is described."""
    assert set(field_docs(FleetSettings)) == {each.name for each in fields(FleetSettings)}
    options = {p.name: p for p in render_cli.command.params if isinstance(p, FieldOption)}
    assert set(options) == {each.name for each in fields(FleetSettings)} - {"child_env", "storage", "watch"}
    result = CliRunner().invoke(click.Command("x", params=list(options.values()), callback=FleetSettings), [])
    assert result.exit_code == 0 and result.exception is None
