"""Scenes of `bench/sync.py`: two or three coloured balls on straight paths, shaded, with true occlusion.

Seen by six static cameras, the rig `sync:6` at one distance with elevations of 0 to 30 degrees. They are
drawn with numpy, two by two samples a pixel, so that any other camera can be asked of a scene afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orbit4d.datasets.cameras.camera import Camera, orbit_c2w
from orbit4d.datasets.cameras.rigs import label_of
from orbit4d.datasets.images.codec import encode_webp
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import split_of
from orbit4d.datasets.store.writer import DatasetWriter

FRAMES, CAMERAS, RADIUS, BALL = 4, 6, 2.0, 0.24


@dataclass(frozen=True)
class BallScene:
    """One scene, a function of its number."""

    number: int
    uid: str
    start: np.ndarray
    """Centres [n, 3] of the first frame."""
    end: np.ndarray
    colours: np.ndarray
    angles: np.ndarray
    """Azimuth and elevation [CAMERAS, 2] of the cameras, degrees."""

    @classmethod
    def of(cls, number: int) -> BallScene:
        rng = np.random.default_rng([7, number])
        count = int(rng.integers(2, 4))
        start, end = rng.uniform(-0.5, 0.5, (2, count, 3))
        colours = rng.uniform(0.1, 0.9, (count, 3))
        angles = rng.uniform((0, 0), (360, 30), (CAMERAS, 2))
        return cls(number, f"balls-{number:05d}", start, end, colours, angles)

    def camera(self, azimuth: float, elevation: float, size: int) -> Camera:
        """24 mm on the square sensor, 4 m away."""
        focal = 24 / 23.76 * size
        return Camera(orbit_c2w(azimuth, elevation, RADIUS), focal, focal, size / 2, size / 2, size, size)

    def video(self, camera: Camera) -> np.ndarray:
        """[FRAMES, size, size, 4] uint8."""
        times = np.linspace(0, 1, FRAMES)[:, None, None]
        return np.stack(
            [draw(camera, centres, self.colours) for centres in self.start + times * (self.end - self.start)]
        )

    def clips(self, size: int) -> list[Clip]:
        """A clip of each camera."""
        times = tuple(np.linspace(0, 1, FRAMES).tolist())
        found = []
        for k, (azimuth, elevation) in enumerate(self.angles.tolist()):
            camera = self.camera(azimuth, elevation, size)
            found.append(
                Clip(
                    uid=self.uid, action="move", action_index=0, rig=f"sync_{CAMERAS}", orbit=k,
                    frames=tuple(encode_webp(image) for image in self.video(camera)),
                    cameras=(camera,) * FRAMES, time=times, seconds=times, window=(0.0, 1.0), scale=1.0,
                    centre=(0.0, 0.0, 0.0), azimuth0_deg=azimuth, elevation_deg=elevation, radius=RADIUS,
                    measures={}, license="CC0-1.0", author="", caption="", renderer={"engine": "numpy"},
                    asset_sha256=hashlib.sha256(self.uid.encode()).hexdigest(), camera_label=label_of(k),
                )
            )  # fmt: skip
        return found


def draw_dataset(out: Path, counts: dict[str, int], size: int) -> Path:
    """Scenes until each split has its count; the split is a hash of the uid."""
    writer, left, number = DatasetWriter(str(out), {"frames": FRAMES}), dict(counts), 0
    while any(left.values()):
        scene = BallScene.of(number)
        number += 1
        if left.get(split_of(scene.uid), 0) > 0:
            left[split_of(scene.uid)] -= 1
            writer.stage(scene.uid, scene.clips(size))
    writer.roll(final=True)
    return out


def draw(camera: Camera, centres: np.ndarray, colours: np.ndarray, radius: float = BALL) -> np.ndarray:
    """RGBA uint8 of shaded balls, 2 x 2 samples a pixel."""
    size = camera.w
    edge = 2 * size
    column, row = np.meshgrid((np.arange(edge) + 0.5) / 2, (np.arange(edge) + 0.5) / 2)
    local = np.stack(
        [(column - camera.cx) / camera.fl_x, -(row - camera.cy) / camera.fl_y, -np.ones_like(row)], -1
    )
    rays = local @ camera.c2w[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    origin, light = camera.c2w[:3, 3], np.array([0.4, -0.5, 0.77])
    depth, rgb = np.full(row.shape, np.inf), np.ones((*row.shape, 3))
    for centre, colour in zip(centres, colours):
        b = (rays * (origin - centre)).sum(-1)
        inside = b**2 - ((origin - centre) ** 2).sum() + radius**2
        t = -b - np.sqrt(np.maximum(inside, 0))
        hit = (inside > 0) & (t > 0) & (t < depth)
        normal = (origin + t[..., None] * rays - centre) / radius
        shade = 0.35 + 0.65 * np.clip(normal @ light, 0, 1)
        rgb = np.where(hit[..., None], colour * shade[..., None], rgb)
        depth = np.where(hit, t, depth)
    alpha = np.isfinite(depth).astype(float)
    pooled = np.concatenate([rgb, alpha[..., None]], -1).reshape(size, 2, size, 2, 4)
    weight = pooled[..., 3:].sum((1, 3))
    colour = (pooled[..., :3] * pooled[..., 3:]).sum((1, 3)) / np.maximum(weight, 1)
    return (np.concatenate([colour, weight / 4], -1) * 255).round().astype(np.uint8)
