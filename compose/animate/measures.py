"""What a result is compared with where the truth is known: views never trained on, motion, colours.

The protocol of the scene `mannequin`: held-out views at 96 pixels on white, motion by bone, drift of colours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from orbit4d.compose.animate.priors.truth import Mannequin, Truth
from orbit4d.compose.animate.sampling import View
from orbit4d.datasets.images.measures import decibels
from orbit4d.recon4d.scene import Scene

SIZE, FOV, RADIUS = 96, 39.5978, 2.0
#: Held-out views.
VIEWS = tuple(View(e, 22.5 + 45.0 * i, RADIUS) for e in (-5.0, 20.0) for i in range(8))
TIMES = (*(i / 8 for i in range(9)), 31 / 32)
MIDDLE = (0.25, 0.375, 0.5, 0.625, 0.75)
#: A Gaussian farther from every one of the truth belongs to no bone.
NEAR = 0.03
SOLID = 0.9


def psnr_at(scene: Scene, truth: Truth, time: float, views: tuple[View, ...]) -> float:
    """Mean PSNR in dB over views, on white."""
    return float(np.mean([_psnr(scene, truth, view, time) for view in views]))


def _psnr(scene: Scene, truth: Truth, view: View, time: float) -> float:
    camera = view.camera(SIZE, FOV)
    ours, theirs = (_on_white(source.render(camera, time)) for source in (scene, truth))
    return decibels(float(np.mean((ours - theirs) ** 2)))


def _on_white(rgba: Any) -> Any:
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def static_scores(scene: Scene, truth: Truth, reference: View) -> dict[str, float]:
    """PSNR of the still object at time 0: held-out views, and the view of the reference."""
    return {
        "held_out": round(psnr_at(scene, truth, 0.0, VIEWS), 3),
        "reference": round(psnr_at(scene, truth, 0.0, (reference,)), 3),
    }


def motion_scores(scene: Scene, truth: Truth) -> dict[str, Any]:
    """PSNR by time, motion error (where the truth has bones), drift of colours."""
    by_time = {t: psnr_at(scene, truth, t, VIEWS[::2]) for t in TIMES}
    scores: dict[str, Any] = {
        "psnr": round(float(np.mean(list(by_time.values()))), 3),
        "psnr_middle": round(float(np.mean([by_time[t] for t in MIDDLE])), 3),
        "psnr_by_time": {f"{t:g}": round(value, 3) for t, value in by_time.items()},
    }
    if isinstance(truth, Mannequin):
        scores["motion_error"] = motion_error(scene, truth)
    colours = drift(scene, truth)
    scores["drift"] = [round(c, 4) for c in colours]
    scores["drift_abs"] = round(float(np.mean(np.abs(colours))), 4)
    return scores


def motion_error(scene: Scene, truth: Mannequin) -> dict[str, Any]:
    """Error of the bones' mean displacements from time 0, over the true ones' size: 0 is perfect, 1 unmoved.

    Solid Gaussians take the bone of the nearest one of the truth at rest.
    """
    from scipy.spatial import cKDTree

    rest = truth.gaussians.means.numpy().astype(np.float64)
    start = scene.at(0.0)
    own = scene.gaussians.means.detach().numpy().astype(np.float64)
    distance, nearest = cKDTree(rest).query(own)
    taken = (distance < NEAR) & (start.opacities.numpy() > 0.5)
    bones = truth.bone[nearest]
    found: list[tuple[float, float]] = []
    first, true_first = start.means.numpy().astype(np.float64), truth.means_at(0.0)
    errors: dict[str, float] = {}
    for k in range(1, 9):
        time = k / 8
        moved = scene.at(time).means.numpy().astype(np.float64) - first
        wanted = (truth.means_at(time) - true_first)[nearest]
        off, size = 0.0, 0.0
        for bone in range(len(truth.pivots)):
            here = taken & (bones == bone)
            # A bone that no Gaussian stands for did not move.
            ours = moved[here].mean(0) if here.any() else np.zeros(3)
            theirs = wanted[here].mean(0) if here.any() else _bone_moved(truth, bone, time)
            off += float(((ours - theirs) ** 2).sum())
            size += float((theirs**2).sum())
        found.append((off, size))
        errors[f"{time:g}"] = round(math.sqrt(off / max(size, 1e-12)), 4)
    pooled = math.sqrt(sum(o for o, _ in found) / max(sum(s for _, s in found), 1e-12))
    middle = [pair for k, pair in enumerate(found, 1) if 2 <= k <= 6]
    return {
        "e": round(pooled, 4),
        "e_last": errors["1"],
        "e_middle": round(math.sqrt(sum(o for o, _ in middle) / max(sum(s for _, s in middle), 1e-12)), 4),
        "by_time": errors,
    }


def _bone_moved(truth: Mannequin, bone: int, time: float) -> Any:
    here = truth.bone == bone
    return (truth.means_at(time) - truth.means_at(0.0))[here].mean(0)


def drift(scene: Scene, truth: Truth) -> list[float]:
    """Mean signed difference of red, green and blue where both are solid, four views at three times."""
    total, count = np.zeros(3), 0
    for azimuth in (0.0, 90.0, 180.0, 270.0):
        camera = View(0.0, azimuth, RADIUS).camera(SIZE, FOV)
        for time in (0.0, 0.5, 1.0):
            ours, theirs = scene.render(camera, time), truth.render(camera, time)
            both = (ours[..., 3] > SOLID) & (theirs[..., 3] > SOLID)
            off = ours[..., :3] * ours[..., 3:] - theirs[..., :3] * theirs[..., 3:]
            total += off[both].sum(0)
            count += int(both.sum())
    return [float(c) for c in total / max(count, 1)]


def reference_scores(scene: Scene, rgba: torch.Tensor, view: View, fov: float) -> dict[str, float]:
    """PSNR on white and IoU of the mattes against the reference, premultiplied RGBA [H, W, 4]."""
    drawn = scene.render(view.camera(len(rgba), fov), 0.0)
    wanted = rgba.cpu().numpy()
    on_white = wanted[..., :3] + 1 - wanted[..., 3:]
    mse = float(np.mean((_on_white(drawn) - on_white) ** 2))
    ours, theirs = drawn[..., 3] > 0.5, wanted[..., 3] > 0.5
    union = int((ours | theirs).sum())
    return {
        "psnr": round(decibels(mse), 3),
        "alpha_iou": round(float((ours & theirs).sum() / union), 4) if union else 1.0,
    }
