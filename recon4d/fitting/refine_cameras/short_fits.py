"""Photo-consistency of an orbit: what a short fit leaves of the images when their cameras stand on it.

Silhouettes of what moves never agree, and other orbits make up for the motion; colours that would have to lie
on the far side of an object speak against a wrong direction. Where a static orbit with known cameras shows
the object at the time of a frame, that frame's camera is found by its image alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from orbit4d.recon4d.deformation.residual import plain
from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting.losses import View
from orbit4d.recon4d.fitting.settings import PRESETS, ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.gaussians import Gaussians, from_points
from orbit4d.recon4d.inputs.hull import carve, sample_surface
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec
from orbit4d.recon4d.inputs.orbit_search import WINDOW_EXACT, descend
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.scene import draw

#: A fit of a video on one orbit: size, Gaussians, steps as if it stood still, steps with motion.
RESOLUTION, N_GAUSSIANS, COARSE, FINE = 96, 2000, 100, 400
#: A pixel's difference counts at most as much: what no orbit explains is left out of the comparison.
MOST = 0.2
#: A fit of a static orbit, drawn from cameras that are searched.
STILL_RESOLUTION, STILL_GAUSSIANS, STILL_STEPS = 128, 4000, 400
#: Difference of images that a lens pays per degree away from that of the static orbit: one frame hardly tells
#: the lens from the distance.
LENS = 2e-4
#: A direction, and another orbit of one direction, must leave less than this share of the difference that the
#: given one leaves. Eight clips of walking, running, jumping and dancing assets: 0.54 to 0.88 for the true
#: direction; 0.88 for an orbit whose elevation was 10 degrees off.
DIRECTION, ORBIT = 0.93, 0.85
#: Where a frame's camera must be better placed than it was.
PLACED = 0.8


def photo_loss(frames: Frames, spec: OrbitSpec) -> float:
    """Mean difference of the object's pixels after a short fit on this orbit; infinite where the silhouettes
    share no volume. Deterministic.
    """
    small = frames.resized(RESOLUTION)
    h, w = small.rgba.shape[1:3]
    small = replace(small, cameras=spec.cameras(len(small), w, h))
    settings = _short(COARSE, FINE, RESOLUTION)
    fit = _started(small, settings, N_GAUSSIANS, (0.9, 0.8, 0.7, 0.6, 0.5))
    if fit is None:
        return float("inf")
    with threads.alone(1), contextlib.redirect_stderr(io.StringIO()):
        optimize.optimise(fit, small, None, settings)
    with torch.no_grad():
        found = [_differences(fit.field.move(fit.gaussians, v.time), v) for v in optimize.views(small)]
    return float(torch.cat(found).clamp(max=MOST).mean())


def supported(frames: Frames, given: OrbitSpec, found: OrbitSpec) -> OrbitSpec:
    """Of the given orbit, the given one the other way round, and the one that silhouettes found, the one that
    short fits support clearly; the given one where they do not.
    """
    loss = photo_loss(frames, given)
    best = given
    if found.clockwise != given.clockwise:
        turned = replace(given, clockwise=found.clockwise)
        reverse = photo_loss(frames, turned)
        if reverse >= DIRECTION * loss:
            return given
        best, loss = turned, reverse
    return found if photo_loss(frames, found) < ORBIT * loss else best


def placed_by_images(frames: Frames, spec: OrbitSpec, reference: Frames) -> OrbitSpec:
    """The orbit near `spec` whose frames at the reference's time look as its object does, by start azimuth,
    elevation, radius and lens. `spec` itself where no frame was taken at that time, or where none is clearly
    better. Deterministic.
    """
    apart = np.abs(np.array(frames.time) - reference.time[0]) * max(len(frames) - 1, 1)
    seen = np.flatnonzero(apart <= WINDOW_EXACT).tolist()
    if not seen:
        return spec
    small, still = frames.resized(STILL_RESOLUTION), reference.resized(STILL_RESOLUTION)
    h, w = small.rgba.shape[1:3]
    settings = _short(STILL_STEPS, 0, STILL_RESOLUTION)
    fit = _started(still, settings, STILL_GAUSSIANS, (1.0, 0.9, 0.8))
    if fit is None:
        return spec
    with threads.alone(1), contextlib.redirect_stderr(io.StringIO()):
        optimize.optimise(fit, still, still, settings)
    likely = reference.cameras[0].fov_x_deg
    miss = _image_miss(fit.gaussians, small, seen, likely, (w, h))
    with torch.no_grad(), threads.alone(1):
        free = ["azimuth0_deg", "elevation_deg", "radius", "dolly"]
        before = miss(spec)
        after, placed = descend(miss, before, spec, free)
    return placed if after < PLACED * before else spec


def _image_miss(
    gaussians: Gaussians, small: Frames, seen: list[int], likely: float, size: tuple[int, int]
) -> Callable[[OrbitSpec], float]:
    """Difference of the frames `seen` from the Gaussians as their cameras on a spec show them."""

    def miss(spec: OrbitSpec) -> float:
        cameras = spec.cameras(len(small), *size)
        views = optimize.views(replace(small, cameras=cameras).picked(seen))
        found = [_plane(gaussians, view).mean() for view in views]
        return float(torch.stack(found).mean()) + LENS * abs(spec.fov_x_deg - likely)

    return miss


def _plane(gaussians: Gaussians, view: View) -> Tensor:
    """[H, W] difference of colour and, by half, of alpha."""
    color, alpha, _ = draw(gaussians, view.camera)
    apart = (color - view.truth[..., :3]).abs().mean(-1)
    return apart + 0.5 * (alpha.reshape(apart.shape) - view.truth[..., 3]).abs()


def _differences(gaussians: Gaussians, view: View) -> Tensor:
    """[P] differences of the pixels that the image or the Gaussians cover."""
    color, alpha, _ = draw(gaussians, view.camera)
    alpha = alpha.reshape(color.shape[:2])
    truth = view.truth[..., 3]
    apart = (color - view.truth[..., :3]).abs().mean(-1) + 0.5 * (alpha - truth).abs()
    return apart[(truth > 0.1) | (alpha > 0.1)]


def _started(
    frames: Frames, settings: ReconstructionSettings, count: int, agree: tuple[float, ...]
) -> Fit | None:
    """A fit that starts at the hull on which the most of the views agree that covers them; None without."""
    hull = carve(frames, RESOLUTION // 2, agree=agree[0])
    for share in agree[1:]:
        if hull.coverage >= 0.8:
            break
        hull = carve(frames, RESOLUTION // 2, agree=share)
    if len(hull.points) < 4:
        return None
    points, colors = sample_surface(hull, count, np.random.default_rng(0))
    return new_fit(from_points(points, colors, sh_degree=settings.sh_degree), settings, 0)


def _short(coarse: int, fine: int, resolution: int) -> ReconstructionSettings:
    fast = PRESETS["fast"]
    return replace(
        fast, coarse_steps=coarse, fine_steps=fine, resolution=resolution, patience=0, exposure=False,
        warmup_share=0.0, deform_from=2.0,
        deformation={**plain(fast.deformation), "kind": "nodes", "n_nodes": 60, "width": 48},
    )  # fmt: skip
