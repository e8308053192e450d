"""What a path's cameras see of the inputs: warped frames, masks at pixels and latents, distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.compose.completion.inputs import Given
from orbit4d.compose.completion.routes import Route
from orbit4d.compose.completion.sources import as_source, composed, recaptured, released, w2c
from orbit4d.compose.completion.view import View
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.published_paths import distance_share, translation_distances
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.latent_mask import fill_holes, latent_frames, mask_for
from orbit4d.model.guided.warp import Rule, Source, Warped, warp_frames

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]

#: How near to a surface, as a share of its depth, a camera counts as inside it.
INSIDE = 0.02
#: Points of the way between two cameras that are inspected for a surface in between.
_STEPS = 16


@dataclass(frozen=True)
class Sight:
    """F frames as the inputs show them."""

    frames: Floats
    """[F, H, W, 3] in [0, 1]; holes take colours from around."""
    warped: Floats
    """[F, H, W, 3], background where unseen."""
    seen: Mask
    """[F, H, W], as the latents count them: what is unseen has grown."""
    latent_seen: Mask
    """[f, h, w]"""
    confidence: Floats
    """[F, H, W]: 1 less where a surface was stretched; 0 where unseen."""
    distances: Array
    """[F] in [0, 1], 0 for a given view."""
    latent_distances: Array
    """[f]"""
    given: tuple[bool, ...]
    """Which frames are inputs."""
    alpha: Floats | None = None
    """[F, H, W] of what is seen, 0 elsewhere; None where the warp had none."""


def sight(
    given: Given, route: Route, per_frame: bool, scale: int, temporal: int, background: tuple[int, int, int],
    rule: Rule = "ours", soft: bool = False,
) -> Sight:  # fmt: skip
    """Warp the inputs to every camera of a route.

    per_frame: frame i is warped from input i alone, else from all. scale, temporal: pixels and frames per
    latent. InputError where the path leaves what is seen, or goes through it.
    """
    check_outside(given, route, per_frame)
    sources = [[view] for view in given.views] if per_frame else [list(given.views)] * len(route.cameras)
    if rule == "ours":
        warped = _ours(sources, route, soft)
    else:
        warped = [released(group, cam, background, rule) for group, cam in zip(sources, route.cameras)]
    distances = _distances(sources, route, rule)
    behind = np.array(background, np.float32) / 255
    frames, shown, kept, confidence, own, alphas = [], [], [], [], [], []
    for i, (camera, raw) in enumerate(zip(route.cameras, warped)):
        same = _given_at(sources[i], camera, route.times[i])
        own.append(same is not None)
        found, alpha = composed(raw, background)
        if same is not None:
            whole, alpha = recaptured(same, camera, background)
            alphas.append(np.ones(found.seen.shape, np.float32) if alpha is None else alpha)
            frames.append(whole)
            shown.append(whole)
            kept.append(np.ones(found.seen.shape, bool))
            confidence.append(np.ones(found.seen.shape, np.float32))
            distances[i] = 0.0
            continue
        stays, _ = mask_for(found.seen, scale)
        frames.append(fill_holes(found.image, stays))
        shown.append(np.where(found.seen[..., None], found.image, behind))
        kept.append(stays)
        confidence.append(found.confidence * stays)
        alphas.append(np.zeros(found.seen.shape, np.float32) if alpha is None else alpha)
    seen = np.stack(kept)
    _check_overlap(seen, own, route)
    at_latents = np.stack(
        [
            np.ones((seen.shape[1] // scale, seen.shape[2] // scale), bool)
            if own[i]
            else mask_for(found.seen, scale)[1]
            for i, found in enumerate(warped)
        ]
    )
    latent_distances = distances
    if temporal > 1:
        at_latents, latent_distances = latent_frames(at_latents, distances)
    return Sight(
        np.stack(frames).astype(np.float32), np.stack(shown).astype(np.float32), seen, at_latents,
        np.stack(confidence), distances, latent_distances, tuple(own),
        np.stack(alphas) if rule == "ours" and _has_alpha(sources) else None,
    )  # fmt: skip


def _ours(sources: list[list[View]], route: Route, soft: bool) -> list[Warped]:
    target, with_alpha = route.cameras[0], _has_alpha(sources)
    made: dict[int, Source] = {}

    def source(view: View) -> Source:
        if id(view) not in made:
            made[id(view)] = as_source(view, target, with_alpha)
        return made[id(view)]

    return warp_frames(
        [[source(view) for view in group] for group in sources],
        [camera.K for camera in route.cameras],
        [camera.w2c_opencv for camera in route.cameras],
        (target.w, target.h),
        soft=soft,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _has_alpha(sources: list[list[View]]) -> bool:
    return any(view.alpha is not None for group in sources for view in group)


def _given_at(group: list[View], camera: Camera, time: float) -> View | None:
    """The input that a target camera repeats, if its frame holds all of the target's."""
    for view in group:
        own = view.camera
        assert own is not None
        zoom = own.fl_x / camera.fl_x
        left, top = own.cx - camera.cx * zoom, own.cy - camera.cy * zoom
        inside = (
            min(left, top) > -0.5
            and left + camera.w * zoom < own.w + 0.5
            and top + camera.h * zoom < own.h + 0.5
        )
        if np.allclose(own.c2w, camera.c2w, atol=1e-6) and abs(view.time - time) < 1e-6 and inside:
            return view
    return None


