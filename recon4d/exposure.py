"""A grey gain per training view: rigs that were lit or exposed each for itself, fitted to one scene.

Published orbits of one object are lit separately: the static orbit is 3 % darker than the video from one side
and 10 % brighter from another. A Gaussian has one colour, so such a difference would end in its shape and
its motion. The gains are a matter of the fit alone: the scene is drawn without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from orbit4d.recon4d.frames import Frames

#: Pixels of both mattes above this alpha are compared where one view was taken twice.
_SOLID = 0.9


class Exposure(nn.Module):
    """Gains of V training views, the video's first. Their geometric mean over the video is 1.

    Without that a brighter scene under a lower gain would be as good.
    """

    pairs: Tensor
    """[P, 2] views whose gains are pulled together: neighbours on the orbit."""

    def __init__(self, pairs: Tensor, n_video: int, n_views: int) -> None:
        super().__init__()
        self.n_video = n_video
        self.log_gains = nn.Parameter(torch.zeros(n_views))
        self.register_buffer("pairs", pairs)

    def logs(self) -> Tensor:
        """[V] logarithms of the gains."""
        return self.log_gains - self.log_gains[: self.n_video].mean()

    def gain(self, view: int) -> Tensor:
        """[] by which the drawn colour of view `view` is multiplied before it is compared."""
        return self.logs()[view].exp()

    def gains(self) -> list[float]:
        """[V] as numbers."""
        return self.logs().detach().exp().tolist()

    def regularisers(self) -> dict[str, Tensor]:
        """exposure_smoothness: neighbours on the orbit have like gains. exposure_size: gains are near 1."""
        logs = self.logs()
        here, there = self.pairs.unbind(-1)
        return {
            "exposure_smoothness": (logs[here] - logs[there]).square().mean(),
            "exposure_size": logs.square().mean(),
        }


def exposure_of(dynamic: Frames, static: Frames | None) -> Exposure:
    """Gains of 1 for the views of a video and of its static orbit."""
    pairs = in_time(dynamic.time)
    n = len(dynamic)
    if static is not None:
        pairs += [(n + a, n + b) for a, b in side_by_side(static)]
    return Exposure(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2), n, n + len(static or ()))


def in_time(time: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of views that follow one another."""
    order = np.argsort(time, kind="stable").tolist()
    return list(pairwise(order))


def side_by_side(frames: Frames) -> list[tuple[int, int]]:
    """Pairs of every view and the two that look from nearest to it, whatever order they are listed in."""
    ways = np.stack([camera.position / np.linalg.norm(camera.position) for camera in frames.cameras])
    closeness = ways @ ways.T
    np.fill_diagonal(closeness, -np.inf)
    near = np.argsort(-closeness, axis=1, kind="stable")[:, : min(2, len(ways) - 1)]
    return sorted({(min(a, int(b)), max(a, int(b))) for a, row in enumerate(near) for b in row})


def gain_between(frames: Frames, video: Frames) -> float | None:
    """Grey gain of `frames` over `video`, from the views that both took at one time; None without such.

    Median over those views of the ratio of the summed colours inside both mattes.
    """
    ratios = []
    for image, camera, t in zip(frames.rgba, frames.cameras, frames.time):
        for other, its_camera, its_time in zip(video.rgba, video.cameras, video.time):
            if abs(t - its_time) > 1e-6 or not np.allclose(camera.c2w, its_camera.c2w, atol=1e-6):
                continue
            if image.shape != other.shape:
                continue
            solid = (image[..., 3] > _SOLID) & (other[..., 3] > _SOLID)
            ours, theirs = float(image[solid][:, :3].sum()), float(other[solid][:, :3].sum())
            if ours > 0 and theirs > 0:
                ratios.append(ours / theirs)
    return float(np.median(ratios)) if ratios else None
