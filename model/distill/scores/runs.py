"""A run of `orbit4d train` as a prior over orbit clips, through its pipeline's `clean_estimate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.diffusion.flow import is_flow
from orbit4d.model.diffusion.guidance import GuidanceWeights
from orbit4d.model.distill.score_model import Branch, Kind, coefficients
from orbit4d.model.distill.scores.conditions import check_images, refuse_unknown
from orbit4d.model.sampling.asked import Asked
from orbit4d.model.sampling.branches import estimated
from orbit4d.model.sampling.pipeline import OrbitPipeline

#: How far a camera may stand off the orbit of a run: degrees, and share of the radius.
_DEGREES, _SHARE = 1.0, 0.02


class RunScore:
    """Orbit clips z [B, C, F, h, w]; see `ScoreModel`. Guided by the run's own weights where none are given.

    In the slot "3d" it is asked for a still orbit (motion 0), in "video" for a moving one (by default the
    90 % quantile of the training split).
    """

    kind: Kind = "trained-here"
    takes = frozenset({"reference", "prompt", "static", "motion", "cameras"})

    def __init__(self, pipeline: OrbitPipeline, source: str, slot: str) -> None:
        self.pipeline, self.source, self.slot = pipeline, source, slot
        self.name = f"run:{Path(source).name}"
        if is_flow(pipeline.scheduler):
            raise InputError(f"{source}: a run of wan-orbit; a score is of an OrbitUNet's run: give one")
        self.alphas_cumprod = pipeline.scheduler.alphas_cumprod.double().cpu()
        self.prediction = "sample"
        self.predicts = str(pipeline.scheduler.config["prediction_type"])
        """What the network itself was trained to predict; estimates come as clean samples all the same."""
        self.frames = int(pipeline.config.frames)
        self.size = (int(pipeline.config.resolution), int(pipeline.config.resolution))
        self.unconditional = pipeline.parts.text is not None or pipeline.parts.image is not None
        self.calls = 0

    @classmethod
    def load(cls, run: str, slot: str, device: torch.device | str = "cpu") -> RunScore:
        """The finished run in a folder; InputError where there is none."""
        return cls(OrbitPipeline.of_folder(Path(run)).to(torch.device(device)), run, slot)

    @property
    def latent(self) -> tuple[int, int]:
        """Channels of a latent and pixels per latent pixel."""
        return self.pipeline.parts.latent_channels, self.pipeline.parts.autoencoder.factor

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images [N, 3, h, w] in [0, 1] to latents [N, C, h / f, w / f] (the mode), differentiable.

        Raises:
            InputError: images that are no images, or `noise`, which a run's autoencoder does not take.
        """
        if noise is not None:
            raise InputError(f"{self.name}: encodes to the mode of its autoencoder: no noise to give")
        images = check_images(images, f"{self.name}: images")
        if tuple(images.shape[-2:]) != self.size:
            images = torch.nn.functional.interpolate(images, self.size, mode="bilinear", align_corners=False)
        return self.pipeline.parts.autoencoder.encode(images)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents [N, C, h, w] to images [N, 3, H, W] in [0, 1]."""
        return self.pipeline.parts.autoencoder.decode(z).clamp(0, 1)

    def condition(self, **named: Any) -> Asked:
        """`reference` (the first view) or `static` or `prompt`, `cameras` of a whole orbit, `motion`.

        Raises:
            InputError: cameras that are no orbit of this run, or conditions it was not trained on.
        """
        refuse_unknown(self.name, named, self.takes)
        cameras = named.get("cameras")
        if cameras is not None:
            check_orbit(self.name, cameras, self.pipeline.orbit())
        motion = named.get("motion")
        if motion is None:
            motion = 0.0 if self.slot == "3d" else self.pipeline.motion_statistics.quantile(0.9)
        return self.pipeline.conditions(
            image=named.get("reference"),
            prompt=named.get("prompt"),
            static=named.get("static"),
            motion=motion,
            cameras=cameras,
        )

    @torch.no_grad()
    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond", guided: bool = False
    ) -> Tensor:
        """Clean estimate like z_t of one branch; `guided` takes the run's own guidance (form "orbit")."""
        if not isinstance(conditions, Asked):
            raise InputError(f"{self.name}: needs conditions: condition(reference=..., cameras=...)")
        self.calls += len(z_t)
        if branch == "uncond":
            conditions = replace(conditions, full=conditions.full.unconditional(conditions.negative))
        return self.pipeline.clean_estimate(z_t, t, conditions, guided=guided).to(z_t)

    @property
    def network_of_estimates(self) -> torch.nn.Module:
        """What `LoraCopy` adapts."""
        return self.pipeline.unet  # type: ignore[no-any-return]

    def predicted(self, z_t: Tensor, t: Tensor, conditions: Any, branch: Branch) -> Tensor:
        """The network's output like z_t for the conditioned branch, of kind `predicts`, with a graph."""
        if branch != "cond" or not isinstance(conditions, Asked):
            raise InputError(f"{self.name}: needs conditions, and gives the conditioned branch alone a graph")
        self.calls += len(z_t)
        clean = estimated(self.pipeline, z_t, t, conditions, False, GuidanceWeights(), None).to(z_t)
        if self.predicts == "sample":
            return clean
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        return ((z_t - alpha * clean) if self.predicts == "epsilon" else (alpha * z_t - clean)) / sigma

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """Noise estimate like z_t of one branch."""
        clean = self.clean_estimate(z_t, t, conditions, branch)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        return (z_t - alpha * clean) / sigma

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> RunScore:
        """Move the pipeline."""
        self.pipeline.to(torch.device(device))
        return self


def check_orbit(name: str, cameras: list[Camera], trained: list[Camera]) -> None:
    """InputError unless `cameras` go round as `trained` do, from any start and at any one elevation."""
    if len(cameras) != len(trained):
        raise InputError(f"{name}: makes clips of {len(trained)} frames, got {len(cameras)} cameras")
    here, there = (np.array([_seat(camera) for camera in path]) for path in (cameras, trained))
    steps = [np.diff(np.unwrap(seats[:, 1])) for seats in (here, there)]
    turned = np.degrees(np.abs(steps[0] - steps[1])).max() if len(cameras) > 1 else 0.0
    tilted = np.degrees(np.ptp(here[:, 0]))
    apart = np.abs(here[:, 2] / there[:, 2] - 1).max()
    if turned > _DEGREES or tilted > _DEGREES or apart > _SHARE:
        raise InputError(
            f"{name}: its cameras go round at one height and distance; the asked ones do not "
            f"(steps off by {turned:.1f} deg, height by {tilted:.1f} deg, distance by {100 * apart:.0f} %)"
        )


def _seat(camera: Camera) -> tuple[float, float, float]:
    """Elevation and azimuth in radians and distance of a camera around the origin."""
    x, y, z = np.asarray(camera.c2w)[:3, 3]
    radius = float(np.sqrt(x * x + y * y + z * z))
    return float(np.arcsin(z / radius)), float(np.arctan2(y, x)), radius
