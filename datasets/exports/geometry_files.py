"""`orbit4d export --format glb` and the other formats of geometry: which actions, and where the files go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.geometry.exports.formats import FORMATS, MESHES
from orbit4d.datasets.geometry.exports.job import ExportAction, GeometrySettings
from orbit4d.datasets.geometry.reader import Geometry, read_geometry
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.operations.select import check_chosen, chosen


@dataclass
class GeometryExport:
    """What an export of geometry wrote."""

    actions: int = 0
    """Actions with geometry among the chosen clips."""
    files: int = 0
    notes: list[str] = field(default_factory=list)
    """Lines for the user: what was left out and why, and what the format cannot say."""


def export_geometry(
    dataset: str,
    out: str,
    format: str,
    settings: GeometrySettings | None = None,
    where: str | None = None,
    split: str | None = None,
) -> GeometryExport:
    """Write the geometry of the chosen clips (see `orbit4d select`) in one of FORMATS.

    Formats of meshes and points have one folder or file per action, those of flow and tracks one per clip.
    InputError for an unknown format, when no clip matches, or when no chosen action has geometry that the
    format can say; the reasons of each stand in the notes, or in the error's line where nothing is left.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: known are {', '.join(FORMATS)}")
    settings = settings or GeometrySettings()
    check_settings(settings)
    index = Index(dataset)
    keep = chosen(index, where, split)
    check_chosen(index, keep, split)
    by_action: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in keep.nonzero()[0]:
        row = index.row(int(number))
        by_action.setdefault((row["uid"], row["action_index"]), []).append(row)
    done, store, written = GeometryExport(), Store(out), set()
    with Progress("export", len(by_action), "action") as progress:
        for name, data in FORMATS[format](_actions(index, by_action, settings, format, done, progress)):
            store.put(name, data)
            done.files += 1
            # Lists that name what was written stand there also when that is nothing.
            written.add(name.endswith(".txt"))
    if False not in written:
        reason = done.notes[0] if done.notes else "nothing to write"
        raise InputError(f"{dataset}: no {format} was written; {reason}")
    return done


def check_settings(settings: GeometrySettings) -> None:
    """Raise InputError for numbers that no format can heed."""
    for option, value, least in (
        ("--points", settings.points, 1),
        ("--moments", settings.moments, 1),
        ("--gap", settings.gap, 1),
        ("--point-seed", settings.seed, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"{option} {value}: at least {least}")


def _actions(
    index: Index,
    by_action: Mapping[tuple[str, int], list[dict[str, Any]]],
    settings: GeometrySettings,
    format: str,
    done: GeometryExport,
    progress: Progress,
) -> Iterator[ExportAction]:
    numbers: dict[str, int] = {}
    for uid, _ in by_action:
        numbers[uid] = numbers.get(uid, 0) + 1
    for (uid, action_index), rows in by_action.items():
        progress.update(1)
        try:
            geometry = read_geometry(index, uid, action_index)
        except InputError as error:
            # Not rendered, or refused: the line says which, and what fixes it.
            done.notes.append(f"{error}; left out")
            continue
        done.actions += 1
        name = uid if numbers[uid] == 1 else f"{uid}__a{action_index}"
        action = ExportAction(name, index, tuple(rows), geometry, settings, done.notes)
        if format in MESHES:
            _say_hidden(action, geometry)
        yield action


def _say_hidden(action: ExportAction, geometry: Geometry) -> None:
    shown = geometry.mesh.shown
    hidden = [name for name, times in zip(geometry.mesh.objects, shown.T) if not times.all()]
    if hidden:
        action.note(
            f"{', '.join(hidden[:3])}: hidden at some times, which the format cannot say; always there"
        )
