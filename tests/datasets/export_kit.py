"""One small dataset with passes and a marker, and readers of exports that share no code with the writers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from orbit4d.datasets import Camera, Clip, DatasetWriter, encode_webp, orbit

#: Where a bright square stands in the world, and its size in pixels.
MARKER = np.array([0.21, -0.17, 0.12])
HALF = 3
FRAMES, SIZE = 24, 64


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def marker_images(cameras: list[Camera]) -> tuple[np.ndarray, np.ndarray]:
    """RGBA [N, H, W, 4] of a green disc with a red square at the marker's exact pixel (soft edges), and its
    depth map [N, H, W]."""
    images, depths = [], []
    for camera in cameras:
        row, column = np.mgrid[: camera.h, : camera.w] + 0.5
        (x, y), z = camera.project(MARKER)
        cover = np.clip(HALF + 0.5 - abs(column - x), 0, 1) * np.clip(HALF + 0.5 - abs(row - y), 0, 1)
        disc = np.hypot(column - camera.w / 2, row - camera.h / 2) < 0.42 * camera.w
        rgb = np.full((camera.h, camera.w, 3), (0.0, 110.0, 0.0))
        rgb = rgb * (1 - cover[..., None]) + np.array([250, 20, 20]) * cover[..., None]
        alpha = np.where(disc | (cover > 0), 255, 0)
        images.append(np.concatenate([rgb, alpha[..., None]], -1).round().astype(np.uint8))
        depths.append(np.where(disc, np.where(cover > 0.5, z, 2.0), np.inf).astype(np.float32))
    return np.stack(images), np.stack(depths)


def marker_clip(uid: str, rig: str, k: int, cameras: list[Camera], times: Any, caption: str) -> Clip:
    images, depths = marker_images(cameras)
    normals = [np.where(np.isfinite(d)[..., None], np.array([0.0, -1.0, 0.0]), 0.0) for d in depths]
    return Clip(
        uid=uid, action="Run", action_index=0, rig=rig, orbit=k,
        frames=tuple(encode_webp(image) for image in images), cameras=tuple(cameras),
        time=tuple(times), seconds=tuple(2 * t for t in times), window=(0.0, 2.0), scale=1.0,
        centre=(0.0, 0.0, 0.0), azimuth0_deg=0.0, elevation_deg=0.0, radius=2.0,
        passes={"depth": tuple(npy(d) for d in depths),
                "normal": tuple(npy(n.astype(np.float16)) for n in normals)},
        license="CC0-1.0", caption=caption, asset_sha256="0" * 64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset: `fox`, a turning and a fixed camera, captioned; `mute` has no caption."""
    where = tmp_path_factory.mktemp("marked") / "dataset"
    writer = DatasetWriter(where, {})
    turning = orbit(FRAMES, elevation_deg=15.0, azimuth0_deg=20.0, size=(SIZE, SIZE))
    times = np.linspace(0, 1, FRAMES).tolist()
    fixed = [turning[0]] * FRAMES
    text = 'A "red" fox,\nrunning'
    writer.stage("fox", [
        marker_clip("fox", "dynamic_orbit", 0, turning, times, text),
        marker_clip("fox", "front_view", 0, fixed, times, text),
    ])  # fmt: skip
    writer.stage("mute", [marker_clip("mute", "front_view", 0, fixed, times, "")])
    writer.roll(final=True)
    return where


# Readers ----------------------------------------------------------------------------------------------------


def read_mp4(path: Path) -> np.ndarray:
    """RGB [F, H, W, 3] as FFmpeg decodes it."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def found_marker(image: np.ndarray) -> np.ndarray:
    """(column, row) of the red square's middle: the mean of what is redder than green, weighted."""
    red = np.clip(image[..., 0].astype(float) - image[..., 1] - 40, 0, None)
    red[red < 0.3 * red.max()] = 0
    row, column = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(column * red).sum(), (row * red).sum()]) / red.sum()


def with_other_size(clip: Clip, size: tuple[int, int]) -> Clip:
    cameras = [camera.resized(*size) for camera in clip.cameras]
    images, depths = marker_images(cameras)
    return replace(
        clip, cameras=tuple(cameras), frames=tuple(encode_webp(image) for image in images),
        passes={"depth": tuple(npy(d) for d in depths)},
    )  # fmt: skip
