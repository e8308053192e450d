"""How far each step trusts the warp, frame by frame: the weights l / (1 + l) of NVS-Solver.

A clean frame is estimated twice: by the denoiser (error v2 sigma_n, sigma_n the share of the largest noise)
and by the warp (error v3 d, d the distance of the view). Blended as (mu + l X) / (1 + l) its error is at most
(E_D + l E_P) / (1 + l). With a regulariser against trusting these guesses too far the best l has a closed
form. You et al., Video Diffusion Model as Zero-Shot Novel View Synthesizer, ICLR 2025.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: (v1, v2, v3) that the released search finds for Stable Video Diffusion's 25 and 100 steps.
DEFAULT_V = (0.001, 1000.0, 10.0)
#: The regulariser of the released code is ln(k l + b).
REPO_K, REPO_B = 0.8, -0.2


def guidance_weights(
    sigmas: npt.ArrayLike,
    distances: npt.ArrayLike,
    v: tuple[float, float, float] = DEFAULT_V,
    rule: Literal["closed", "repo"] = "closed",
) -> Array:
    """Weights l / (1 + l) of the warp, in [0, 1], float64 [N, F].

    A view at distance 0 is given: its weight is 1 at every step.

    Args:
        sigmas: decreasing noise levels [N + 1] of the variance-exploding state; the last one has no row.
        distances: [F] in [0, 1], of each frame's view from the nearest given one.
        v: v1 weights the regulariser, v2 the denoiser's error, v3 the warp's. They belong to the scale of the
            largest sigma: nothing is rescaled here.
        rule: "closed" minimises the bound plus v1 abs(ln l); "repo" does as the released code, whose roots
            are 0.25 too small, and gives NaN where none of them is valid.

    Raises:
        ValueError: for other shapes, levels that do not decrease, distances outside [0, 1] or v not positive.
    """
    levels, d = _levels(sigmas), _distances(distances)
    if len(v) != 3 or not all(np.isfinite(x) and x > 0 for x in v):
        raise ValueError(f"v: needs three positive numbers, got {v}")
    if rule not in ("closed", "repo"):
        raise ValueError(f"rule: 'closed' or 'repo', not {rule!r}")
    noise = levels[:-1] / levels.max()
    weight = _closed if rule == "closed" else repo_weights
    weights = weight(v[2] * d[None, :] - v[1] * noise[:, None], v[0])
    weights[:, d == 0] = 1.0
    return weights


def _closed(q: Array, v1: float) -> Array:
    """argmin of (E_D + l E_P) / (1 + l) + v1 abs(ln l) for q = E_P - E_D, as l / (1 + l).

    Its derivative is q / (1 + l)^2 +- v1 / l: l + 1/l + 2 = |q| / v1 where that is 4 or more, else l = 1.
    """
    a = np.maximum(np.abs(q) / v1, 4.0)
    larger = (a - 2 + np.sqrt(a * (a - 4))) / 2
    small = 1 / (1 + larger)
    return np.where(q < 0, 1 - small, small)


def repo_weights(q: Array, v1: Array | float) -> Array:
    """The released rule for q = E_P - E_D: the first of four roots that is valid, NaN where none is."""
    weights = np.full(np.broadcast(q, v1).shape, np.nan)
    for sign in (1.0, -1.0):
        v = sign * np.asarray(v1)
        with np.errstate(invalid="ignore"):
            root = np.sqrt((2 * REPO_K * v + REPO_K * q) ** 2 - 4 * REPO_K * v * (REPO_K * v + q * REPO_B))
            for side in (1.0, -1.0):
                found = (-(2 * v + REPO_K * q) + side * root) / (2 * REPO_K * v)
                valid = found > 1 if sign > 0 else (found > 0) & (found <= 1)
                weights = np.where(np.isnan(weights) & valid, found / (1 + found), weights)
    return weights


def _levels(sigmas: npt.ArrayLike) -> Array:
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not np.isfinite(levels).all():
        raise ValueError(f"sigmas: needs at least two finite levels [N + 1], got shape {levels.shape}")
    if not (np.diff(levels) < 0).all() or levels[-1] < 0:
        raise ValueError("sigmas: noise levels must decrease, and none be below 0")
    return levels


def _distances(distances: npt.ArrayLike) -> Array:
    d = np.asarray(distances, dtype=np.float64)
    if d.ndim != 1 or not len(d) or not ((d >= 0) & (d <= 1)).all():
        raise ValueError("distances: needs a number in [0, 1] for each frame [F]")
    return d
