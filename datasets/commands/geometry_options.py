"""Options of `orbit4d export DATASET` for what lies beside the clips: surfaces, flow, tracks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from orbit4d.datasets.core.errors import InputError

#: Formats of geometry, those of an action first. A test holds the list against the writers.
GEOMETRY_FORMATS = (
    "actionbench",
    "motion80",
    "gvfd",
    "dymesh",
    "glb",
    "usd",
    "alembic",
    "articulation-xl",
    "unirig",
    "tapvid3d",
    "tapvid",
    "flo",
    "kitti-flow",
    "tracks-video",
)
#: Lines of notes that are shown.
MOST_NOTES = 20
_MESHES = ("actionbench", "motion80", "gvfd", "dymesh", "glb", "usd")
_POINTS = ("actionbench", "gvfd", "articulation-xl", "tapvid3d", "tapvid", "tracks-video")
#: Option -> (formats that heed it, name in the settings).
_HEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "--points": (_POINTS, "points"),
    "--point-seed": (_POINTS, "seed"),
    "--moments": ((*_MESHES, "alembic"), "moments"),
    "--up": (_MESHES, "up"),
    "--gap": (("flo", "kitti-flow"), "gap"),
    "--tracks-video": (("tracks-video",), "tracks_video"),
}
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--points", {"type": int, "help": "Points on the surface. Default: the format's (1,024 to 100,000)."}),
    ("--point-seed", {"type": int, "help": "Seed of the points (0)."}),
    ("--moments", {"type": int, "help": "Times of a mesh that are written. Default: the format's, or all."}),
    ("--up", {"type": click.Choice(["y", "z"]), "help": "Axis that points up. Default: the format's."}),
    ("--gap", {"type": int, "help": "Frames between the two images of a flow (1)."}),
    (
        "--tracks-video",
        {"type": click.Choice(["points", "dense"]), "help": "Squares, or every pixel (dense)."},
    ),
)


def geometry_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of geometry; the command gets those that were given as `geometry`, option -> value."""

    @functools.wraps(function)
    def taken(**given: Any) -> Any:
        values = {name: given.pop(name.removeprefix("--").replace("-", "_")) for name, _ in _OPTIONS}
        return function(geometry={k: v for k, v in values.items() if v is not None}, **given)

    command: Callable[..., Any] = taken
    for name, how in reversed(_OPTIONS):
        command = click.option(name, **how)(command)
    return command


def geometry_asked(layout: str, geometry: dict[str, Any]) -> bool:
    """Whether `layout` is one of GEOMETRY_FORMATS. InputError for a given option that it does not heed."""
    for option in geometry:
        heeded = _HEEDED[option][0]
        if layout not in heeded:
            raise InputError(
                f"{option}: --format {layout} has no use for it; it is heeded by {', '.join(heeded)}"
            )
    return layout in GEOMETRY_FORMATS


def export_geometry_files(
    dataset: str, out: str, layout: str, where: str | None, split: str | None, geometry: dict[str, Any]
) -> None:
    """Run the export and say what was written."""
    from orbit4d.datasets.exports.geometry_files import export_geometry
    from orbit4d.datasets.geometry.exports.job import GeometrySettings

    settings = GeometrySettings(**{_HEEDED[option][1]: value for option, value in geometry.items()})
    done = export_geometry(dataset, out, layout, settings, where, split)
    for note in done.notes[:MOST_NOTES]:
        click.echo(f"note: {note}", err=True)
    if len(done.notes) > MOST_NOTES:
        click.echo(f"note: {len(done.notes) - MOST_NOTES} more of this kind", err=True)
    click.echo(f"{done.actions} actions, {done.files} files: {out}")
