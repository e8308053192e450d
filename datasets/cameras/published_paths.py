"""Camera paths of NVS-Solver: an ellipse, a line, the way between two views. World-to-camera, OpenCV axes.

Their world has +Y down in the image and up = (0, 1, 0); what stands at the origin is looked at. Poses are
[F, 4, 4] float64. You et al., ICLR 2025, released code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation, Slerp

Array = npt.NDArray[np.float64]

_UP = np.array([0.0, 1.0, 0.0])


def look_at(position: npt.ArrayLike, target: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Array:
    """World-to-camera [4, 4] of a camera at `position` that looks at `target`.

    ValueError for a position on the vertical through the target, which leaves the roll open.
    """
    eye, at = np.asarray(position, dtype=np.float64), np.asarray(target, dtype=np.float64)
    z = (at - eye) / max(float(np.linalg.norm(at - eye)), 1e-300)
    x = np.cross(_UP, z)
    if not np.linalg.norm(x) > 1e-9:
        raise ValueError(f"a camera at {eye.tolist()} looks along the vertical: its roll is open")
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
    return pose


def ellipse_path(a: float, b: float, step_deg: float, frames: int = 25, *, inverse: bool = False) -> Array:
    """Cameras at (a sin t, 0, b cos t), t = i `step_deg`, that look at the origin; `inverse` goes the other
    way.

    The first one stands at distance b.
    """
    angles = np.radians((360.0 if inverse else 0.0) + (-1 if inverse else 1) * step_deg * np.arange(frames))
    return np.stack([look_at((a * np.sin(t), 0.0, b * np.cos(t))) for t in angles])


def line_path(radius: float, end: npt.ArrayLike, frames: int = 25) -> Array:
    """Cameras in equal steps from (`radius`, 0, 0) to `end` [3] that look at the origin."""
    start = np.array([radius, 0.0, 0.0])
    places = np.linspace(start, np.asarray(end, dtype=np.float64), frames)
    return np.stack([look_at(place) for place in places])


def between(pose1: npt.ArrayLike, pose2: npt.ArrayLike, frames: int = 25, *, centres: bool = False) -> Array:
    """Poses from one world-to-camera [4, 4] to another, both included: the rotation on its shortest arc.

    The translation vectors are linear, as released; with `centres` the camera's centres are.
    """
    first, last = (np.asarray(p, dtype=np.float64) for p in (pose1, pose2))
    share = np.linspace(0.0, 1.0, frames)
    turns = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([first[:3, :3], last[:3, :3]])))(
        share
    ).as_matrix()
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = turns
    if centres:
        begin, end = (-p[:3, :3].T @ p[:3, 3] for p in (first, last))
        poses[:, :3, 3] = -np.einsum("fij,fj->fi", turns, np.linspace(begin, end, frames))
    else:
        poses[:, :3, 3] = np.linspace(first[:3, 3], last[:3, 3], frames)
    return poses


def distance_share(frames: int) -> Array:
    """Distance of the views of a path from its first one, as released: frame index over the last, [F]."""
    return np.arange(frames) / max(frames - 1, 1)


def translation_distances(poses: Array, inputs: Array) -> Array:
    """Distance of poses [F, 4, 4] from the nearest of `inputs` [V, 4, 4], over the largest, as released: [F].

    Of the translation vectors of the world-to-camera matrices, so that a camera that turns on the spot moves.
    """
    apart = np.linalg.norm(poses[:, None, :3, 3] - inputs[None, :, :3, 3], axis=-1).min(1)
    return np.asarray(apart / max(float(apart.max()), 1e-300))


def view_distances(poses: Array, inputs: Array, radius: float) -> Array:
    """Distance of views [F, 4, 4] from the nearest of `inputs` [V, 4, 4], over the largest: [F] in [0, 1].

    Distance of the centres plus `radius` times the angle between the axes: both show another side.
    """
    centres, axes = _centres(poses), poses[:, 2, :3]
    others, their = _centres(inputs), inputs[:, 2, :3]
    angle = np.arccos(np.clip(axes @ their.T, -1.0, 1.0))
    apart = (np.linalg.norm(centres[:, None] - others[None], axis=-1) + radius * angle).min(1)
    return np.asarray(apart / max(float(apart.max()), 1e-300))


def _centres(poses: Array) -> Array:
    return -np.einsum("fji,fj->fi", poses[:, :3, :3], poses[:, :3, 3])
