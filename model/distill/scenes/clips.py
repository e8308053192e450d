"""Priors over clips of a known scene that moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.analytic import GaussianScore
from orbit4d.model.distill.scenes.rendering import Bias, Renders, rendered
from orbit4d.model.distill.scenes.scene_score import Exact, SceneConditions, SceneScore


class ClipPrior(SceneScore):
    """What a video model knows: N(the clip of the scene at these cameras and times, s^2), perhaps biased.

    Clips are [1, 3, F, h, w]. `bias` changes the mean's views on white (`rendering.tint`, `rendering.blur`).
    """

    takes = frozenset({"cameras", "times", "background"})

    def __init__(self, scene: Renders, bias: Bias | None = None, s: float = 0.1, **rest: Any) -> None:
        super().__init__(scene, s, **rest)
        self.bias = bias

    def times_of(self, times: Sequence[float]) -> list[float]:
        """The times that the frames show."""
        return list(times)

    def _conditioned(self, **named: Any) -> SceneConditions:
        cameras: Sequence[Camera] = named["cameras"]
        times, background = self.times_of(named["times"]), torch.as_tensor(named["background"])
        if len(cameras) != len(times):
            raise InputError(f"{self.name}: {len(cameras)} cameras and {len(times)} times")

        def build(size: tuple[int, int]) -> list[Exact]:
            layers = rendered(self.scene, list(zip(cameras, times)), size)
            layers = layers if self.bias is None else self.bias(layers)
            mean = layers.on(background).transpose(0, 1)[None]
            return [GaussianScore(mean, self.s, self.alphas_cumprod)]

        return SceneConditions(build)


class StillClipPrior(ClipPrior):
    """The same cameras around the object held still: the second model of `msd`."""

    def __init__(
        self, scene: Renders, bias: Bias | None = None, s: float = 0.1, time: float = 0.0, **rest: Any
    ) -> None:
        super().__init__(scene, bias, s, **rest)
        self.time = time

    def times_of(self, times: Sequence[float]) -> list[float]:
        return [self.time] * len(times)
