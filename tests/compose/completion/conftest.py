"""A small scene with true depth, and a dataset of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets import DatasetWriter, encode_webp, orbit


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and sums come out in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ball(camera: Any, radii=(0.5, 0.35, 0.42)) -> tuple[np.ndarray, np.ndarray]:
    """Straight RGBA uint8 [H, W, 4] and depth [H, W] of a striped ellipsoid at the origin."""
    column, row = np.meshgrid(np.arange(camera.w) + 0.5, np.arange(camera.h) + 0.5)
    local = np.stack(
        [(column - camera.cx) / camera.fl_x, -(row - camera.cy) / camera.fl_y, -np.ones_like(row)], -1
    )
    rays = local @ camera.c2w[:3, :3].T / np.array(radii)
    origin = camera.position / np.array(radii)
    a, b, k = (rays**2).sum(-1), rays @ origin, origin @ origin - 1
    root = b**2 - a * k
    hit = root > 0
    depth = np.where(hit, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    point = origin + np.where(hit, depth, 0)[..., None] * rays
    waves = 0.5 + 0.5 * np.sin(5 * point + np.array([0.0, 1.0, 2.0]))
    rgba = np.concatenate([waves * hit[..., None], hit[..., None]], -1)
    return (rgba * 255).round().astype(np.uint8), depth.astype(np.float32)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return ball


@pytest.fixture(scope="session")
def depth_dataset(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Any]) -> Path:
    """A dataset of one asset `ball`, 4 frames of 64 x 64, whose clips have depth passes."""
    folder = tmp_path_factory.mktemp("depth") / "dataset"
    around = orbit(4, size=(64, 64))
    clips = []
    for clip in make_clips("ball", n_frames=4, size=64):
        cameras = tuple(around[0] if clip.rig == "front_view" else camera for camera in around)
        made = [ball(camera) for camera in cameras]
        frames = tuple(encode_webp(rgba) for rgba, _ in made)
        clips.append(
            replace(clip, cameras=cameras, frames=frames, passes={"depth": tuple(_npy(d) for _, d in made)})
        )
    writer = DatasetWriter(folder, {"frames": 4})
    writer.stage("ball", clips)
    writer.roll(final=True)
    return folder


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
