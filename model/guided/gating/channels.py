"""WorldForge's choice of channels (FLF): one that moves otherwise after the fusion is left out.

The optical flow between successive latent frames of the fused estimate is compared with that of the model's
own, channel by channel; the score is 1 where both agree.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from orbit4d.model.guided.gating.frame_flow import frame_flow

Array = npt.NDArray[np.float64]

#: Latents of fewer channels are fused whole: the published figures are of 16.
LEAST_CHANNELS = 16
#: The schedule of `left_out` counts in this many steps.
OF_STEPS = 50
#: Steps up to which nothing is left out, and up to which one channel is.
NONE_UNTIL, ONE_UNTIL = 5, 10
#: Later: scores below the mean less so many standard deviations, and how many channels at least and at most.
DEVIATIONS, LEAST, MOST = 0.625, 2, 6
#: A pixel moves otherwise where its flow is off by more pixels, and by a larger share, than this.
OFF_PX, OFF_SHARE = 3.0, 0.05


def channel_scores(own: npt.NDArray[np.floating], fused: npt.NDArray[np.floating]) -> Array:
    """Scores [C] in [0, 1] of two clean estimates [C, T, h, w]: how alike they move, 1 where T is 1.

    1 - (0.45 min(EPE / 10, 1) + 0.45 min(share / 0.5, 1) + 0.1 min(AE / 30, 1)): mean end-point error in
    latents, share of pixels that move otherwise, mean angle in degrees.
    """
    if own.shape != fused.shape or own.ndim != 4:
        raise ValueError(f"estimates: need one shape [C, T, h, w], got {own.shape} and {fused.shape}")
    if own.shape[1] < 2:
        return np.ones(len(own))
    images = [_bytes(estimate) for estimate in (own, fused)]
    return np.array([_score(_flows(images[0][c]), _flows(images[1][c])) for c in range(len(own))])


def left_out(scores: npt.ArrayLike, step: int, steps: int = OF_STEPS) -> list[int]:
    """Channels that keep the model's own estimate at a step of so many.

    None at first (steps 0 to 5 of 50), the one of the lowest score (to 10), then those below the mean less
    0.625 standard deviations, at least 2 and at most 6. In increasing order.
    """
    values = np.asarray(scores, dtype=np.float64)
    at = step * OF_STEPS / steps
    if at <= NONE_UNTIL:
        return []
    if at <= ONE_UNTIL:
        return [int(values.argmin())]
    low = int((values < values.mean() - DEVIATIONS * values.std()).sum())
    count = min(max(low, LEAST), MOST, len(values))
    return sorted(int(c) for c in np.argsort(values, kind="stable")[:count])


def _bytes(estimate: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """0 to 255 between the least and the largest value of all channels, cut to whole numbers."""
    least, most = float(estimate.min()), float(estimate.max())
    if not most > least:
        return np.zeros(estimate.shape, np.uint8)
    return ((estimate - least) / (most - least) * 255).clip(0, 255).astype(np.uint8)


def _flows(images: npt.NDArray[np.uint8]) -> Array:
    return np.stack([frame_flow(a, b) for a, b in pairwise(images)])


def _score(own: Array, fused: Array) -> float:
    error, length, other = (np.linalg.norm(part, axis=-1) for part in (own - fused, fused, own))
    share = ((error > OFF_PX) & (error > OFF_SHARE * length)).mean()
    cosine = (own * fused).sum(-1) / np.maximum(length * other, 1e-8)
    # Where both stand still they agree.
    angle = np.where((length < 1e-4) & (other < 1e-4), 0.0, np.degrees(np.arccos(cosine.clip(-1, 1))))
    lost = 0.45 * min(error.mean() / 10, 1) + 0.45 * min(share / 0.5, 1) + 0.1 * min(angle.mean() / 30, 1)
    return float(1 - lost)
