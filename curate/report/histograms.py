"""Histograms as inline SVG: accepted and rejected stacked, thresholds drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 150, 30, 22, 16
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - 6, _HEIGHT - _BOTTOM - _TOP
_BASE = _TOP + _PLOT_HEIGHT
_BINS = 40


def histogram_svg(
    values: npt.NDArray[np.float64],
    accepted: npt.NDArray[np.bool_],
    thresholds: Sequence[tuple[str, float]] = (),
    log: bool = False,
    label: str = "",
) -> str:
    """SVG of finite `values` [N], stacked by `accepted` [N], with named `thresholds` as dashed lines.

    With `log`, values at or below zero are counted in the leftmost bin. "" when there is nothing to draw.
    """
    known = np.isfinite(values)
    values, accepted = values[known], accepted[known]
    if len(values) == 0:
        return ""
    scale = _scale(values, [value for _, value in thresholds], log)
    counts = [np.histogram(scale.clipped(values[mask]), scale.edges)[0] for mask in (accepted, ~accepted)]
    top = max(int((counts[0] + counts[1]).max()), 1)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_axis(top),
        *_bars(scale, counts, top),
        *_tick_labels(scale),
        *_threshold_lines(scale, thresholds),
    ]
    return "".join(parts) + "</svg>"


@dataclass(frozen=True)
class _Scale:
    """The horizontal axis: its ends in values, or in powers of ten where `log`."""

    low: float
    high: float
    log: bool

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Borders of the bins [_BINS + 1]."""
        return np.linspace(self.low, self.high, _BINS + 1)

    def clipped(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Values on the axis; those beyond its ends at the ends."""
        on_axis = np.log10(np.maximum(values, 10.0**self.low)) if self.log else values
        return np.clip(on_axis, self.low, self.high)

    def at(self, place: float) -> float:
        """Pixels from the left of a place on the axis."""
        return _LEFT + (place - self.low) / (self.high - self.low) * _PLOT_WIDTH


def _scale(values: npt.NDArray[np.float64], thresholds: Sequence[float], log: bool) -> _Scale:
    """An axis that shows nearly all `values` and every threshold."""
    positive = values[values > 0]
    if log and len(positive) == 0:
        log = False
    marks = [value for value in thresholds if value > 0 or not log]
    # A handful of runaways must not squeeze everyone else into one bin: they are counted in the last one.
    low = min([float(np.quantile(positive if log else values, 0.002)), *marks])
    high = max([float(np.quantile(values, 0.995)), *marks])
    if log:
        # Below a ten-thousandth of the largest there is only rounding noise.
        low, high = np.log10(max(low, high * 1e-4, 1e-9)), np.log10(max(high, 1e-9))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = 0.03 * (high - low)
    return _Scale(low - margin, high + margin, log)


def _axis(top: int) -> list[str]:
    """The base line, and the count that the full height stands for."""
    return [
        f'<line class="axis" x1="{_LEFT}" y1="{_BASE}" x2="{_WIDTH - 6}" y2="{_BASE}"/>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{top}</text>',
        f'<text x="{_LEFT - 4}" y="{_BASE}" text-anchor="end">0</text>',
    ]


def _bars(scale: _Scale, counts: Sequence[npt.NDArray[np.int64]], top: int) -> list[str]:
    """A column a bin: accepted (`counts[0]`) below, rejected (`counts[1]`) above."""
    parts = []
    edges, width = scale.edges, _PLOT_WIDTH / _BINS
    for i in range(_BINS):
        bottom = float(_BASE)
        for name, count in zip(("good", "bad"), (int(counts[0][i]), int(counts[1][i]))):
            if count > 0:
                height = max(count / top * _PLOT_HEIGHT, 1.0)
                bottom -= height
                span = _interval(edges[i], edges[i + 1], scale.log)
                said = f"{count} {'accepted' if name == 'good' else 'rejected'}, {span}"
                parts.append(
                    f'<rect class="{name}" x="{scale.at(edges[i]) + 0.5:.1f}" y="{bottom:.1f}" '
                    f'width="{width - 1:.1f}" height="{height:.1f}"><title>{said}</title></rect>'
                )
    return parts


def _tick_labels(scale: _Scale) -> list[str]:
    return [
        f'<text x="{scale.at(tick):.1f}" y="{_BASE + 13}" text-anchor="middle">'
        f"{_number(10.0**tick if scale.log else tick)}</text>"
        for tick in _ticks(scale.low, scale.high, scale.log)
    ]


def _threshold_lines(scale: _Scale, thresholds: Sequence[tuple[str, float]]) -> list[str]:
    """Dashed lines with names; a logarithmic axis has no place for thresholds at or below zero."""
    parts = []
    for name, value in thresholds:
        if scale.log and value <= 0:
            continue
        x = scale.at(np.log10(value) if scale.log else value)
        anchor = "start" if x < _WIDTH * 0.6 else "end"
        shift = 4 if anchor == "start" else -4
        parts.append(
            f'<line class="threshold" x1="{x:.1f}" y1="{_TOP - 4}" x2="{x:.1f}" y2="{_BASE}"/>'
            f'<text class="threshold-text" x="{x + shift:.1f}" y="{_TOP - 6}" text-anchor="{anchor}">'
            f"{escape(name)} {value:g}</text>"
        )
    return parts


def _interval(low: float, high: float, log: bool) -> str:
    if log:
        low, high = 10.0**low, 10.0**high
    return f"{low:.3g} to {high:.3g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        for multiples in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            ticks = [t for d in decades for m in multiples if low <= (t := d + float(np.log10(m))) <= high]
            if len(ticks) >= 3:
                return ticks[:: max(1, int(np.ceil(len(ticks) / 6)))]
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(m for m in (1, 2, 5, 10) if m * power >= rough) * power
    first = np.ceil(low / step) * step
    return [float(first + i * step) for i in range(int((high - first) / step + 1e-9) + 1)]
