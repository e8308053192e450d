"""What an evaluation leaves behind: rows that survive an interruption, results.json, Markdown and LaTeX."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orbit4d.datasets.errors import InputError
from orbit4d.evaluate.metrics import METRICS
from orbit4d.evaluate.published import PROTOCOLS, published_rows
from orbit4d.evaluate.suite import Row, summarise

#: Columns in the order of the published tables; others follow by name.
ORDER = (
    "CLIP-F", "CLIP-O", "SSIM", "PSNR", "LPIPS-alex", "LPIPS-vgg",
    "FVD-F", "FVD-V", "FVD-Diag", "FV4D", "IoU", "flicker", "motion", "seconds",
)  # fmt: skip


class Results:
    """Rows of one evaluation in a folder. Reopening it with the same settings continues where it stopped."""

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings, sort_keys=True))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
        self._settings_file = self.folder / "settings.json"
        if self._settings_file.exists():
            held = json.loads(self._settings_file.read_text())
            if held != self.settings:
                key = next(k for k in {**held, **self.settings} if held.get(k) != self.settings.get(k))
                raise InputError(f"{folder}: holds an evaluation with another {key}; give another --out")
        else:
            _put(self._settings_file, json.dumps(self.settings, indent=1))
        self._file = self.folder / "rows.jsonl"
        self.rows: dict[str, Row] = {}
        if self._file.exists():
            for line in self._file.read_text().splitlines():
                try:
                    row = Row(**json.loads(line))
                except (ValueError, TypeError):
                    break  # the line that an interruption cut; its clip is measured again
                self.rows[row.name] = row
            self._rewrite()

    def _rewrite(self) -> None:
        _put(self._file, "".join(json.dumps(asdict(row)) + "\n" for row in self.rows.values()))

    def add(self, row: Row) -> None:
        """Keep one row, on disk before it counts."""
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row.name] = row

    def summary(self) -> dict[str, float]:
        """Means over clips and FVD over sets."""
        return summarise(self.rows.values())

    def finish(self, unmeasured: dict[str, str], provenance: dict[str, Any]) -> dict[str, Any]:
        """Write results.json, table.md and table.tex; returns what results.json holds."""
        summary = self.summary()
        # Too few clips, or rigs, for a form of FVD is a reason as good as missing weights.
        record = {
            "summary": summary,
            "not_measured": unmeasured,
            "clips": len(self.rows),
            "settings": self.settings,
            "versions": {name: version(name) for name in ("orbit4d", "torch", "numpy")},
            "python": platform.python_version(),
            **provenance,
            "rows": [_plain(row) for row in self.rows.values()],
        }
        _put(self.folder / "results.json", json.dumps(record, indent=1, allow_nan=True))
        protocol = str(self.settings.get("protocol") or "")
        _put(self.folder / "table.md", markdown(summary, unmeasured, protocol))
        _put(self.folder / "table.tex", latex(summary, protocol))
        return record


def _plain(row: Row) -> dict[str, Any]:
    return {"name": row.name, "rig": row.rig, "values": row.values, "extra": row.extra}


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def columns(names: Iterable[str]) -> list[str]:
    """Names in the order of the published tables."""
    names = set(names)
    return [name for name in ORDER if name in names] + sorted(names - set(ORDER))


def number(name: str, value: float | None) -> str:
    """A value as tables print it; a dash where there is none."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    if name.startswith(("FVD", "FV4D")):
        return f"{value:.1f}"
    if name == "PSNR":
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"


def _heads(names: Sequence[str]) -> list[str]:
    return [f"{name} {METRICS[name].arrow}" if name in METRICS else name for name in names]


def _table(summary: dict[str, float], protocol: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows; published rows stand above ours only where the protocol is the same."""
    others = published_rows(protocol)
    names = columns({*summary, *(name for row in others for name in row.values)})
    body = [
        [f"{row.method} ({row.source})", *(number(name, row.values.get(name)) for name in names)]
        for row in others
    ]
    body.append(["orbit4d", *(number(name, summary.get(name)) for name in names)])
    return ["method", *_heads(names)], body


def markdown(summary: dict[str, float], unmeasured: dict[str, str], protocol: str = "") -> str:
    """A Markdown table, then what was not measured and why."""
    heads, body = _table(summary, protocol)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    lines += ["", *(f"{name}: not measured: {why}" for name, why in sorted(unmeasured.items()))]
    if protocol in PROTOCOLS:
        lines += ["", f"Protocol: {PROTOCOLS[protocol]}."]
    return "\n".join(lines).rstrip() + "\n"


def latex(summary: dict[str, float], protocol: str = "") -> str:
    """The same rows as a LaTeX tabular."""
    heads, body = _table(summary, protocol)
    swap = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "∞": r"$\infty$", "_": r"\_", "²": "$^2$"}

    def tex(text: str) -> str:
        return "".join(swap.get(letter, letter) for letter in text)

    lines = [r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", r"\toprule"]
    lines += [" & ".join(map(tex, heads)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(tex, row)) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def terminal(summary: dict[str, float], unmeasured: dict[str, str]) -> str:
    """Name, value, unit and meaning, one metric a line."""
    lines = []
    for name in columns(summary):
        metric = METRICS.get(name)
        meaning = f"{metric.unit:<3} {metric.arrow} {metric.what}" if metric else ""
        lines.append(f"  {name:<18} {number(name, summary[name]):>10} {meaning}".rstrip())
    lines += [f"  {name:<18} {'–':>10} not measured: {why}" for name, why in sorted(unmeasured.items())]
    return "\n".join(lines)
