"""One export for a trainer: planned from the index, refused before any work, encoded in parallel, all or
nothing.

Videos are encoded by one thread each, so their bytes do not depend on the machine's cores; clips run side by
side. The export is made under a draft's name and takes its place when it is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.exports.captions import captions_of
from orbit4d.datasets.exports.controls import check_control
from orbit4d.datasets.exports.fitting import fit_for
from orbit4d.datasets.exports.frame_rules import check_rule, frame_count
from orbit4d.datasets.exports.placing import files_in_order, placed
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.operations.select import check_chosen, chosen
from orbit4d.datasets.store.clip import sample_name
from orbit4d.datasets.store.schema import INDEX_SCHEMA
from orbit4d.datasets.trainers import diffsynth, finetrainers, ltx, musubi, videofolder, videox_fun
from orbit4d.datasets.trainers.clip_files import Item, clip_files
from orbit4d.datasets.trainers.targets import Made, Target

#: Trainer -> what it is, in the order of the documentation.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        musubi.TARGET,
        diffsynth.TARGET,
        videox_fun.TARGET,
        ltx.TARGET,
        finetrainers.FINETRAINERS,
        finetrainers.DIFFUSERS,
        videofolder.TARGET,
    )
}
#: Files that every export has beside those of its trainer.
SIDECAR, START = "orbit4d.json", "START.md"


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    clips: int
    start: str
    """The command that starts the trainer on it."""
    notes: list[str] = field(default_factory=list)


def export_for_trainer(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    trainer: str,
    settings: ExportSettings | None = None,
    where: str | None = None,
    split: str | None = None,
) -> Exported:
    """Write the chosen clips (see `orbit4d select`) as `trainer`, one of TARGETS, reads them.

    `out` (path or URI) must not hold anything. InputError, before anything is written: an unknown trainer, no
    clip, missing captions or passes, a frame rule or size that leaves nothing.
    """
    if trainer not in TARGETS:
        raise InputError(f"--format {trainer}: known are {', '.join(TARGETS)}")
    target, settings = TARGETS[trainer], settings or ExportSettings()
    _check_controls(target, settings)
    index = Index(os.fspath(dataset))
    keep = chosen(index, where, split)
    check_chosen(index, keep, split)
    items, notes = _plan(index, keep.nonzero()[0].tolist(), target, settings)
    with placed(os.fspath(out)) as (folder, shown):
        made = []
        with Progress("export", len(items), "clip") as progress, ThreadPoolExecutor(usable_cores()) as pool:
            work = ((clip_files, index, item, target, settings) for item in items)
            for clip in files_in_order(pool, work, folder, 2 * usable_cores()):
                made.append(clip)
                progress.update()
        start = target.start(made, settings, shown)
        _write(folder, {**target.files(made, settings, shown), START: f"start: {start}\n"})
        _write(folder, {SIDECAR: _sidecar(made, target, settings)})
    return Exported(len(made), start, [*notes, *target.notes])


def _check_controls(target: Target, settings: ExportSettings) -> None:
    if settings.controls and target.most_controls == 0:
        raise InputError(f"--control {settings.controls[0]}: {target.no_control}")
    folders = {target.control_folder(kind) for kind in settings.controls}
    if target.most_controls is not None and len(folders) < len(settings.controls):
        raise InputError(
            f"--control {settings.controls[1]}: {target.name} takes one control video a clip; "
            f"{settings.controls[0]} is asked for already"
        )


_KEY = tuple(name for name in ("uid", "action_index", "rig", "orbit", "light") if name in INDEX_SCHEMA.names)
_COLUMNS = (*_KEY, "caption", "n_frames", "width", "height", "passes")


def _plan(
    index: Index, rows: Sequence[int], target: Target, settings: ExportSettings
) -> tuple[list[Item], list[str]]:
    """What becomes of each clip, and the notes on what is lost."""
    rule = settings.frames or target.rule
    check_rule(rule)
    known = [dict(row) for row in _rows(index, rows)]
    names = [row["name"] for row in known]
    texts = captions_of([row["caption"] for row in known], names, settings)
    items = []
    for number, row, text in zip(rows, known, texts):
        name, size = row["name"], (row["width"], row["height"])
        for kind in settings.controls:
            check_control(kind, index, row, name)
        fit = fit_for(size, settings.sizes, target.multiple, name, target.name)
        frames = frame_count(rule, row["n_frames"], name)
        takes = frame_count(target.rule, frames, name)
        items.append(Item(number, name, text, frames, row["n_frames"], takes, fit))
    if target.by_bucket and len({item.bucket for item in items}) > 1:
        items = [replace(item, folder=f"/{item.bucket}") for item in items]
    if target.most_files is not None and len(items) > target.most_files:
        items = [replace(item, folder=f"/{i // target.most_files:03d}") for i, item in enumerate(items)]
    stand_in = sum(not row["caption"].strip() for row in known)
    return items, _notes(items, rule, stand_in, settings)


def _notes(items: Sequence[Item], rule: str, stand_in: int, settings: ExportSettings) -> list[str]:
    notes = []
    cut = [item for item in items if item.frames < item.of_frames]
    if cut:
        first = cut[0]
        lost = sum(item.of_frames - item.frames for item in cut)
        notes.append(
            f"--frames {rule} drops {lost} frames of {len(cut)} clips ({first.name}: {first.of_frames} to "
            f"{first.frames}); an orbit that is cut no longer closes: render 25, 49 or 81 frames"
        )
    left = [item for item in items if item.takes < item.frames]
    if left:
        notes.append(f"of {left[0].frames} frames the trainer takes the first {left[0].takes}")
    resized = [item for item in items if item.fit.source != item.fit.target]
    if resized:
        sizes = sorted({"{}x{}".format(*item.fit.target) for item in resized})
        notes.append(f"{len(resized)} clips are resized and cut to {', '.join(sizes)}")
    if stand_in:
        notes.append(f"{stand_in} clips without a caption are called {settings.caption!r}")
    return notes


def _rows(index: Index, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    wanted = set(rows)
    for first, table in index.read(_COLUMNS):
        for i, row in enumerate(table.to_pylist()):
            if first + i in wanted:
                key: Any = (row["uid"], row["action_index"], row["rig"], row["orbit"])
                light = row.get("light")
                yield {**row, "name": sample_name((*key, light) if light else key)}


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _sidecar(made: Sequence[Made], target: Target, settings: ExportSettings) -> str:
    """Everything about the export, for whoever wants to undo or check it; trainers do not read it."""
    clips = [
        {
            "name": clip.name,
            "caption": clip.caption,
            "video": clip.video,
            "frames": clip.frames,
            "controls": dict(clip.controls),
            "camera": clip.camera,
            "pluecker": clip.pluecker,
            **clip.row,
        }
        for clip in made
    ]
    head = {"format": target.name, "settings": asdict(settings)}
    return json.dumps({**head, "clips": clips}, indent=1, ensure_ascii=False) + "\n"
