"""Motion-80: `<name>_pointclouds/frame_0000.npy ...` and `faces.npy`, truth and result (formats.md 2.2)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.sources.benchmarks import SHIPPED
from orbit4d.evaluate.benchmarks.result import Benchmark, Published
from orbit4d.evaluate.geometry.sequences import motion80

_ENDING = "_pointclouds"
_SOURCE = "Motion 3-to-4, Motion-80 short"
ROWS = tuple(
    Published(method, _SOURCE, {"CD": cd, "F": f})
    for method, cd, f in (
        ("L4GM", 0.356, 0.127),
        ("GVFDiffusion", 0.197, 0.261),
        ("V2M4", 0.344, 0.232),
        ("Motion 3-to-4", 0.111, 0.317),
    )
)


def run(root: Path, given: Path | None, align: str = "icp", **_: Any) -> Benchmark:
    """Measure the results in `given/<name>_pointclouds/`. `align`: icp (right), published (with the faults of
    the publication, to stand beside its rows), none."""
    if given is None:
        raise InputError(
            f"{root}: Motion-80 holds meshes, and no images or cameras to reconstruct from; name the results "
            "with --given"
        )
    found = Benchmark("Motion-80", {"CD": True, "F": False})
    found.protocol = {"align": align, "samples": 50_000, "F-score at": 0.02}
    folders = naturally(path for path in root.glob(f"*{_ENDING}") if path.is_dir()) if root.is_dir() else []
    if not folders:
        raise InputError(f"{root}: holds no folder called <name>{_ENDING}; is this the benchmark's folder?")
    chosen: Any = None if align == "none" else align
    for folder in folders:
        name = folder.name.removesuffix(_ENDING)
        if not (given / folder.name).is_dir():
            found.lacking[name] = f"no {given / folder.name}"
            continue
        predicted, truth = read_sequence(given / folder.name), read_sequence(folder)
        if len(predicted[0]) != len(truth[0]):
            found.lacking[name] = f"{len(predicted[0])} frames where the truth has {len(truth[0])}"
            continue
        scores = motion80(predicted, truth, align=chosen)
        found.rows[name] = {"CD": scores["cd"], "F": scores["f"]}
    if not found.rows:
        raise InputError(f"{given}: no result to measure; {next(iter(found.lacking.values()))}")
    found.unlike = _unlike(set(found.rows), align)
    found.published = () if found.unlike else ROWS
    return found


def short_names() -> set[str]:
    """uids of the 64 short clips of the published list."""
    with open(SHIPPED, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["key"] for row in rows if row["benchmark"] == "motion80" and row["subset"] == "short"}


def _unlike(names: set[str], align: str) -> str:
    wanted = short_names()
    here = {name.partition("-")[0] for name in names}
    if here != wanted or len(names) != len(wanted):
        return f"they are of {len(wanted)} listed short clips, of which {len(here & wanted)} are here"
    if align != "published":
        return f"their alignment has two faults, which --align published repeats; these have --align {align}"
    return ""


def read_sequence(folder: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Vertices [T, V, 3] and faces [M, 3] of one folder. Raises InputError."""
    files = naturally(folder.glob("frame_*.npy"))
    try:
        frames = [np.asarray(np.load(path, allow_pickle=False), np.float64) for path in files]
        faces = np.asarray(np.load(folder / "faces.npy", allow_pickle=False), np.int64)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: an array is missing or damaged ({error})") from None
    if not frames or len({frame.shape for frame in frames}) != 1 or frames[0].shape[-1:] != (3,):
        raise InputError(f"{folder}: wants frame_0000.npy ... of one shape [vertices, 3]")
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces) or faces.max() >= len(frames[0]):
        raise InputError(f"{folder}/faces.npy: wants triangles [faces, 3] over {len(frames[0])} vertices")
    return np.stack(frames), faces
