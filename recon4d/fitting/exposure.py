"""A grey gain per training view: rigs that were lit or exposed each for itself, fitted to one scene.

Published orbits of one object are lit separately: the static orbit is 3 % darker than the video from one side
and 10 % brighter from another. A Gaussian has one colour, so such a difference would end in its shape and
its motion. The gains are a matter of the fit alone: the scene is drawn without them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from orbit4d.recon4d.inputs.loading import Frames

#: Colours are compared where both mattes are above this.
_SOLID = 0.9
#: Fewer pixels than this say nothing of a view's gain.
_LEAST_PIXELS = 16
#: Share of a new measurement in the running one.
_TRUST = 0.5
#: Pulls of the least squares against one measurement of each view: between neighbours of an orbit of 24
#: views, and towards a gain of 1.
_SMOOTH, _SIZE = 0.25, 1e-3


class Exposure:
    """Gains of V training views, the video's first. Their geometric mean over the video is 1.

    Without that a brighter scene under a lower gain would be as good. A view's gain is measured whenever it
    is drawn, as the ratio of its summed colours to the scene's inside both mattes, which a silhouette that is
    off by a pixel or a limb in another place hardly changes; least squares with a pull between neighbours on
    the orbit makes the gains of it.
    """

    def __init__(self, pairs: list[tuple[int, int, float]], n_video: int, n_views: int) -> None:
        self.n_video = n_video
        self.pull = np.eye(n_views) * _SIZE
        for a, b, weight in pairs:
            self.pull[[a, b], [a, b]] += weight
            self.pull[[a, b], [b, a]] -= weight
        self.measured = np.zeros(n_views)
        """[V] logarithms of the gains as they were last seen."""
        self.drawn = np.zeros(n_views)
        """[V] 1 for views that were measured."""
        self.logs = np.zeros(n_views)
        """[V] logarithms of the gains in use."""

    def gain(self, view: int) -> float:
        """By what the drawn colour of view `view` is multiplied before it is compared."""
        return math.exp(self.logs[view])

    def gains(self) -> list[float]:
        """[V] gains."""
        return np.exp(self.logs).tolist()

    @torch.no_grad()
    def observe(self, view: int, color: Tensor, alpha: Tensor, truth: Tensor) -> None:
        """Take down how bright view `view` is over what was drawn without its gain.

        color [H, W, 3], alpha [H, W, 1] and truth [H, W, 4] are premultiplied.
        """
        solid = ((alpha > _SOLID) & (truth[..., 3:] > _SOLID)).to(color.dtype)
        self.note(
            view, float((color * solid).sum()), float((truth[..., :3] * solid).sum()), float(solid.sum())
        )

    def note(self, view: int, ours: float, theirs: float, solid: float) -> None:
        """`observe` of the summed colours, ours and the truth's, over `solid` pixels."""
        if solid < _LEAST_PIXELS or not (ours > 0 and theirs > 0):
            return
        found = float(np.log(theirs / ours))
        self.measured[view] += (_TRUST if self.drawn[view] else 1.0) * (found - self.measured[view])
        self.drawn[view] = 1.0

    def settle(self) -> None:
        """Make the gains of what was measured so far."""
        # By torch, which has one thread in a fit: NumPy's library wakes a team that spins for 4 ms.
        matrix = torch.from_numpy(np.diag(self.drawn) + self.pull)
        logs = torch.linalg.solve(matrix, torch.from_numpy(self.drawn * self.measured)).numpy()
        self.logs = logs - logs[: self.n_video].mean()

    def record(self) -> dict[str, list[float]]:
        """Plain values for a checkpoint."""
        return {name: getattr(self, name).tolist() for name in ("measured", "drawn", "logs")}

    def restore(self, record: dict[str, list[float]]) -> None:
        """Inverse of `record`."""
        for name in ("measured", "drawn", "logs"):
            setattr(self, name, np.array(record[name]))


def exposure_of(dynamic: Frames, static: Frames | None) -> Exposure:
    """Gains of 1 for the views of a video and of its static orbit."""
    n = len(dynamic)
    tracks = dict.fromkeys(dynamic.labels or ("",))
    pairs = []
    for label in tracks:
        # Brightness drifts within what a camera filmed; cameras differ as they like.
        mine = [i for i in range(n) if not dynamic.labels or dynamic.labels[i] == label]
        follow = in_time([dynamic.time[i] for i in mine])
        pairs += [(mine[a], mine[b], _stiffness(len(mine))) for a, b in follow]
    if static is not None:
        pairs += [(n + a, n + b, _stiffness(len(static))) for a, b in side_by_side(static)]
    return Exposure(pairs, n, n + len(static or ()))


def _stiffness(n: int) -> float:
    """Pull between neighbours of an orbit of n views: a wave along the orbit is damped alike for every n."""
    return _SMOOTH * (n / 24) ** 2


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
