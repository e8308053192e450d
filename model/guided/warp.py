"""Forward warp: what other cameras see of images whose depth is known.

A surface of triangles carries what is connected, points fill thin parts and silhouettes; a depth buffer
decides which is nearer. Depth is along the camera's axis. Unknown is not empty: where the depth is not finite
nothing is warped, and pixels that nothing reaches are not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orbit4d.model.guided.repo_warp import RULES, repo_warp
from orbit4d.model.guided.warp_kernels import SAME, SOFT, Points, Seen, Surface, joined, points, surface

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Rule = Literal["ours", "repo-single", "repo-video", "repo-two"]

#: Points nearer than this to the camera's plane are dropped.
BEHIND = 1e-6


@dataclass(frozen=True)
class Source:
    """An image with its depth and camera."""

    image: Floats
    """[h, w, C], straight colours. Where it is float64, so is all that is computed from it."""
    depth: Floats
    """[h, w], along the axis; not finite where nothing is known."""
    K: Array
    """[3, 3], pixel centres at halves."""
    w2c: Array
    """World to camera [4, 4], OpenCV axes."""


@dataclass(frozen=True)
class Warped:
    """What a target camera sees of its sources."""

    image: Floats
    """[H, W, C], 0 where unseen."""
    seen: Mask
    """[H, W]"""
    depth: Floats
    """[H, W], along the target's axis, inf where unseen."""
    confidence: Floats
    """[H, W] in [0, 1]: source area over target area where a surface is stretched, a quarter where points
    alone fill; 0 where unseen.
    """


def forward_warp(
    image: npt.NDArray[Any],
    depth: npt.NDArray[Any],
    K: npt.ArrayLike,
    pose1: npt.ArrayLike,
    pose2: npt.ArrayLike,
    rule: Rule = "ours",
) -> tuple[npt.NDArray[Any], Mask]:
    """Warp an image from one camera to another with the same intrinsics.

    Args:
        image: [H, W, 3]; uint8 gives uint8 (rounded), a float type gives that type.
        depth: [H, W], along the camera's axis, in world units; not finite: nothing there.
        K: [3, 3]. With "ours" pixel centres lie at halves, with the released rules at whole numbers.
        pose1, pose2: world-to-camera [4, 4] of the image and of the target, OpenCV axes.
        rule: "ours", or a released rule of NVS-Solver for parity.

    Returns:
        The warped image [H, W, 3] and where it is seen, bool [H, W].

    Raises:
        ValueError: for shapes that disagree, depth that is NaN, negative or nowhere finite, an unknown rule.
    """
    if rule != "ours" and rule not in RULES:
        raise ValueError(f"rule: ours, {', '.join(RULES)}; not {rule!r}")
    k, first, second = (
        _matrix(m, n, s) for m, n, s in ((K, "K", 3), (pose1, "pose1", 4), (pose2, "pose2", 4))
    )
    if image.ndim != 3 or depth.shape != image.shape[:2]:
        raise ValueError(f"depth: is {depth.shape}, the image is {image.shape[:2]}: they must be of one size")
    check_depth(depth)
    if rule != "ours":
        return repo_warp(image, np.asarray(depth, dtype=np.float64), k, first, second, rule)
    source = Source(image.astype(np.float64), depth.astype(np.float64), k, first)
    warped = warp_to(source, k, second, (image.shape[1], image.shape[0]))
    if image.dtype == np.uint8:
        return np.rint(np.clip(warped.image, 0, 255)).astype(np.uint8), warped.seen
    return warped.image.astype(image.dtype), warped.seen


def check_depth(depth: npt.NDArray[Any], name: str = "depth") -> None:
    """ValueError where a depth map has NaN or negative values, or nothing finite."""
    bad = int(np.isnan(depth).sum())
    if bad:
        raise ValueError(f"{name}: {bad} values are NaN (inf means that nothing is there)")
    bad = int((depth < 0).sum())
    if bad:
        raise ValueError(f"{name}: {bad} values are negative: depth is the distance along the camera's axis")
    if not np.isfinite(depth).any():
        raise ValueError(f"{name}: no value is finite, so there is nothing to warp")


