"""What a benchmark gives: a row an object, their mean, and published rows where they were measured alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.atomic import write_json, write_text
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally


@dataclass(frozen=True)
class Published:
    """A row as its authors give it."""

    method: str
    source: str
    values: dict[str, float]


@dataclass
class Benchmark:
    """The outcome of one benchmark."""

    name: str
    lower: dict[str, bool]
    """Columns in their order -> whether less is better."""
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    """Object -> column -> value."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Object -> why it has no row."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """How it was measured."""
    published: tuple[Published, ...] = ()
    """Rows that were measured alike."""
    unlike: str = ""
    """Why no published row stands beside ours."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Metric -> why it has no number."""

    def mean(self) -> dict[str, float]:
        """Column -> mean over the objects, of columns that every one of them has."""
        return {
            name: float(np.mean([row[name] for row in self.rows.values()]))
            for name in self.lower
            if self.rows and all(name in row for row in self.rows.values())
        }

    def text(self) -> str:
        """A Markdown table: objects, their mean, published rows, and what stands against comparing."""
        names = [name for name in self.lower if any(name in row for row in self.rows.values())]
        head = [f"{name} {'↓' if self.lower[name] else '↑'}" for name in names]
        lines = [_line(self.name, head), _line("---", ["---:"] * len(names))]
        lines += [_line(name, [_number(row.get(n)) for n in names]) for name, row in self.rows.items()]
        mean = self.mean()
        lines.append(_line(f"**ours, mean of {len(self.rows)}**", [_number(mean.get(n)) for n in names]))
        lines += [
            _line(f"{row.method} ({row.source})", [_number(row.values.get(n)) for n in names])
            for row in self.published
        ]
        notes = [f"no published row beside ours: {self.unlike}"] if self.unlike else []
        notes += [f"{name}: {why}" for name, why in (*self.lacking.items(), *self.unmeasured.items())]
        notes.append("measured with " + ", ".join(f"{k} {v}" for k, v in self.protocol.items()))
        return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"

    def write(self, folder: Path) -> None:
        """`results.json`, `results.csv` and `results.md` in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": self.name,
            "protocol": self.protocol,
            "mean": self.mean(),
            "objects": self.rows,
            "lacking": self.lacking,
            "unmeasured": self.unmeasured,
            "published": [{"method": p.method, "source": p.source, **p.values} for p in self.published],
            "not_comparable": self.unlike,
        }
        write_json(folder / "results.json", record)
        memory = io.StringIO()
        writer = csv.writer(memory, lineterminator="\n")
        writer.writerow(["object", *self.lower])
        for name, row in self.rows.items():
            writer.writerow([name, *(row.get(column, "") for column in self.lower)])
        write_text(folder / "results.csv", memory.getvalue())
        write_text(folder / "results.md", self.text())


def _line(name: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def folders_in(root: Path, wanted: str) -> list[Path]:
    """Folders of `root` that hold a file or folder called `wanted`; `root` itself where it does. InputError
    where there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")
    if (root / wanted).exists():
        return [root]
    found = naturally(path for path in root.iterdir() if path.is_dir() and (path / wanted).exists())
    if not found:
        raise InputError(
            f"{root}: neither it nor a folder in it holds {wanted}; is this the benchmark's folder?"
        )
    return found
