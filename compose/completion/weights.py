"""The table of weights lambda of a call: how far each step trusts the warp in each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.guidance_weights import DEFAULT_V, guidance_weights
from orbit4d.model.guided.search import search_guidance

Array = npt.NDArray[np.float64]

DEFAULT_SCHEDULE = "closed"
SCHEDULES = ("closed", "repo", "none", "infinite", "constant:W", "linear")
#: Largest level of the schedule that DEFAULT_V belongs to.
SVD_LEVEL = 700.0
#: Kinds of model whose v is searched, unless one is given, for their own noise levels and the path: with the
#: released v the closed form lets go of the warp before they decide anything (docs/measured/novel-views.md).
SEARCHED = ("orbit4d",)
#: A first level above this, or infinite, is all but pure noise: it counts as the next one.
PURE_NOISE = 1e4


@dataclass(frozen=True)
class Table:
    """Weights and where they come from."""

    weights: Array
    """[N, F] in [0, 1]."""
    v: tuple[float, float, float] | None
    """As used, after scaling."""
    origin: str
    """default, given, searched, or empty where the schedule takes no v."""
    levels: Array
    """[N + 1] as the weights took them."""
    schedule: str
    """Name of the rule."""

    def as_report(self) -> dict[str, Any]:
        """Which rule, and where its v comes from; JSON-able."""
        return {
            "schedule": self.schedule,
            "v": None if self.v is None else list(self.v),
            "v_from": self.origin,
        }


def weight_table(schedule: str, v: str, levels: Array, distances: Array, kind_of_model: str = "") -> Table:
    """Weights [N, F] of a schedule's name, empty for the default, for noise levels [N + 1] and distances [F].

    A frame at distance 0 is given: its weight is 1, but under "none". `v` is V1,V2,V3, "search", or empty for
    the default: searched for a run of orbit4d, else the released one. v2 of a triple is scaled to the largest
    level, so that the switch stays at the same noise. InputError for unknown names, and weights that have no
    root.
    """
    schedule = schedule or DEFAULT_SCHEDULE
    used = finite_levels(levels)
    n, f = len(used) - 1, len(distances)
    kind, _, value = schedule.partition(":")
    given = distances == 0
    if kind in ("closed", "repo"):
        triple, origin = _triple(v, used, distances, kind_of_model)
        weights = guidance_weights(used, distances, triple, "closed" if kind == "closed" else "repo")
        if np.isnan(weights).any():
            raise InputError(
                f"--schedule repo --v {','.join(f'{x:g}' for x in triple)}: no root is valid at "
                f"{int(np.isnan(weights).sum())} of {weights.size} weights; give another --v, or --v search"
            )
        return Table(weights, triple, origin, used, schedule)
    if v:
        raise InputError(f"--v {v}: belongs to --schedule closed or repo")
    if kind == "none" and not value:
        return Table(np.zeros((n, f)), None, "", used, schedule)
    if kind == "infinite" and not value:
        return Table(np.ones((n, f)), None, "", used, schedule)
    if kind == "linear" and not value:
        weights = np.repeat(1 - np.arange(n)[:, None] / n, f, axis=1)
    elif kind == "constant":
        weights = np.full((n, f), _share(schedule, value or "0.5"))
    else:
        raise InputError(f"--schedule {schedule}: choose from {', '.join(SCHEDULES)}")
    weights[:, given] = 1.0
    return Table(weights, None, "", used, schedule)


def finite_levels(levels: Array) -> Array:
    """Decreasing levels whose first is not pure noise, and whose last is below the one before."""
    used = np.array(levels, dtype=np.float64)
    if used[0] > PURE_NOISE and len(used) > 2:
        used[0] = used[1] * (1 + 1e-9)
    if used[-1] >= used[-2]:
        used[-1] = 0.0
    return used


def _triple(v: str, levels: Array, distances: Array, kind: str) -> tuple[tuple[float, float, float], str]:
    if v == "search" or (not v and kind in SEARCHED):
        try:
            return search_guidance(levels, distances), "searched"
        except ValueError as error:
            if v:
                raise InputError(f"--v search: {error}") from None
            print(f"note: {error}; the released v is taken, scaled to them")
    values = DEFAULT_V
    if v:
        try:
            parts = tuple(float(part) for part in v.split(","))
        except ValueError:
            parts = ()
        if len(parts) != 3 or not all(np.isfinite(p) and p > 0 for p in parts):
            raise InputError(f"--v {v}: write three positive numbers, as in 0.001,1000,10, or search")
        values = (parts[0], parts[1], parts[2])
    scaled = (values[0], values[1] * float(levels[0]) / SVD_LEVEL, values[2])
    return scaled, "given" if v else "default"


def _share(schedule: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(f"--schedule {schedule}: write a weight from 0 to 1, as in constant:0.5")
    return value
