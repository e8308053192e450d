"""What a tile ControlNet with a learned word does, in closed form: structure of the condition, appearance of
the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.resize import area
from orbit4d.model.distill.analytic import MixtureScore
from orbit4d.model.distill.scenes.rendering import TABLE, Renders, rendered
from orbit4d.model.distill.scenes.scene_score import Exact, SceneConditions, SceneScore
from orbit4d.model.distill.score_model import Branch, Kind, coefficients

#: Times at which the object may be seen.
TIMES = 17


class TilePrior(SceneScore):
    """A mixture over the object at a camera and 17 times, weighted by how well each fits a condition.

    Weights are exp(-|L(x_i) - L(c)|^2 / 2 tau^2), L the grey low-pass of `grey_blocks`, both on white; the
    posterior is exact. Images are [B, 3, h, w].
    """

    takes = frozenset({"control", "cameras", "background"})

    def __init__(self, scene: Renders, s: float = 0.1, tau: float = 0.05, **rest: Any) -> None:
        super().__init__(scene, s, **rest)
        if not tau > 0:
            raise ValueError(f"tau: needs a positive number, got {tau}")
        self.tau = tau

    def _conditioned(self, **named: Any) -> SceneConditions:
        """`control` [B, 3, h, w] on white, `cameras` B of them, `background` [3]."""
        cameras: Sequence[Camera] = named["cameras"]
        control, background = named["control"], torch.as_tensor(named["background"])
        if control.ndim != 4 or len(control) != len(cameras):
            raise InputError(
                f"{self.name}: control {list(control.shape)} has not one image for each of "
                f"{len(cameras)} cameras"
            )
        times = [i / (TIMES - 1) for i in range(TIMES)]

        def build(size: tuple[int, int]) -> list[Exact]:
            layers = rendered(self.scene, [(c, t) for c in cameras for t in times], size)
            looks = layers.on(background).unflatten(0, (len(cameras), TIMES))
            grey = grey_blocks(layers.white).flatten(1).unflatten(0, (len(cameras), TIMES)).double()
            wanted = grey_blocks(_sized(control, size)).flatten(1).double()
            apart = (grey - wanted[:, None]).square().sum(-1) / (2 * self.tau**2)
            weights = torch.exp(apart.min(1, keepdim=True).values - apart)
            return [MixtureScore(x, self.s, self.alphas_cumprod, w) for x, w in zip(looks, weights)]

        return SceneConditions(build)


class GaussianTile:
    """A Gaussian whose low frequencies are those of a condition: x0 splits exactly into both parts.

    Mean: block means of `control`; deviation `s_low` of block means, `s_high` of what is left. Block means
    are a projector (twice is once), so each part is estimated alone.
    """

    kind: Kind = "analytic"
    unconditional = False

    def __init__(
        self, control: Tensor, s_low: float, s_high: float, edge: int, alphas_cumprod: Tensor | None = None
    ) -> None:
        self.name, self.calls, self.edge = "gaussian tile", 0, edge
        self.alphas_cumprod = (TABLE if alphas_cumprod is None else alphas_cumprod).double()
        self.mean, self.s_low, self.s_high = block_means(control, edge), s_low, s_high

    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """Like z_t [B, 3, h, w]."""
        self.calls += len(z_t)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        away = z_t - alpha * self.mean.to(z_t)
        low = block_means(away, self.edge)
        gains = [alpha * s**2 / (alpha.square() * s**2 + sigma.square()) for s in (self.s_low, self.s_high)]
        return self.mean.to(z_t) + gains[0] * low + gains[1] * (away - low)

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """Like z_t [B, 3, h, w]."""
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        return (z_t - alpha * self.clean_estimate(z_t, t)) / sigma


def block_means(images: Tensor, edge: int) -> Tensor:
    """Images [..., h, w] with every square of `edge` pixels at its mean; h and w are multiples of it."""
    h, w = images.shape[-2:]
    blocks = images.unflatten(-1, (w // edge, edge)).unflatten(-3, (h // edge, edge))
    return blocks.mean((-1, -3), keepdim=True).expand_as(blocks).reshape(images.shape)


def grey_blocks(images: Tensor) -> Tensor:
    """Grey [N, 1, 16, 16 or so]: mean of the channels, means over squares of w / 16 pixels."""
    h, w = images.shape[-2:]
    edge = max(w // 16, 1)
    grey = images.mean(1, keepdim=True)
    return area(grey, (max(h // edge, 1), max(w // edge, 1)))


def _sized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)
