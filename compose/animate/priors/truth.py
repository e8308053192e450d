"""Scenes that are known: a folder of `recon4d` or `animate`, or a mannequin of capsules with bones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.keyframes import KeyframeField
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.scene import Scene, load_scene

Float = npt.NDArray[np.float64]
#: What a mannequin file holds.
ARRAYS = (
    "means", "log_scales", "colors", "bone", "logits", "pivots", "axis", "parent", "amplitude_deg",
    "frequency", "linear_deg",
)  # fmt: skip


class Truth(Protocol):
    """What priors and measures ask of a known scene."""

    def gaussians_at(self, time: float) -> Gaussians:
        """As they stand at a time in [0, 1]."""

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        """Straight RGBA, float32 [H, W, 4]."""

    def render_all(self, views: Sequence[tuple[Camera, float]]) -> list[npt.NDArray[np.float32]]:
        """Several at once."""


class SceneTruth:
    """A scene folder as truth."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def gaussians_at(self, time: float) -> Gaussians:
        return self.scene.at(time)

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        return self.scene.render(camera, time)

    def render_all(self, views: Sequence[tuple[Camera, float]]) -> list[npt.NDArray[np.float32]]:
        # The field keeps what it made last, so one thread draws; kernels divide themselves up.
        return [self.render(camera, time) for camera, time in views]


class Mannequin:
    """Gaussians on bones. A bone turns about its axis through its pivot, both at rest, parents first, by
    amplitude sin(pi frequency t) + linear t degrees.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.bone = np.asarray(arrays["bone"], np.int64)
        self.pivots, self.axis = (np.asarray(arrays[k], np.float64) for k in ("pivots", "axis"))
        self.parent = [int(p) for p in arrays["parent"]]
        self.amplitude, self.frequency, self.linear = (
            np.asarray(arrays[k], np.float64) for k in ("amplitude_deg", "frequency", "linear_deg")
        )
        means = torch.from_numpy(np.asarray(arrays["means"], np.float32))
        n = len(means)
        self.gaussians = Gaussians(
            means=means,
            log_scales=torch.from_numpy(np.asarray(arrays["log_scales"], np.float32)),
            quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
            logits=torch.full((n,), float(arrays["logits"])),
            colors=torch.from_numpy(np.asarray(arrays["colors"], np.float32)),
        )
        self._posed: dict[float, Scene] = {}

    def transforms(self, time: float) -> Float:
        """Rest pose to time, [B, 4, 4]."""
        out = np.zeros((len(self.pivots), 4, 4))
        for b, parent in enumerate(self.parent):
            degrees = self.amplitude[b] * np.sin(np.pi * self.frequency[b] * time) + self.linear[b] * time
            own = np.eye(4)
            own[:3, :3] = turn(self.axis[b], np.radians(degrees))
            own[:3, 3] = self.pivots[b] - own[:3, :3] @ self.pivots[b]
            out[b] = own if parent < 0 else out[parent] @ own
        return out

    def means_at(self, time: float) -> Float:
        """Centres [N, 3]."""
        chosen = self.transforms(time)[self.bone]
        rest = self.gaussians.means.numpy().astype(np.float64)
        return np.einsum("nij,nj->ni", chosen[:, :3, :3], rest) + chosen[:, :3, 3]

    def gaussians_at(self, time: float) -> Gaussians:
        """The Gaussians at a time: centres turn with their bones, shapes are round."""
        g = self.gaussians
        means = torch.from_numpy(self.means_at(time).astype(np.float32))
        return Gaussians(means, g.log_scales, g.quats, g.logits, g.colors)

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        return self._scene(time).render(camera, 0.0)

    def render_all(self, views: Sequence[tuple[Camera, float]]) -> list[npt.NDArray[np.float32]]:
        jobs = [(self._scene(time), camera) for camera, time in views]
        total = max(1, min(threads.count(), len(jobs)))
        parts = [jobs[i * len(jobs) // total : (i + 1) * len(jobs) // total] for i in range(total)]

        def drawn(part: list[tuple[Scene, Camera]]) -> list[npt.NDArray[np.float32]]:
            return [scene.render(camera, 0.0) for scene, camera in part]

        together = threads.each([lambda part=part: drawn(part) for part in parts])  # type: ignore[misc]
        return [image for part in together for image in part]

    def _scene(self, time: float) -> Scene:
        if time not in self._posed:
            if len(self._posed) > 1024:
                self._posed.clear()
            self._posed[time] = Scene(self.gaussians_at(time), KeyframeField(2, "gaussians", ("means",)))
        return self._posed[time]


def still_field() -> KeyframeField:
    """A field that moves nothing, to the bit (over Gaussians it would still make quaternions unit)."""
    return KeyframeField(2, n_nodes=8)


def turn(axis: Float, angle: float) -> Float:
    """Rotation [3, 3] by `angle` radians about an axis of length 1 (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def open_truth(path: str) -> Truth:
    """A mannequin file (.npz) or a scene folder. InputError for what is neither."""
    place = Path(path).expanduser()
    if place.is_dir():
        return SceneTruth(load_scene(place))
    if not place.is_file():
        raise InputError(f"analytic:{path}: no such file or folder; give a mannequin (.npz) or a scene")
    try:
        with np.load(place) as file:
            arrays = {name: file[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"analytic:{path}: neither a mannequin nor a scene folder ({error})") from None
    return Mannequin(arrays)
