"""A small calibrated model: logistic regression on measures, written as the expression of the rule `keep`.

So it needs no file of its own and can be read: a probability that people would keep the clip, from weights on
logarithms of measures. What was not measured counts as the mean of the labelled clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.curate.fitting.truth import Mask
from orbit4d.curate.rules import Columns

Values = npt.NDArray[np.float64]
#: Measure -> whether its logarithm counts.
FEATURES = {
    "motion_geometry": True,
    "motion_nonrigid": True,
    "motion_shape": True,
    "union_growth": True,
    "coverage_fit": True,
    "coverage": True,
    "motion_magnitude": True,
    "out_of_frame": False,
    "torn_edges": False,
    "ssim_object_half": False,
    "ssim_object_peak": False,
}
#: What a logarithm is taken of at least.
FLOOR = 1e-5
#: Ridge on standardised weights: some tens of labels must not make one measure certain.
RIDGE = 1.0
_STEPS = 50


@dataclass(frozen=True)
class Model:
    """Probability of keeping a clip: 1 / (1 + exp(-(bias + sum of weight * feature)))."""

    names: tuple[str, ...]
    weights: Values
    """[F] of the features as they are, not standardised."""
    bias: float
    means: Values
    """[F] what stands in for a missing value, a feature."""

    def logit(self, columns: Columns) -> Values:
        """[rows]"""
        return _features(columns, self.names, self.means) @ self.weights + self.bias

    def expression(self, probability: float = 0.5) -> str:
        """SQL that is true where the probability is at least `probability`."""
        limit = float(np.log(probability / (1.0 - probability)))
        terms = [f"{self.bias - limit:.9g}"]
        for name, weight, mean in zip(self.names, self.weights, self.means):
            # Not greatest(), which passes over null: a missing value would count as the floor.
            floored = f"ln(if({name} < {FLOOR:g}, {FLOOR:g}, {name}))"
            feature = floored if FEATURES[name] else name
            terms.append(f"{weight:+.9g} * coalesce({feature}, {mean:.9g})")
        return " ".join(terms) + " >= 0"


def _features(columns: Columns, names: tuple[str, ...], means: Values) -> Values:
    found = _raw(columns, names)
    return np.where(np.isfinite(found), found, means)


def _raw(columns: Columns, names: tuple[str, ...]) -> Values:
    logged = [np.log(np.maximum(columns[name], FLOOR)) if FEATURES[name] else columns[name] for name in names]
    return np.stack(logged, axis=1)


def fit_model(columns: Columns, keep: Mask, assets: npt.NDArray[np.str_], some: Mask | None = None) -> Model:
    """Weights by ridge logistic regression on `some` rows (all), then Platt scaling of logits that were
    predicted for assets left out (Platt 1999), so that 0.8 means that 8 of 10 are kept."""
    chosen = np.ones(columns.n, bool) if some is None else some
    names = tuple(name for name in FEATURES if np.isfinite(columns[name][chosen]).sum() >= 3)
    raw = _raw(columns, names)
    means = np.nanmean(np.where(np.isfinite(raw[chosen]), raw[chosen], np.nan), axis=0)
    filled = np.where(np.isfinite(raw), raw, means)
    spread = filled[chosen].std(axis=0)
    spread[spread < 1e-9] = np.inf  # what never varies has no weight
    standard = (filled - means) / spread
    weights = _logistic(standard[chosen], keep[chosen], RIDGE)
    outside = np.empty(int(chosen.sum()))
    inside = np.flatnonzero(chosen)
    for part in _parts(assets[chosen], keep[chosen]):
        rest = _logistic(standard[inside[~part]], keep[inside[~part]], RIDGE)
        outside[part] = standard[inside[part]] @ rest[:-1] + rest[-1]
    slope, shift = _logistic(outside[:, None], _smoothed(keep[chosen]), 1e-3)
    slope = float(max(slope, 0.05))  # labels that contradict each other make it flat and never turn it round
    scaled = weights[:-1] / spread
    bias = weights[-1] - float(scaled @ means)
    return Model(names, scaled * slope, float(bias * slope + shift), means)


def _parts(assets: npt.NDArray[np.str_], keep: Mask) -> list[Mask]:
    names = np.unique(assets)
    order = np.random.default_rng(0).permutation(len(names))
    drops = np.array([(~keep[assets == name]).any() for name in names])[order]
    dealt = np.concatenate([order[drops], order[~drops]])
    number = {names[i]: k % 5 for k, i in enumerate(dealt)}
    numbers = np.array([number[name] for name in assets])
    # A part beside which one kind alone is left could teach nothing.
    return [numbers == k for k in range(5) if (numbers == k).any()]


def _smoothed(keep: Mask) -> Values:
    """Platt's targets: never quite certain, the less so the fewer there are."""
    kept, dropped = int(keep.sum()), int((~keep).sum())
    return np.where(keep, (kept + 1) / (kept + 2), 1 / (dropped + 2))


def _logistic(features: Values, targets: npt.NDArray[np.generic], ridge: float) -> Values:
    """[F + 1] weights and bias by Newton's method; the bias is not held back."""
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    y = targets.astype(np.float64)
    hold = np.diag([ridge] * features.shape[1] + [1e-6])
    weights = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (p - y) + hold @ weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + hold
        step = np.linalg.solve(hessian, gradient)
        # Far steps of a nearly separable fit are shortened.
        weights = weights - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return weights


def brier(probability: Values, keep: Mask) -> float:
    """Mean squared error of a probability (Brier 1950): 0 is perfect, 0.25 knows nothing."""
    return float(((probability - keep) ** 2).mean())
