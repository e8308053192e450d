"""ModelScope's and Zeroscope's text-to-video networks as priors over clips."""

from __future__ import annotations

from orbit4d.model.distill.scores.images import ImageScore
from orbit4d.model.distill.scores.latent import CLIP_AXES


class ClipScore(ImageScore):
    """A text-to-video model: z [B, C, F, h, w], told a prompt; one t for all frames of a clip."""

    axes = CLIP_AXES
