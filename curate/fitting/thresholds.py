"""Thresholds chosen on labels: one after another, the value with the fewest wrong verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.curate.fitting.truth import Mask
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import Columns, reject_masks

#: Rule -> (columns it looks at, whether its values are ratios).
FITTED: dict[str, tuple[tuple[str, ...], bool]] = {
    "min_motion": (("motion_geometry",), True),
    "max_motion": (("motion_geometry",), True),
    "max_growth": (("union_growth",), True),
    "min_fit": (("coverage_fit",), True),
    "min_coverage": (("coverage_mean", "coverage"), True),
    "min_shape": (("motion_shape",), True),
    "max_alike": (("ssim_object_quarter", "ssim_object_half", "ssim_object_peak"), False),
    "max_boundary": (("out_of_frame",), False),
    "max_touch": (("boundary_touch",), False),
    "max_torn": (("torn_edges",), False),
}
#: Most values tried of a threshold.
MOST_VALUES = 40
_SWEEPS = 3


def of_looks(rules: Rules) -> Rules:
    """The rules without what no look at a clip tells: licences, benchmarks, duplicates, expressions."""
    return replace(rules, license=(), benchmarks="keep", duplicates="keep", keep="")


def accepted_by(columns: Columns, rules: Rules) -> Mask:
    """[rows] accepted by the rules."""
    masks = reject_masks(columns, rules)
    return ~np.logical_or.reduce([np.zeros(columns.n, bool), *masks.values()])


def fit_thresholds(columns: Columns, keep: Mask, rules: Rules, some: Mask | None = None) -> Rules:
    """The rules with thresholds that agree best with `keep` on `some` rows (all).

    Coordinate descent from the thresholds as they are; rules that are off stay off. Of values that are
    equally wrong the middle of the longest run is taken, and the present one where none is better: labels
    that say nothing about a rule change nothing.
    """
    chosen = np.ones(columns.n, bool) if some is None else some
    look = of_looks(rules)

    def wrong(candidate: Rules) -> int:
        return int((accepted_by(columns, candidate) != keep)[chosen].sum())

    best = wrong(look)
    for _ in range(_SWEEPS):
        before = best
        for name, (measures, ratio) in FITTED.items():
            if getattr(look, name) is None or not any(columns.known(measure) for measure in measures):
                continue
            values = _values(columns, name, measures, ratio, chosen)
            counts = [wrong(_with(look, name, float(value))) for value in values]
            if counts and min(counts) < best:
                best = min(counts)
                look = _with(look, name, _middle(values, counts, ratio))
        if best == before:
            break
    found: dict[str, Any] = {name: getattr(look, name) for name in FITTED}
    return replace(rules, **found)


def _with(rules: Rules, name: str, value: float) -> Rules:
    changed: dict[str, Any] = {name: value}
    return replace(rules, **changed)


def _values(
    columns: Columns, name: str, measures: Sequence[str], ratio: bool, some: Mask
) -> npt.NDArray[np.float64]:
    """Values between which verdicts can change: the middles of what lies there."""
    seen = [columns[measure][some] for measure in measures]
    if name == "min_shape":
        whole = columns["motion_geometry"][some]
        seen = [np.divide(seen[0], whole, out=np.full(len(whole), np.nan), where=whole > 0)]
    known = np.unique(np.concatenate(seen))
    known = known[np.isfinite(known) & ((known > 0) | (not ratio))]
    if len(known) < 2:
        return known
    middles = np.sqrt(known[1:] * known[:-1]) if ratio else (known[1:] + known[:-1]) / 2
    if len(middles) > MOST_VALUES:
        middles = np.quantile(middles, np.linspace(0, 1, MOST_VALUES), method="nearest")
    return np.unique(middles)


def _middle(values: npt.NDArray[np.float64], counts: Sequence[int], ratio: bool) -> float:
    """The middle of the longest run of values with the fewest wrong verdicts, in four digits."""
    least = min(counts)
    runs: list[list[int]] = []
    for i, count in enumerate(counts):
        if count == least:
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
    run = max(runs, key=len)
    first, last = float(values[run[0]]), float(values[run[-1]])
    middle = np.sqrt(first * last) if ratio and first > 0 else (first + last) / 2
    rounded = float(f"{middle:.4g}")
    # Rounding must not leave the run.
    return rounded if first <= rounded <= last else middle
