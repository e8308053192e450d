"""What an evaluation leaves behind: rows that survive an interruption, and results.json.

rows.jsonl has one line per clip, on disk before it counts. Only the places of the lines are kept in memory:
an evaluation of 10,000 clips holds 10,000 numbers, not 10,000 rows.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.atomic import write_text
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path, publish
from orbit4d.evaluate.metrics.i3d import I3D
from orbit4d.evaluate.metrics.registry import FVD_OF_RIG
from orbit4d.evaluate.metrics.suite import Row, summarise
from orbit4d.evaluate.results.published import PROTOCOLS, Shape
from orbit4d.evaluate.results.tables import Summary, latex, markdown

_LIBRARIES = ("orbit4d", "torch", "numpy", "transformers", "bpy", "av", "pillow")


class Results:
    """Rows of one evaluation in a folder. Reopening it with the same settings continues where it stopped.

    Another protocol is another table of the same rows. With further or other weights the rows are measured
    again; what was generated or reconstructed beside them stays.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = local_path(folder)
        self.settings = json.loads(json.dumps(settings, sort_keys=True))
        self.failures: dict[str, str] = {}
        """Clip -> why it could not be measured. Tried again when the evaluation is run again."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
        self._settings_file = self.folder / "settings.json"
        self._file = self.folder / "rows.jsonl"
        if self._settings_file.exists():
            self._continue(json.loads(self._settings_file.read_text(encoding="utf-8")))
        _put(self._settings_file, json.dumps(self.settings, indent=1))
        self._places: dict[str, tuple[int, int]] = {}
        """Clip -> (number of its case, first byte of its line)."""
        self._end = 0
        if self._file.exists():
            self._reopen()

    def _continue(self, held: dict[str, Any]) -> None:
        """Make room for rows of the settings; InputError when those of the `held` ones must stay."""
        names = {**held, **self.settings}
        others = [k for k in names if k != "protocol" and held.get(k) != self.settings.get(k)]
        for key in others:
            if key != "weights":
                raise InputError(f"{self.folder}: holds an evaluation with another {key}; give another --out")
        if not others:
            return
        if gone := set(held.get("weights") or {}) - set(self.settings.get("weights") or {}):
            raise InputError(
                f"{self.folder}: holds an evaluation with other weights, which measured "
                f"{', '.join(sorted(gone))} too; give the --weights and --clip it had, or another --out"
            )
        if self._file.exists():
            print(f"{self.folder}: measured again, with other weights than before", file=sys.stderr)
            self._file.unlink()

    def _reopen(self) -> None:
        with self._file.open("rb") as file:
            for line in file:
                try:
                    held = json.loads(line)
                    self._places[held["name"]] = held["number"], self._end
                except (ValueError, TypeError, KeyError):
                    break  # the line that an interruption cut; its clip is measured again
                self._end += len(line)
        if self._end < self._file.stat().st_size:
            os.truncate(self._file, self._end)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Row]:
        """Rows in the order of their cases, whatever order they came in; read one at a time."""
        if not self._places:
            return
        with self._file.open("rb") as file:
            for _, place in sorted(self._places.values()):
                file.seek(place)
                yield row_of(json.loads(file.readline()))

    def add(self, row: Row, number: int | None = None) -> None:
        """Keep one row, on disk before it counts. `number` is that of its case; None: the next one."""
        number = len(self._places) if number is None else number
        line = json.dumps({"number": number, **plain(row)}).encode() + b"\n"
        with self._file.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._places[row.name] = number, self._end
        self._end += len(line)
        publish(self.folder, every=60.0)

    def fail(self, name: str, why: str) -> None:
        """Note that a clip could not be measured."""
        self.failures[name] = why

    def summary(self) -> dict[str, dict[str, float]]:
        """Means over the clips of each rig, and FVD over sets."""
        return summarise(self)[0]

    def finish(self, unmeasured: dict[str, str], provenance: dict[str, Any]) -> dict[str, Any]:
        """Write results.json, table.md and table.tex; returns what results.json holds.

        Of the rows it holds values; series per frame and features stay in rows.jsonl.
        """
        summary, lacking = summarise(self)
        facts = Facts(self)
        if (self.settings.get("weights") or {}).get("FVD"):
            lacking |= facts.too_short()
        unmeasured = {**unmeasured, **lacking}
        protocol = str(self.settings.get("protocol") or "")
        record = {
            "summary": summary,
            "not_measured": unmeasured,
            "failed": self.failures,
            "clips": len(self),
            "settings": self.settings,
            "versions": {name: version(name) for name in _LIBRARIES},
            "python": platform.python_version(),
            "command": " ".join(sys.argv),
            **provenance,
            "rows": facts.rows,
        }
        _put(self.folder / "results.json", json.dumps(record, indent=1, allow_nan=True))
        misfit = facts.misfit(protocol, summary)
        text = markdown(summary, unmeasured, "" if misfit else protocol)
        if misfit:
            text += f"\nPublished rows of {protocol} are not shown: {misfit}.\n"
        _put(self.folder / "table.md", text)
        _put(self.folder / "table.tex", latex(summary, "" if misfit else protocol))
        record["misfit"] = misfit
        return record


#: Marks of a row that keep it from standing beside published ones, and what they say.
FLAWS = {
    "seen_in_training": "what it is compared with was seen in training",
    "train_split": "some of its assets belong to the training split",
    "fitted_to_truth": "some of its scenes were fitted to the ground truth itself",
}


class Facts:
    """What decides whether a published protocol is the same, gathered in one pass over the rows."""

    def __init__(self, results: Results) -> None:
        self.task = str(results.settings.get("task"))
        self.rows: list[dict[str, Any]] = []
        self.shapes: dict[str, set[Shape]] = {}
        self.uids: dict[str, set[str]] = {}
        self.flaws: dict[str, set[str]] = {}
        for row in results:
            views, frames = row.extra.get("grid") or (1, row.frames)
            self.shapes.setdefault(row.rig, set()).add(Shape(frames, row.size[-1], views))
            self.uids.setdefault(row.rig, set()).add(row.name.split("/")[0].split(":")[0])
            self.flaws.setdefault(row.rig, set()).update(why for k, why in FLAWS.items() if row.extra.get(k))
            self.rows.append(
                {"name": row.name, "rig": row.rig, "values": row.values, "extra": row.extra,
                 "frames": row.frames, "size": row.size}
            )  # fmt: skip

    def too_short(self) -> dict[str, str]:
        """FVD of rigs whose clips have fewer frames than its network takes."""
        why = f"fewer frames than the {I3D.min_frames} that its network needs"
        return {
            f"{form} ({rig})": why
            for rig, form in FVD_OF_RIG.items()
            if any(shape.frames < I3D.min_frames for shape in self.shapes.get(rig, ()))
        }

    def misfit(self, name: str, summary: Summary) -> str:
        """Why published rows do not belong beside these; '' where they do, or none were asked for."""
        if not name:
            return ""
        if name not in PROTOCOLS:
            return "nobody published such a protocol"
        protocol = PROTOCOLS[name]
        rig = protocol.rig
        uids = set().union(*self.uids.values())
        of_rig = self.uids.get(rig, set()), sorted(self.shapes.get(rig, ())), sorted(self.flaws.get(rig, ()))
        if why := protocol.misfit(self.task, uids, *of_rig):
            return why
        places = [place for places in protocol.columns.values() for place in places]
        if not any(metric in summary.get(where, {}) for where, metric in places):
            return "none of its metrics was measured here"
        return ""


def plain(row: Row) -> dict[str, Any]:
    """A row as JSON; features as base64 of float32, which is what the network computes in."""

    def packed(vector: list[float]) -> str:
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()

    features = {form: [[packed(a), packed(b)] for a, b in videos] for form, videos in row.features.items()}
    return {**vars(row), "features": features}


def row_of(held: dict[str, Any]) -> Row:
    """Inverse of `plain`."""

    def unpacked(text: str) -> list[float]:
        return np.frombuffer(base64.b64decode(text), "<f4").astype(float).tolist()

    fields = {k: v for k, v in held.items() if k != "number"}
    fields["features"] = {
        form: [(unpacked(a), unpacked(b)) for a, b in videos] for form, videos in held["features"].items()
    }
    return Row(**{**fields, "size": tuple(held["size"])})


def _put(path: Path, text: str) -> None:
    """Write a text in one step; names of files that are no UTF-8 keep their bytes."""
    write_text(path, text, durable=True, errors="surrogateescape")
