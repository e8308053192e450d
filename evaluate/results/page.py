"""One HTML page per evaluation: clips side by side with their truth, and a plot per clip. Opens from disk."""

from __future__ import annotations

import hashlib
import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.scratch import scratch_folder
from orbit4d.evaluate.metrics.registry import METRICS
from orbit4d.evaluate.metrics.suite import Pair, Row
from orbit4d.evaluate.results.tables import (
    RIGS,
    Summary,
    beside_published,
    columns,
    heads,
    number,
    own_table,
    protocol_note,
)

if TYPE_CHECKING:
    from orbit4d.evaluate.results.rows import Results

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #333); --soft: light-dark(#666, #aaa); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .5rem; }
.pair { display: flex; gap: 1rem; flex-wrap: wrap; align-items: start; }
figure { margin: 0; } video { width: 256px; image-rendering: auto; border: 1px solid var(--line); }
figcaption, .soft { color: var(--soft); font-size: .85rem; } svg { width: 250px; height: 125px; }
.wide { overflow-x: auto; }
svg text { font-size: 11px; fill: currentColor; }
"""


#: Clips whose videos and plots are kept for the page.
SHOWN = 100


def video_stem(name: str) -> str:
    """What a clip's files are called, whatever its name holds."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def encode_videos(pair: Pair) -> dict[str, bytes]:
    """The clip ("ours") and its truth ("truth") as mp4 files that browsers play."""
    from orbit4d.datasets.videos.video import write_video

    with scratch_folder() as folder:
        encoded = {}
        for kind, frames in (("ours", pair.rgb), ("truth", pair.truth)):
            path = Path(folder) / f"{kind}.mp4"
            write_video(path, to_uint8(frames), fps=8.0)
            encoded[kind] = path.read_bytes()
    return encoded


def to_uint8(rgb: Tensor) -> np.ndarray:
    """RGB [F, 3, H, W] in [0, 1] to uint8 [F, H, W, 3]."""
    return (rgb.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def plot(series: Sequence[float], label: str) -> str:
    """An SVG line of one metric over frames, its range printed."""
    finite = [value for value in series if np.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    points = " ".join(
        f"{20 + 280 * i / max(len(series) - 1, 1):.1f},{130 - 110 * ((min(v, high)) - low) / span:.1f}"
        for i, v in enumerate(series)
    )
    return (
        f'<svg viewBox="0 0 320 160" role="img" aria-label="{html.escape(label)} per frame">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="2"/>'
        f'<text x="20" y="14">{html.escape(label)}, {high:.3g} at most</text>'
        f'<text x="20" y="150">{low:.3g} at least; frames →</text></svg>'
    )


def write_page(
    results: Results, title: str, summary: Summary, unmeasured: Mapping[str, str], protocol: str = ""
) -> Path:
    """`folder`/index.html, written row by row. Clips whose videos were kept are shown with their plots."""
    names = columns(name for values in summary.values() for name in values)
    page = results.folder / "index.html"
    with (
        replacing_file(page) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape") as out,
    ):
        out.write(
            f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
            f'<link rel="icon" href="data:,"><style>{_STYLE}</style><h1>{html.escape(title)}</h1>'
            f"<p class=soft>{len(results)} clips</p>"
        )
        if beside := beside_published(summary, protocol):
            out.write(_html_table(*beside) + f"<p class=soft>{html.escape(protocol_note(protocol))}</p>")
        out.write(_html_table(*own_table(summary)))
        missing = [f"{name}: not measured: {why}" for name, why in sorted(unmeasured.items())]
        missing += [f"{name}: left out: {why}" for name, why in results.failures.items()]
        out.write("<ul class=soft>" + "".join(f"<li>{html.escape(line)}</li>" for line in missing) + "</ul>")
        out.write("<h2>Clips</h2>")
        for row in itertools.islice(results, SHOWN):
            out.write(_section(results.folder, row))
        titles = "".join(
            f'<th title="{html.escape(METRICS[n].what) if n in METRICS else ""}">{html.escape(head)}</th>'
            for n, head in zip(names, heads(names))
        )
        out.write(f"<h2>Every clip</h2><div class=wide><table><tr><th>clip</th>{titles}</tr>")
        for row in results:
            cells = "".join(f"<td>{number(n, row.values.get(n, _extra(row, n)))}</td>" for n in names)
            out.write(f"<tr><td>{html.escape(row.name)}</td>{cells}</tr>")
        out.write("</table></div></html>")
    return page


def _extra(row: Row, name: str) -> float | None:
    value = row.extra.get(name)
    return value if isinstance(value, float) else None


def _html_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in body
    )
    return f"<div class=wide><table><tr>{top}</tr>{rows}</table></div>"


def _section(folder: Path, row: Row) -> str:
    """Videos side by side, where they were kept, and plots of one clip."""
    stem = f"videos/{video_stem(row.name)}"
    kept = [
        (kind, label)
        for kind, label in (("ours", "measured"), ("truth", "ground truth"))
        if (folder / f"{stem}_{kind}.mp4").exists()
    ]
    figures = "".join(
        f'<figure><video src="{stem}_{kind}.mp4" autoplay loop muted playsinline></video>'
        f"<figcaption>{label}</figcaption></figure>"
        for kind, label in kept
    )
    plots = "".join(plot(series, name) for name, series in row.per_frame.items() if len(series) > 1)
    marks = [key.replace("_", " ") for key, value in row.extra.items() if value is True]
    notes = ", ".join([RIGS.get(row.rig, row.rig), *marks])
    return (
        f"<section><h3>{html.escape(row.name)}</h3><p class=soft>{html.escape(notes)}</p>"
        f"<div class=pair>{figures}{plots}</div></section>"
    )
