"""`orbit4d compose PROMPT`, and subcommands of which a prompt is none."""

from __future__ import annotations

import importlib

import click

from orbit4d.datasets.commands.options import Group

#: name -> (module, attribute); `run` is what a prompt gets.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("orbit4d.compose.cli.run", "run"),
    "plan": ("orbit4d.compose.cli.plan", "plan"),
    "swap": ("orbit4d.compose.cli.swap", "swap"),
}


class ComposeGroup(Group):
    """Takes a first word that names no subcommand as the prompt of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in COMMANDS and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)


@click.group(cls=ComposeGroup, short_help="Compose a film of 3D concepts from a sentence.")
def compose() -> None:
    """Compose a film of 3D concepts from a sentence: every concept stays separate and can be swapped.

    \b
    Example: orbit4d compose "a fox walks from the left to the right" --library assets/ --out fox/
             orbit4d compose swap fox/ --actor 0 --object "a wolf" --out wolf/
             orbit4d film wolf/ --rig director --out clip.mp4
    """
