"""`orbit4d compose swap`: one concept of a film exchanged, all else as it was."""

from __future__ import annotations

from pathlib import Path

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Place


@click.command(
    cls=Command,
    short_help="Exchange one concept of a film.",
    on_interrupt=RESUMED,
    groups={
        "What is exchanged": "--actor --object --action --scene --path --replace",
        "Input and output": "--cache --out",
    },
)
@click.argument("film", type=Place())
@click.option("--actor", type=int, help="Id of the actor.")
@click.option("--object", "object_", help="What plays it from now on, such as `a wolf`.")
@click.option("--action", help="What it does from now on, such as `gallop`.")
@click.option("--scene", help="Another scene, such as `a beach`; paths are planned again.")
@click.option("--path", "path_", help="Another way, such as `from left to right`.")
@click.option("--cache", type=Place("run"), help="Folder of fitted concepts. Default: OUT/concepts.")
@click.option("--replace", is_flag=True, help="Place the actor again.")
@click.option("--out", required=True, type=Place("run"), help="Folder of the new film.")
def swap(
    film: Path, actor: int | None, object_: str | None, action: str | None, scene: str | None,
    path_: str | None, cache: Path | None, replace: bool, out: Path,
) -> None:  # fmt: skip
    """Exchange one concept of a film; every other concept's files and place stay bit for bit.

    \b
    Example: orbit4d compose swap fox/ --actor 0 --object "a wolf" --out wolf/
    """
    from orbit4d.compose.cli.swapping import swap_film

    for line in swap_film(film, out, actor, object_, action, scene, path_, replace, cache):
        click.echo(line)
