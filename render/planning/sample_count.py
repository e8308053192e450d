"""How many samples an asset needs, judged from its own noise.

Two images of the same view with few samples and different random numbers differ by twice the variance
that either has against the truth. From that, PSNR and structural similarity at more samples are predicted
and the least count that reaches the target is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from orbit4d.datasets.images.measures import composite, object_box, psnr, ssim
from orbit4d.datasets.store.clip import Pixels

#: Samples of a probe image, and the random numbers of the two that are taken of each of two views.
PROBE_SAMPLES = 8
PROBE_SEEDS = (101, 202)
#: What a doubling of the samples gains, taken from the slowest case seen (`make bench-render`): 3.5 to 5
#: dB, and a half to a third of the dissimilarity.
DB_PER_DOUBLING = 3.5
DISSIMILARITY_PER_DOUBLING = 0.5
#: Counts are rounded up to a multiple of this.
STEP = 4


def quality_at_probe(pairs: Iterable[tuple[Pixels, Pixels]]) -> tuple[float, float]:
    """Worst (PSNR in dB, SSIM) that probe images RGBA [H, W, 4] have against the truth.

    On white, inside the box around the object: over the whole image a small object would hide its noise
    in the background.
    """
    worst_db, worst_ssim = np.inf, 1.0
    for a, b in pairs:
        box = object_box(np.maximum(a[..., 3], b[..., 3]), margin=1)
        left, right = composite(a[box]), composite(b[box])
        # The pair differs by twice the variance of one: 3.01 dB, and twice the dissimilarity.
        worst_db = min(worst_db, psnr(left, right) + 10.0 * np.log10(2.0))
        if min(left.shape[:2]) >= 11:
            worst_ssim = min(worst_ssim, 1.0 - (1.0 - ssim(left, right)) / 2.0)
    return float(worst_db), float(worst_ssim)


def samples_for(
    quality: tuple[float, float], target_db: float, target_ssim: float, least: int, most: int
) -> int:
    """Fewest samples, from `least` to `most`, predicted to reach both targets."""
    db, similarity = quality
    doublings = [(target_db - db) / DB_PER_DOUBLING]
    if similarity < 1.0:
        doublings.append(
            np.log((1.0 - target_ssim) / (1.0 - similarity)) / np.log(DISSIMILARITY_PER_DOUBLING)
        )
    exact = PROBE_SAMPLES * 2.0 ** max(doublings)
    rounded = STEP * int(np.ceil(min(max(exact, least), most) / STEP))
    return min(max(rounded, least), most)
