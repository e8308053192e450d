"""Priors over single views of a known scene."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera, orbit_c2w
from orbit4d.model.distill.analytic import GaussianScore, MixtureScore
from orbit4d.model.distill.scenes.pose import camera_of_pose, relative_pose
from orbit4d.model.distill.scenes.rendering import Renders, rendered
from orbit4d.model.distill.scenes.scene_score import Exact, SceneConditions, SceneScore

#: Views of the orbit that stand for "any camera".
ORBIT_VIEWS = 16


class ViewPrior(SceneScore):
    """What a text-to-image model knows of an object: some view of it, it cannot say which.

    A mixture over the orbit of `lens` (its elevation and distance) at one time.
    """

    takes = frozenset({"background"})

    def __init__(self, scene: Renders, lens: Camera, time: float = 0.0, s: float = 0.1, **rest: Any) -> None:
        super().__init__(scene, s, **rest)
        self.lens, self.time = lens, time

    def _conditioned(self, **named: Any) -> SceneConditions:
        background = torch.as_tensor(named["background"])
        elevation, azimuth, distance = spherical(self.lens)
        cameras = [
            replace(self.lens, c2w=orbit_c2w(azimuth + 360.0 * i / ORBIT_VIEWS, elevation, distance))
            for i in range(ORBIT_VIEWS)
        ]

        def build(size: tuple[int, int]) -> list[Exact]:
            points = rendered(self.scene, [(camera, self.time) for camera in cameras], size).on(background)
            return [MixtureScore(points, self.s, self.alphas_cumprod)]

        return SceneConditions(build)


class RelativeViewPrior(SceneScore):
    """What Zero-1-to-3 knows of an object: its view from a camera that is given relative to a reference.

    N(render at the reference's camera turned by the pose, s^2) at one time. It is asked with the pose of
    `relative_pose` and not with the camera, so a wrong sign there turns the object the wrong way.
    """

    takes = frozenset({"reference_camera", "camera", "background"})

    def __init__(
        self, scene: Renders, reference: Camera, time: float = 0.0, s: float = 0.1, **rest: Any
    ) -> None:
        super().__init__(scene, s, **rest)
        self.reference, self.time = reference, time

    def _conditioned(self, **named: Any) -> SceneConditions:
        background = torch.as_tensor(named["background"])
        asked = torch.as_tensor(named["camera"], dtype=torch.float64).reshape(-1, 3)
        pose = relative_pose(asked, named["reference_camera"])
        at = spherical(self.reference)
        cameras = []
        for row in pose:
            elevation, azimuth, distance = camera_of_pose(row, at)
            cameras.append(replace(self.reference, c2w=orbit_c2w(azimuth, elevation, distance)))

        def build(size: tuple[int, int]) -> list[Exact]:
            mean = rendered(self.scene, [(camera, self.time) for camera in cameras], size).on(background)
            return [GaussianScore(mean, self.s, self.alphas_cumprod)]

        return SceneConditions(build)


def spherical(camera: Camera) -> tuple[float, float, float]:
    """Elevation and azimuth in degrees and distance of a camera that looks at the origin."""
    x, y, z = (torch.tensor(float(v), dtype=torch.float64) for v in camera.position)
    distance: Tensor = (x * x + y * y + z * z).sqrt()
    elevation = torch.rad2deg(torch.asin((z / distance).clamp(-1, 1)))
    return float(elevation), float(torch.rad2deg(torch.atan2(x, -y))), float(distance)
