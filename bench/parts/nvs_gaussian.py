"""The Gaussian table of bench/nvs.py: every mode and schedule on a prior whose conditional is known.

Prior: 4 frames of 2 values, variance 1, correlation 0.8 per frame and 0.5 per value; three values are seen
(1.0, -0.5, 0.8). 100 Karras levels from 700 to 0.002; the denoiser is the exact one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DISTANCES = (0.0, 1 / 3, 2 / 3, 1.0)
SEEN = ((1.0, -0.5), (0.8,), (), ())
#: Rows: mode, weights, further options of `guided_sample`.
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dgs, infinite": ("dgs", "infinite", {}),
    "dgs, constant 0.5": ("dgs", "constant", {}),
    "dgs, linear": ("dgs", "linear", {}),
    "dgs, closed": ("dgs", "closed", {}),
    "posterior, infinite": ("posterior", "infinite", {}),
    "exact-likelihood, infinite, 0 iterations": ("exact-likelihood", "infinite", {"iterations": 0}),
    "exact-likelihood, infinite, 1 iteration": ("exact-likelihood", "infinite", {"iterations": 1}),
    "exact-likelihood, infinite, 2 iterations": ("exact-likelihood", "infinite", {"iterations": 2}),
    "exact-likelihood, infinite, 3 iterations": ("exact-likelihood", "infinite", {"iterations": 3}),
    "exact-likelihood, closed, 5 iterations": ("exact-likelihood", "closed", {"iterations": 5}),
    "repo-dgs, repo": ("repo-dgs", "repo", {}),
    "repo-dgs, infinite": ("repo-dgs", "infinite", {}),
    "repo-posterior, repo": ("repo-posterior", "repo", {}),
    "repo-posterior, infinite": ("repo-posterior", "infinite", {}),
    "worldforge, until 5.5, omega 4": ("worldforge", "infinite", {}),
    "worldforge, until 5.5, omega 0": ("worldforge", "infinite", {"omega": 0.0}),
}


def gaussian(samples: int = 20_000, steps: int = 100, seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each row: means of the five hidden values, the largest error, variance over the exact one, and how
    far seen values are off (mean, standard deviation)."""
    import torch

    from orbit4d.model import guided_sample

    torch.set_num_threads(1)
    warp, seen = known()
    covariance = correlated()
    flat, mask = warp.permute(0, 2, 1, 3, 4).flatten(), seen.permute(0, 2, 1, 3, 4).flatten()
    gain = covariance[~mask][:, mask] @ torch.linalg.inv(covariance[mask][:, mask])
    mean, variance = (
        gain @ flat[mask],
        torch.diag(covariance[~mask][:, ~mask] - gain @ covariance[mask][:, ~mask]),
    )
    levels = karras(steps)
    found: dict[str, dict[str, Any]] = {}
    for name, (mode, schedule, rest) in ROWS.items():
        generator = torch.Generator().manual_seed(seed)
        x = levels[0] * torch.randn(samples, *warp.shape[1:], generator=generator, dtype=torch.float64)
        out = guided_sample(
            denoiser(covariance), levels, x, warp, seen, weights(schedule, levels), mode, generator, **rest
        )  # type: ignore[arg-type]
        values = out.permute(0, 2, 1, 3, 4).flatten(1)
        hidden, off = values[:, ~mask], values[:, mask] - flat[mask]
        ratio = hidden.var(0) / variance
        found[name] = {
            "means": [round(float(m), 3) for m in hidden.mean(0)],
            "error": round(float((hidden.mean(0) - mean).abs().max()), 3),
            "variance": [round(float(ratio.min()), 2), round(float(ratio.max()), 2)],
            "seen_off": [round(float(off.mean(0).abs().max()), 3), round(float(off.std(0).max()), 3)],
        }
        print(f"{name:42s}", *found[name].values(), flush=True)
    return found


def correlated() -> Any:
    """0.8 ^ |difference of frames| times 0.5 ^ |difference of values| [8, 8]."""
    import torch

    f, v = torch.arange(4).double(), torch.arange(2).double()
    return torch.kron(0.8 ** (f[:, None] - f).abs(), 0.5 ** (v[:, None] - v).abs())


def known() -> tuple[Any, Any]:
    """The warp [1, 1, 4, 1, 2] and what it sees."""
    import torch

    warp = torch.zeros(1, 1, 4, 1, 2, dtype=torch.float64)
    seen = torch.zeros(1, 1, 4, 1, 2, dtype=torch.bool)
    for frame, values in enumerate(SEEN):
        for k, value in enumerate(values):
            warp[0, 0, frame, 0, k], seen[0, 0, frame, 0, k] = value, True
    return warp, seen


def karras(steps: int) -> np.ndarray[Any, Any]:
    """Levels of Karras et al. 2022, rho 7, and 0: [N + 1]."""
    ramp = np.linspace(0, 1, steps)
    return np.append((700 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7, 0.0)


def denoiser(covariance: Any) -> Any:
    """x0 = C (C + sigma^2 I)^-1 x on frames and values."""
    import torch

    def clean(x: Any, sigma: float) -> Any:
        moved = x.permute(0, 2, 1, 3, 4)
        gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(8, dtype=x.dtype))
        return (moved.reshape(len(x), -1) @ gain.T).reshape(moved.shape).permute(0, 2, 1, 3, 4)

    return clean


def weights(schedule: str, levels: Any) -> Any:
    """[N, F] of a schedule's name."""
    from orbit4d.model import guidance_weights

    n = len(levels) - 1
    if schedule == "linear":
        return np.repeat(1 - np.arange(n)[:, None] / n, 4, 1)
    if schedule == "constant":
        return 0.5
    if schedule in ("closed", "repo"):
        return guidance_weights(levels, DISTANCES, (0.001, 1000.0, 10.0), schedule)  # type: ignore[arg-type]
    return 1.0
