"""What commands offer is what their packages know, where a light import cannot make it so."""

from __future__ import annotations

import re

import click
import pytest

from orbit4d.curate.cli import RULE_OPTIONS
from orbit4d.curate.rule_settings import Rules
from orbit4d.datasets import cli as datasets_cli
from orbit4d.datasets.commands.geometry_options import GEOMETRY_FORMATS
from orbit4d.datasets.layouts import exporting
from orbit4d.datasets.layouts.multi_camera import LAYOUTS
from orbit4d.datasets.trainers.exporting import TARGETS
from orbit4d.evaluate import cli as evaluate_cli
from orbit4d.recon4d import cli as recon4d_cli
from orbit4d.recon4d.export import formats
from orbit4d.recon4d.fitting import settings as fitting
from orbit4d.render import cli as render_cli
from orbit4d.render.planning import settings as rendering


def choices(command: click.Command, *path: str) -> list[str]:
    """Choices of the option whose flag is the last word of a path of sub-commands."""
    *names, flag = path
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    (option,) = (each for each in command.params if flag in each.opts)
    assert isinstance(option.type, click.Choice)
    return list(option.type.choices)


def test_choices_are_those_of_the_packages() -> None:
    assert choices(render_cli.command, "--preset") == list(rendering.PRESETS)
    assert choices(render_cli.command, "--normalise") == list(rendering.NORMALISATIONS)
    assert choices(render_cli.command, "--window") == list(rendering.WINDOWS)
    assert choices(render_cli.command, "--device") == list(rendering.DEVICES)
    assert choices(evaluate_cli.command, "video", "--preset") == list(rendering.PRESETS)
    assert choices(evaluate_cli.command, "run", "--reconstruct") == list(fitting.PRESETS)
    assert choices(recon4d_cli.recon4d, "--preset") == list(fitting.PRESETS)
    assert choices(recon4d_cli.export_scene, "--format") == list(formats.FORMATS)
    plain, several = [*exporting.FORMATS, "hf-card"], [name for name in LAYOUTS if name != "nerfstudio"]
    listed = choices(datasets_cli.export, "--format")
    assert set(listed) == {*plain, *several, *TARGETS, *GEOMETRY_FORMATS} and len(listed) == len(set(listed))


@pytest.mark.parametrize("name", RULE_OPTIONS)
def test_the_defaults_that_curates_help_names_are_those_of_the_rules(name: str) -> None:
    default, said = getattr(Rules(), name), re.search(r"\((\d[\d.]*)\)", RULE_OPTIONS[name][1])
    assert said is None or float(said[1]) == default
    assert said is not None or not isinstance(default, float)