def _distances(sources: list[list[View]], route: Route, rule: Rule) -> Array:
    """[F] in [0, 1]: as released for its rules; ours by centres and axes of the cameras."""
    frames = len(route.cameras)
    poses = np.stack([camera.w2c_opencv for camera in route.cameras])
    if rule != "ours":
        if len(sources[0]) == 1:
            return distance_share(frames)
        return translation_distances(poses, np.stack([w2c(view) for view in sources[0]]))
    apart = []
    for pose, group in zip(poses, sources):
        inputs = np.stack([w2c(view) for view in group])
        centre = [-p[:3, :3].T @ p[:3, 3] for p in (pose, *inputs)]
        angle = np.arccos(np.clip(inputs[:, 2, :3] @ pose[2, :3], -1, 1))
        away = np.linalg.norm(np.stack(centre[1:]) - centre[0], axis=-1) + route.distance * angle
        apart.append(float(away.min()))
    found = np.array(apart)
    return found / max(float(found.max()), 1e-12) if found.max() > 1e-9 else np.zeros(frames)


def check_outside(given: Given, route: Route, per_frame: bool) -> None:
    """InputError where the path goes into a surface that an input shows."""
    for k, view in enumerate(given.views):
        ahead, far = None, view.solid_depth
        for i, camera in enumerate(route.cameras):
            if per_frame and i != k:
                continue
            before = route.cameras[max(i - 1, 0)].position if not per_frame else camera.position
            for share in np.linspace(0, 1, _STEPS + 1)[1:]:
                place = before + share * (camera.position - before)
                gap = _behind(view, far, place)
                crossed = ahead is not None and gap is not None and ahead <= 0 < gap
                if gap is not None and (crossed or 0 < gap <= INSIDE):
                    raise InputError(
                        f"camera {i} of the path is inside the object: {view.name} shows a surface before it "
                        f"({gap:.1%} of its depth): keep a larger --radius"
                    )
                ahead = gap


def _behind(view: View, depth: Floats, place: Array) -> float | None:
    """How far behind the surface that a view shows a place lies, as a share of its depth; None: not there."""
    assert view.camera is not None
    pixel, z = view.camera.project(place)
    column, row = np.floor(pixel) if np.isfinite(pixel).all() else (-1, -1)
    if not (z > 0 and 0 <= column < depth.shape[1] and 0 <= row < depth.shape[0]):
        return None
    surface = float(depth[int(row), int(column)])
    return float(z) / surface - 1 if np.isfinite(surface) and surface > 0 else None


def _check_overlap(seen: Mask, own: list[bool], route: Route) -> None:
    shares = [float(frame.mean()) for frame, given in zip(seen, own) if not given]
    if shares and max(shares) == 0:
        walked = max(float(np.linalg.norm(c.position - route.cameras[0].position)) for c in route.cameras)
        raise InputError(
            f"the path sees nothing of the input (largest seen share 0 %, the path goes {walked:.3g} units "
            "away): give another --path, or depth in the units of the cameras"
        )
