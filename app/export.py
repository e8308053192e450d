"""`orbit4d export`: a dataset or a scene, distinguished by what lies in the folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import Command
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_uri

#: Seconds that Blender may take for the Alembic of one action.
ALEMBIC_TIMEOUT = 900.0
#: Suffixes of static splats, which no dataset has.
SPLATS = (
    ".ply", ".splat", ".ksplat", ".spz", ".sog", ".glb", ".usd", ".usda", ".usdc", ".usdz", ".4dgs",
)  # fmt: skip


def _is_scene(path: str) -> bool:
    from orbit4d.datasets.core.storage import Store

    # Static splats of others are a scene that stands still.
    return path.lower().endswith(SPLATS) or Store(path).exists("scene.json")


def _meant(path: str, args: list[str]) -> bool:
    """Whether the export of a scene is to read `path`: also of what is none, where a scene's layout is asked
    for, since it says best what is lacking. InputError for a local path where nothing lies.
    """
    from orbit4d.datasets.core.storage import Store

    if _is_scene(path):
        return True
    if {"-h", "--help"} & set(args):
        return False
    if not is_uri(path) and not (Path(path).exists() or Path(path.partition(":")[0]).exists()):
        raise InputError(f"{path}: no such dataset or scene; give a folder that exists, or a file of splats")
    named = [word.partition("=")[2] for word in args if word.startswith("--format=")]
    named += [after for word, after in pairwise(args) if word == "--format"]
    data, scene = (_formats(room) for room in _exports())
    return bool(set(named) & (scene - data)) and not Store(path).exists("dataset.json")


def _formats(room: click.Command) -> set[str]:
    """Names of the layouts that an export writes."""
    kinds = [p.type for p in room.params if p.name in ("format", "format_")]
    return {str(name) for kind in kinds if isinstance(kind, click.Choice) for name in kind.choices}


class ExportCommand(Command):
    """Hands its words to the export of the package that owns the input."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        source = _source(ctx, args)
        if source is None:
            if not {"-h", "--help"} & set(args):
                ctx.fail("missing DATASET or SCENE; `orbit4d export --help` shows how")
            return super().parse_args(ctx, args)
        ctx.obj = (_exports()[_meant(source, args)], args)
        return []

    def invoke(self, ctx: click.Context) -> object:
        target, args = ctx.obj
        if any("alembic" in word for word in args):
            _bring_blender()
        return target.main(args=args, prog_name=ctx.command_path, standalone_mode=False)


def _bring_blender() -> None:
    """Give the export of Alembic, which knows no Blender, a child of it."""
    from orbit4d.datasets.geometry.exports import alembic

    alembic.OPENER[:] = [_alembic_writer]


@contextlib.contextmanager
def _alembic_writer() -> Iterator[Callable[[dict[str, Any]], None]]:
    from orbit4d.datasets.core.errors import WorkError
    from orbit4d.render.fleet.child import BlenderChild, ChildError

    with BlenderChild() as child:

        def write(payload: dict[str, Any]) -> None:
            try:
                child.call("alembic", payload, ALEMBIC_TIMEOUT)
            except ChildError as error:
                raise WorkError(
                    f"{payload['name']}: Blender wrote no Alembic ({error.reason}: {error})"
                ) from error

        yield write


def _exports() -> tuple[click.Command, click.Command]:
    """The export of a dataset, and that of a scene."""
    from orbit4d.datasets.cli import export
    from orbit4d.recon4d.cli import export_scene

    return export, export_scene


def _source(ctx: click.Context, args: list[str]) -> str | None:
    """The first word that is neither an option of one of the two exports nor the value of one."""
    options: dict[str, click.Option] = {}
    for option in (p for one in _exports() for p in one.params if isinstance(p, click.Option)):
        options.setdefault(option.opts[0], option)
    parser = click.Command("export", params=list(options.values()), add_help_option=False).make_parser(ctx)
    parser.ignore_unknown_options = True
    try:
        words = parser.parse_args(list(args))[1]
    except click.UsageError:
        # An option at the end without its value: whichever export it is will report it.
        words = [word for word in args if not word.startswith("-")]
    return next((word for word in words if word == "-" or not word.startswith("-")), None)


@click.command(cls=ExportCommand, short_help="Write a dataset or a scene in another layout.")
@click.argument("source", metavar="DATASET|SCENE")
def command(source: str) -> None:
    """Write a dataset or a reconstructed scene in another layout.

    What a DATASET can become: `orbit4d export DATASET --help`; a SCENE: `orbit4d export SCENE --help`.

    \b
    Example: orbit4d export demo/dataset --format nerfstudio --out nerf/
             orbit4d export demo/scene --format ply-sequence --out ply/
    """
