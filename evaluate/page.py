"""One HTML page per evaluation: clips side by side with their truth, and a plot per clip. Opens from disk."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from orbit4d.evaluate.metrics import METRICS
from orbit4d.evaluate.results import columns, number
from orbit4d.evaluate.suite import Pair, Row

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #333); --soft: light-dark(#666, #aaa); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .5rem; }
.pair { display: flex; gap: 1rem; flex-wrap: wrap; align-items: start; }
figure { margin: 0; } video { width: 256px; image-rendering: auto; border: 1px solid var(--line); }
figcaption, .soft { color: var(--soft); font-size: .85rem; } svg { width: 320px; height: 160px; }
svg text { font-size: 11px; fill: currentColor; }
"""


def write_videos(folder: Path, number_: int, pair: Pair) -> None:
    """The clip and its truth as mp4 files that browsers play."""
    from orbit4d.datasets.video import write_video

    videos = folder / "videos"
    videos.mkdir(exist_ok=True)
    for kind, frames in (("ours", pair.rgb), ("truth", pair.truth)):
        write_video(videos / f"{number_:04d}_{kind}.mp4", to_uint8(frames), fps=8.0)


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
    folder: Path, title: str, rows: Sequence[Row], summary: dict[str, float], unmeasured: dict[str, str]
) -> Path:
    """`folder`/index.html. Videos are shown for rows whose files exist."""
    names = columns(summary)
    head = "".join(
        f'<th title="{html.escape(METRICS[n].what) if n in METRICS else ""}">{html.escape(n)} '
        f"{METRICS[n].arrow if n in METRICS else ''}</th>"
        for n in names
    )
    means = "".join(f"<td>{number(n, summary.get(n))}</td>" for n in names)
    body = "".join(
        f"<tr><td>{html.escape(row.name)}</td>"
        + "".join(f"<td>{number(n, row.values.get(n))}</td>" for n in names)
        + "</tr>"
        for row in rows
    )
    sections = []
    for i, row in enumerate(rows):
        figures = "".join(
            f'<figure><video src="videos/{i:04d}_{kind}.mp4" autoplay loop muted playsinline></video>'
            f"<figcaption>{label}</figcaption></figure>"
            for kind, label in (("ours", "measured"), ("truth", "ground truth"))
            if (folder / "videos" / f"{i:04d}_{kind}.mp4").exists()
        )
        plots = "".join(plot(series, name) for name, series in row.per_frame.items() if len(series) > 1)
        sections.append(
            f"<section><h3>{html.escape(row.name)}</h3><div class=pair>{figures}{plots}</div></section>"
        )
    missing = "".join(
        f"<li>{html.escape(name)}: not measured: {html.escape(why)}</li>" for name, why in unmeasured.items()
    )
    page = folder / "index.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style><h1>{html.escape(title)}</h1>'
        f"<p class=soft>{len(rows)} clips</p><table><tr><th>clip</th>{head}</tr>"
        f"<tr><td><b>mean</b></td>{means}</tr>{body}</table><ul class=soft>{missing}</ul>"
        f"{''.join(sections)}</html>"
    )
    return page
