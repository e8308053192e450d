"""The released search of (v1, v2, v3) over a grid, vectorised: a third of a second in place of a minute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.model.guided.guidance_weights import _distances, _levels, repo_weights

V1 = np.linspace(0.001, 0.009, 9)
V2 = np.arange(50.0, 1001.0, 50.0)
V3 = np.arange(10.0, 101.0, 10.0)


def search_guidance(sigmas: npt.ArrayLike, distances: npt.ArrayLike) -> tuple[float, float, float]:
    """The (v1, v2, v3) that NVS-Solver's released code finds for a schedule and a path.

    Of the triples whose weights (rule "repo") are valid for every step and frame, the first with the most
    weights above a half, in the order v1, v2, v3 of nested loops.

    Args:
        sigmas: decreasing noise levels [N + 1], the last without a row.
        distances: [F] in [0, 1].

    Raises:
        ValueError: where no triple of the grid is valid throughout, or for input as in `guidance_weights`.
    """
    levels, d = _levels(sigmas), _distances(distances)
    noise = (levels[:-1] / levels.max())[None, :, None]
    away = d[d > 0][None, None, :]
    best: tuple[int, tuple[float, float, float]] | None = None
    for v1 in V1:
        for v2 in V2:
            weights = repo_weights(V3[:, None, None] * away - v2 * noise, v1)
            valid = ~np.isnan(weights).any((1, 2))
            count = np.where(valid, (weights > 0.5).sum((1, 2)), -1)
            k = int(count.argmax())
            if count[k] >= 0 and (best is None or count[k] > best[0]):
                best = (int(count[k]), (float(v1), float(v2), float(V3[k])))
    if best is None:
        raise ValueError("no (v1, v2, v3) of the released grid is valid for these levels and distances")
    return best[1]
