"""Numbers as tables: terminal, Markdown, LaTeX, in the layout of the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from orbit4d.evaluate.metrics.registry import METRICS
from orbit4d.evaluate.results.published import PROTOCOLS, published_rows

#: Columns in the order of the published tables; others follow by name.
ORDER = (
    "CLIP-F", "CLIP-O", "CLIP-S", "SSIM", "PSNR", "LPIPS-alex", "LPIPS-vgg",
    "FVD-F", "FVD-V", "FVD-Diag", "FV4D", "IoU", "flicker", "motion", "motion_of_truth", "seconds",
)  # fmt: skip
#: What a rig's row is called.
RIGS = {
    "dynamic_orbit": "orbit", "front_view": "front", "static_orbit": "static orbit",
    "clip36": "36 views", "matrix": "view x time",
}  # fmt: skip

Summary = Mapping[str, Mapping[str, float]]


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
    if name.startswith("FV"):
        return f"{value:.1f}"
    if name in ("PSNR", "seconds"):
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"


def heads(names: Sequence[str]) -> list[str]:
    """Names with the arrow that says which way is better."""
    return [f"{name} {METRICS[name].arrow}".rstrip() if name in METRICS else name for name in names]


def own_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of everything measured, one row per rig: numbers of two rigs are never mixed."""
    names = columns(name for values in summary.values() for name in values)
    body = [
        [f"orbit4d, {RIGS.get(rig, rig)}", *(number(name, values.get(name)) for name in names)]
        for rig, values in summary.items()
    ]
    return ["measured", *heads(names)], body


def beside_published(summary: Summary, protocol: str) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows of a published table with ours below, in its columns; None without a protocol.

    Ours are one row per rig: a generated orbit and the front of the scene fitted to it are two outputs.
    """
    others = published_rows(protocol)
    if not others:
        return None
    place = PROTOCOLS[protocol].columns
    names = list(place)
    body = [
        [f"{row.method} ({row.source})", *(number(name, row.values.get(name)) for name in names)]
        for row in others
    ]
    rigs = dict.fromkeys(rig for places in place.values() for rig, _ in places)
    ours = {rig: [_of_rig(summary.get(rig, {}), rig, place[name]) for name in names] for rig in rigs}
    ours = {rig: values for rig, values in ours.items() if any(v is not None for v in values)}
    for rig, values in ours.items():
        label = "orbit4d" if len(ours) == 1 else f"orbit4d, {RIGS.get(rig, rig)}"
        body.append([label, *map(number, names, values)])
    arrows = [METRICS[place[name][0][1]].arrow for name in names]
    return ["method", *(f"{name} {arrow}" for name, arrow in zip(names, arrows))], body


def _of_rig(values: Mapping[str, float], rig: str, places: Sequence[tuple[str, str]]) -> float | None:
    return next((values[metric] for where, metric in places if where == rig and metric in values), None)


def protocol_note(protocol: str) -> str:
    """What the published rows are of, '' without a protocol."""
    about = PROTOCOLS.get(protocol)
    return "" if about is None else f"Protocol: {about.title}. {about.note}".strip()


def markdown(summary: Summary, unmeasured: Mapping[str, str], protocol: str = "") -> str:
    """A Markdown table, then what was not measured and why."""
    tables = [table for table in (beside_published(summary, protocol), own_table(summary)) if table]
    blocks = []
    for head, body in tables:
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        blocks.append("\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]))
    if note := protocol_note(protocol):
        blocks.insert(1, note)
    if unmeasured:
        blocks.append("\n".join(f"{name}: not measured: {why}" for name, why in sorted(unmeasured.items())))
    return "\n\n".join(blocks) + "\n"


_TEX = {
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "∞": r"$\infty$", "_": r"\_", "²": "$^2$",
    "†": r"$^\dagger$", "%": r"\%", "&": r"\&",
}  # fmt: skip


def latex(summary: Summary, protocol: str = "") -> str:
    """The same rows as LaTeX tabulars (booktabs), below the protocol as a comment."""

    def tex(text: str) -> str:
        return "".join(_TEX.get(letter, letter) for letter in text)

    text = f"% {note}\n" if (note := protocol_note(protocol)) else ""
    for table in (beside_published(summary, protocol), own_table(summary)):
        if table is None:
            continue
        head, body = table
        lines = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule"]
        lines += [" & ".join(map(tex, head)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(tex, row)) + r" \\" for row in body]
        text += "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
    return text


def terminal(summary: Summary, unmeasured: Mapping[str, str]) -> str:
    """Name, value, unit and meaning, one metric a line; a block per rig."""
    lines = []
    for rig, values in summary.items():
        if len(summary) > 1:
            lines.append(RIGS.get(rig, rig))
        for name in columns(values):
            metric = METRICS.get(name)
            meaning = f"{metric.unit:<3} {metric.arrow} {metric.what}" if metric else ""
            lines.append(f"  {name:<18} {number(name, values[name]):>10} {meaning}".rstrip())
    lines += [f"  {name:<18} {'–':>10} not measured: {why}" for name, why in sorted(unmeasured.items())]
    return "\n".join(lines)