def warp_to(
    source: Source, K: Array, w2c: Array, size: tuple[int, int], *, soft: bool = False, device: str = "cpu"
) -> Warped:
    """One source seen by a target camera of any intrinsics [3, 3], pose [4, 4] and size (width, height).

    `device` "cpu" is numba; another one, such as "cuda" or "torch:cpu", is torch there.
    """
    u, v, z, valid = _projected(source, K, w2c)
    if device != "cpu":
        import torch

        from orbit4d.model.guided.warp_torch import warp_planes

        where = torch.device(device.removeprefix("torch:"))
        return Warped(*warp_planes(u, v, z, valid, source.depth, source.image, size, soft, where))
    w, h = size
    channels, real = source.image.shape[2], u.dtype
    given = Seen(u, v, z, valid, source.depth, np.ascontiguousarray(source.image))
    drawn = Surface(np.zeros((h, w), real), np.zeros((h, w, channels), real), np.zeros((h, w), real))
    facing = np.zeros(source.depth.shape, np.uint8)
    surface(given, np.float32(1) / z, drawn, facing)
    weights, colours = np.zeros((h, w), real), np.zeros((h, w, channels), real)
    splatted = Points(np.full((h, w), np.inf, real), weights, colours)
    points(given, facing, soft, splatted)
    covered = np.zeros((h, w), np.bool_)
    joined(drawn, splatted, covered)
    return Warped(drawn.out, covered, splatted.far, drawn.stretch)


def warp_sources(
    sources: Sequence[Source], K: Array, w2c: Array, size: tuple[int, int], *, soft: bool = False,
    device: str = "cpu",
) -> Warped:  # fmt: skip
    """Several sources seen by one target: per pixel the nearest surface, averaged over who sees it.

    Sources within 1 % of the nearest depth count ("hard"), or all with a factor that falls off over 0.5 %
    ("soft"); weighted by confidence over the distance from the target camera to that source's.
    """
    each = [warp_to(source, K, w2c, size, soft=soft, device=device) for source in sources]
    if len(each) == 1:
        return each[0]
    centre = _centre(w2c)
    apart = np.array([max(float(np.linalg.norm(_centre(s.w2c) - centre)), 1e-9) for s in sources])
    depth = np.stack([e.depth for e in each])
    nearest = depth.min(0)
    seen = np.isfinite(nearest)
    with np.errstate(invalid="ignore"):
        gap = np.where(np.isfinite(depth), depth / np.where(seen, nearest, 1) - 1, np.inf)
    factor = np.exp(-gap / SOFT) if soft else (gap <= SAME).astype(np.float64)
    share = factor * np.stack([np.maximum(e.confidence, 1e-3) for e in each]) / apart[:, None, None]
    share = share / np.maximum(share.sum(0), 1e-30)
    image = (share[..., None] * np.stack([e.image for e in each])).sum(0)
    confidence = (share * np.stack([e.confidence for e in each])).sum(0)
    image[~seen] = 0
    return Warped(image.astype(np.float32), seen, nearest, (confidence * seen).astype(np.float32))


def warp_frames(
    sources: Sequence[Sequence[Source]],
    K: Sequence[Array],
    w2c: Sequence[Array],
    size: tuple[int, int],
    *,
    soft: bool = False,
    threads: int | None = None,
    device: str = "cpu",
) -> list[Warped]:
    """A path of target cameras, each with its sources; frames are warped side by side, each in one thread.

    On another `device` than "cpu" they are warped by torch, one after the other.
    """

    def one(i: int) -> Warped:
        return warp_sources(sources[i], K[i], w2c[i], size, soft=soft, device=device)

    if device != "cpu":
        return [one(i) for i in range(len(w2c))]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(w2c))))


def _projected(source: Source, K: Array, w2c: Array) -> tuple[Floats, Floats, Floats, Mask]:
    """Where each source pixel falls in the target: u, v in pixels, z, and whether it does at all; [h, w]."""
    h, w = source.depth.shape
    motion = w2c @ np.linalg.inv(source.w2c)
    to_ray = motion[:3, :3] @ np.linalg.inv(source.K)
    x, y = np.arange(w) + 0.5, np.arange(h) + 0.5
    depth = np.where(np.isfinite(source.depth), source.depth, 0).astype(np.float64)
    at = [
        (to_ray[k, 0] * x[None, :] + (to_ray[k, 1] * y + to_ray[k, 2])[:, None]) * depth + motion[k, 3]
        for k in range(3)
    ]
    z = K[2, 0] * at[0] + K[2, 1] * at[1] + K[2, 2] * at[2]
    valid = np.isfinite(source.depth) & (source.depth > 0) & (z > BEHIND)
    safe = np.where(valid, z, 1)
    u = (K[0, 0] * at[0] + K[0, 1] * at[1] + K[0, 2] * at[2]) / safe
    v = (K[1, 0] * at[0] + K[1, 1] * at[1] + K[1, 2] * at[2]) / safe
    real = np.float64 if source.image.dtype == np.float64 else np.float32
    return u.astype(real), v.astype(real), safe.astype(real), valid


def _centre(w2c: Array) -> Array:
    return np.asarray(-w2c[:3, :3].T @ w2c[:3, 3])


def _matrix(value: npt.ArrayLike, name: str, side: int) -> Array:
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: needs a finite [{side}, {side}] matrix, got {matrix.shape}")
    return matrix
