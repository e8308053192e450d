"""Line charts as inline SVG that take their colours from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 34


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "a"
    """Class of the stroke: a or b, faint for what lies behind."""


def nice_step(span: float, ticks: int) -> float:
    """The 1-2-5 step that cuts `span` into about `ticks` parts."""
    raw = span / max(ticks, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within [low, high]."""
    if not high > low:
        return [low]
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high]; powers alone when there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1,) if len(powers) > 4 else (1, 2, 5)
    return [m * 10.0**p for p in powers for m in marks if low * 0.999 <= m * 10.0**p <= high * 1.001]


def chart(lines: Sequence[Line], x_label: str, y_label: str, title: str, log_y: bool = False) -> str:
    """An SVG figure of several curves over a common x axis. Values that are not finite are left out."""
    shown = [
        (line, [(x, y) for x, y in zip(line.x, line.y) if math.isfinite(y) and (y > 0 or not log_y)])
        for line in lines
    ]
    points = [point for _, pairs in shown for point in pairs]
    if not points:
        return ""
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = min(y for _, y in points), max(y for _, y in points)
    if log_y:
        y0, y1 = y0 / 1.1, y1 * 1.1
    else:
        pad = 0.08 * (y1 - y0) or 0.5
        y0, y1 = y0 - pad, y1 + pad
    x1 = x1 if x1 > x0 else x0 + 1

    def across(x: float) -> float:
        return _LEFT + (x - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        share = (
            (math.log(y) - math.log(y0)) / (math.log(y1) - math.log(y0)) if log_y else (y - y0) / (y1 - y0)
        )
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    out = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in log_ticks(y0, y1) if log_y else ticks(y0, y1):
        out.append(f'<path class="grid" d="M{_LEFT} {down(y):.1f}H{WIDTH - _RIGHT}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{down(y) + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    whole = all(float(x).is_integer() for x, _ in points)
    for x in ticks(x0, x1, 6):
        if whole and not float(x).is_integer():
            continue
        out.append(f'<text x="{across(x):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    out.append(
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>'
        f'<text x="{_LEFT}" y="{HEIGHT - 3}">{escape(y_label)}</text>'
    )
    for line, pairs in shown:
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in pairs)
        if path:
            out.append(f'<path class="line {line.kind}" d="M{path}"/>')
    out.append("</svg>")
    labels = [f'<span class="{line.kind}">{escape(line.label)}</span>' for line in lines if line.label]
    return "".join(out) + (f'<p class="key">{"".join(labels)}</p>' if labels else "")


def smoothed(values: Sequence[float], share: float = 0.06) -> list[float]:
    """Centred running mean over a window of `share` of the curve."""
    half = max(1, round(len(values) * share / 2))
    return [
        sum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - half) : i + half + 1]]
    ]
