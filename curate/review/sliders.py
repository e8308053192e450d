"""Thresholds as sliders: which rule looks at which measure, over which range, and how its values lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.curate.columns import COLUMNS
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import Columns
from orbit4d.datasets.core.errors import InputError

Values = npt.NDArray[np.float64]
BINS = 48


@dataclass(frozen=True)
class Slider:
    """One threshold that can be moved."""

    rule: str
    """Name of the rule, a field of `Rules`."""
    names: tuple[str, ...]
    """Columns it may look at: the first that the table has."""
    log: bool = False
    share_of: str = ""
    """Column that the measure is a share of."""


SLIDERS = (
    Slider("min_motion", ("motion_geometry",), log=True),
    Slider("max_motion", ("motion_geometry",), log=True),
    Slider("max_growth", ("union_growth",), log=True),
    Slider("min_fit", ("coverage_fit",), log=True),
    Slider("min_coverage", ("coverage_mean", "coverage"), log=True),
    Slider("min_shape", ("motion_shape",), log=True, share_of="motion_geometry"),
    Slider("max_alike", ("ssim_object_peak",)),
    Slider("max_boundary", ("out_of_frame",)),
    Slider("max_touch", ("boundary_touch",)),
    Slider("max_torn", ("torn_edges",)),
    Slider("min_nonrigid", ("motion_nonrigid",), log=True),
    Slider("min_seconds", ("seconds",), log=True),
    Slider("max_seconds", ("seconds",), log=True),
    Slider("max_triangles", ("n_triangles",), log=True),
    Slider("max_missing_textures", ("n_missing_textures",)),
    Slider("max_ssim", ("ssim_half",)),
    Slider("min_ssim", ("ssim_half",)),
)


def values_of(slider: Slider, columns: Columns) -> Values | None:
    """[rows] what the slider's rule looks at; None where the table does not have it."""
    name = next((name for name in slider.names if columns.known(name)), None)
    if name is None or (slider.share_of and not columns.known(slider.share_of)):
        return None
    if not slider.share_of:
        return columns[name]
    whole = columns[slider.share_of]
    return np.divide(columns[name], whole, out=np.full(columns.n, np.nan), where=whole > 0)


def described(columns: Columns, rules: Rules) -> list[dict[str, Any]]:
    """Every slider that the table can fill, with its range and its histogram."""
    texts = {entry.name: entry.metadata["text"] for entry in fields(Rules)}
    found = []
    for slider in SLIDERS:
        values = values_of(slider, columns)
        if values is None:
            continue
        value = getattr(rules, slider.rule)
        low, high = _range(values, value, slider.log)
        name = next(name for name in slider.names if columns.known(name))
        found.append(
            {
                "rule": slider.rule,
                "text": texts[slider.rule].partition(": ")[2] or texts[slider.rule],
                "column": f"{name} / {slider.share_of}" if slider.share_of else name,
                "about": COLUMNS[name][1],
                "value": value,
                "low": low,
                "high": high,
                "log": slider.log,
                "whole": slider.rule in ("max_triangles", "max_missing_textures"),
                "histogram": _histogram(values, low, high, slider.log),
            }
        )
    return found


def _range(values: Values, threshold: float | None, log: bool) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    known = known[known > 0] if log else known
    ends = list(np.quantile(known, [0.002, 0.998])) if len(known) else []
    if threshold is not None and (threshold > 0 or not log):
        # Room on both sides of where the threshold stands.
        ends += [threshold / 2, threshold * 2] if log else [threshold]
    low, high = (min(ends), max(ends)) if ends else (1e-3, 1.0)
    if not log:
        low = min(low, 0.0)
    if high <= low:
        high = low * 10 if log and low > 0 else low + 1.0
    return float(low), float(high)


def _histogram(values: Values, low: float, high: float, log: bool) -> list[int]:
    known = values[np.isfinite(values)]
    known = known[known > 0] if log else known
    places = np.log(known / low) / np.log(high / low) if log else (known - low) / (high - low)
    bins = np.clip((places * BINS).astype(int), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS).tolist()


def moved(rules: Rules, given: Mapping[str, Any]) -> Rules:
    """The rules with thresholds as the page has them; None switches one off. Raises InputError."""
    names = {slider.rule for slider in SLIDERS}
    if unknown := sorted(set(given) - names):
        raise InputError(f"{unknown[0]!r} is no threshold; thresholds are {', '.join(sorted(names))}")
    return replace(rules, **given)


def nearest(values: Values, threshold: float, count: int) -> list[int]:
    """Rows on both sides of a threshold, half of them below it, in the order of their values."""
    order: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
    order = lambda rows: rows[np.argsort(values[rows], kind="stable")]  # noqa: E731
    below = order(np.flatnonzero(values < threshold))[-(count // 2) :]
    above = order(np.flatnonzero(values >= threshold))[: count - count // 2]
    return [int(row) for row in (*below, *above)]
