"""Between the two fits of `recon4d --complete`: views that nothing saw are found, and made by a model.

A camera of a ring sees points of the fit; what no training camera sees of them is missing. The nearest
training view is warped towards it along a path of the model's frames, and guided sampling makes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.compose.completion.filmed import filmed
from orbit4d.compose.completion.inputs import Given
from orbit4d.compose.completion.routes import Route, covering
from orbit4d.compose.completion.seen import sight
from orbit4d.compose.completion.view import View
from orbit4d.compose.completion.weights import weight_table
from orbit4d.compose.completion.writing import confidence
from orbit4d.datasets.cameras.camera import Array, Camera, orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.resize import resampled
from orbit4d.model.guided.models.video_model import VideoModel
from orbit4d.recon4d.fitting.completion.slot import Completed, Completer, CompletionSettings
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.scene import Scene

#: Rings of candidates, degrees from the elevation of training, and the step along them.
RINGS, STEP_DEG = (-30.0, 0.0, 30.0, 60.0), 15.0
#: Times at which something may be missing.
MOMENTS = 2
#: Candidates nearer than this to a chosen one show the same.
APART_DEG = 20.0
#: Points within this share of a training view's depth are seen by it.
SAME = 0.01
#: Pixels, on the longer side, at which candidates are inspected.
_LOOK = 64


@dataclass(frozen=True)
class Candidate:
    """A view that may be missing."""

    camera: Camera
    time: float
    score: float
    """Share of the object that no training view sees, times its share of the image."""
    source: int
    """Training view of that time which is nearest, among `Known`."""


@dataclass(frozen=True)
class Known:
    """Training views as one list, premultiplied RGBA [H, W, 4] each."""

    images: tuple[npt.NDArray[np.float32], ...]
    cameras: tuple[Camera, ...]
    times: tuple[float, ...]

    @classmethod
    def of(cls, train: list[Frames]) -> Known:
        """Of the video's frames and the static orbit's."""
        return cls(
            tuple(image for frames in train for image in frames.rgba),
            tuple(camera for frames in train for camera in frames.cameras),
            tuple(t for frames in train for t in frames.time),
        )


def completer(asked: CompletionSettings) -> Completer:
    """`complete`, once the model and the mode are known to be there. InputError where they are not."""
    from orbit4d.model.guided.sampler import MODES
    from orbit4d.model.sampling.guided_orbit import kind_of

    if asked.mode not in MODES:
        raise InputError(f"--complete-mode {asked.mode}: choose from {', '.join(MODES)}")
    kind_of(asked.model)
    return complete


def complete(scene: Scene, train: list[Frames], asked: CompletionSettings, seed: int) -> Completed:
    """Up to `asked.views` completed views of a scene in the world of its fit. InputError: a wrong model."""
    from orbit4d.model.sampling.guided_orbit import load_video_model

    model = load_video_model(asked.model)
    known = Known.of(train)
    chosen = missing_views(scene, known, asked.views)
    report: dict[str, Any] = {"prior": model.prior, "kind": model.kind, "completed": len(chosen), "made": []}
    if not chosen:
        print("complete: the training views see all of the object, nothing is completed")
        return Completed(None, report)
    h, w = train[0].rgba.shape[1:3]
    rgba, cameras, times, sure = [], [], [], []
    for k, candidate in enumerate(chosen):
        image, camera, certain, about = completed_view(scene, known, candidate, model, asked, seed + k)
        rgba.append(_resized(image, w, h))
        sure.append(_resized(certain[..., None], w, h)[..., 0])
        cameras.append(camera.resized(w, h))
        times.append(candidate.time)
        report["made"].append(about)
        print(
            f"completed view {k + 1}/{len(chosen)}: seen {about['seen']:.0%}, missing {candidate.score:.1%}"
        )
    frames = Frames(
        np.stack(rgba), tuple(cameras), tuple(times), "completed views", confidence=np.stack(sure)
    )
    return Completed(frames, report)


# What is missing ------------------------------------------------------------------------------------------


def missing_views(scene: Scene, known: Known, count: int) -> list[Candidate]:
    """The views that show most of what no training view sees, greedily, none within 20 degrees of another."""
    found = [c for t in moments(known.times) for c in _candidates(scene, known, t)]
    chosen: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: -c.score):
        if candidate.score <= 0 or len(chosen) == count:
            break
        if all(_angle(candidate.camera, other.camera) >= APART_DEG for other in chosen):
            chosen.append(candidate)
    return chosen


def moments(times: tuple[float, ...]) -> list[float]:
    """Times at which views are looked for: the one that most views share, then evenly among the rest."""
    values, counts = np.unique(np.round(times, 9), return_counts=True)
    first = float(values[int(counts.argmax())])
    rest = [float(t) for t in values if t != first]
    if not rest:
        return [first]
    evenly = np.linspace(0, len(rest) - 1, MOMENTS + 1).round().astype(int).tolist()[1:]
    return [first, *(rest[i] for i in evenly)][:MOMENTS]


def _candidates(scene: Scene, known: Known, time: float) -> list[Candidate]:
    lens = known.cameras[0]
    radius = float(np.linalg.norm(lens.position))
    base = float(np.degrees(np.arcsin(np.clip(lens.position[2] / radius, -1, 1))))
    small = _small(lens)
    depths = [filmed(scene, _small(camera), time, "").depth for camera in known.cameras]
    at_time = [i for i, t in enumerate(known.times) if abs(t - time) < 1e-6]
    found = []
    for ring in RINGS:
        elevation = base + ring
        if abs(elevation) > 89:
            continue
        for azimuth in np.arange(0.0, 360.0, STEP_DEG):
            camera = replace(small, c2w=orbit_c2w(float(azimuth), elevation, radius))
            share = unseen_share(filmed(scene, camera, time, ""), known.cameras, depths)
            nearest = min(at_time, key=lambda i: _angle(camera, known.cameras[i]))
            whole = replace(lens, c2w=camera.c2w)
            found.append(Candidate(whole, time, share, nearest))
    return found


def unseen_share(view: View, cameras: tuple[Camera, ...], depths: list[Any]) -> float:
    """Share of a view's object that no camera sees, times the object's share of the image.

    A camera sees a point where its own depth [h, w] there is the point's within 1 %.
    """
    assert view.camera is not None and view.depth is not None
    solid = np.isfinite(view.depth)
    if not solid.any():
        return 0.0
    rows, columns = np.nonzero(solid)
    points = _lifted(view.camera, columns + 0.5, rows + 0.5, view.depth[solid])
    seen = np.zeros(len(points), bool)
    for camera, depth in zip(cameras, depths):
        small = camera.resized(depth.shape[1], depth.shape[0])
        pixel, z = small.project(points)
        inside = (z > 0) & (pixel >= 0).all(-1) & (pixel < [small.w, small.h]).all(-1)
        x, y = (np.where(inside, pixel[:, k], 0).astype(int) for k in (0, 1))
        # The nearest of the pixels around: a coarse depth map is off where the surface is steep.
        around = [
            np.abs(
                depth[(y + dy).clip(0, small.h - 1), (x + dx).clip(0, small.w - 1)] / np.maximum(z, 1e-9) - 1
            )
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        seen |= inside & (np.min(around, axis=0) < SAME)
    return float((~seen).mean() * solid.mean())


def _lifted(camera: Camera, x: Array, y: Array, depth: Any) -> Array:
    local = np.stack(
        [(x - camera.cx) / camera.fl_x * depth, -(y - camera.cy) / camera.fl_y * depth, -depth], -1
    )
    return np.asarray(local @ camera.c2w[:3, :3].T + camera.position)


def _small(camera: Camera) -> Camera:
    zoom = min(1.0, _LOOK / max(camera.w, camera.h))
    return camera.resized(max(1, round(camera.w * zoom)), max(1, round(camera.h * zoom)))


def _angle(a: Camera, b: Camera) -> float:
    ways = [c.position / max(float(np.linalg.norm(c.position)), 1e-12) for c in (a, b)]
    return float(np.degrees(np.arccos(np.clip(ways[0] @ ways[1], -1, 1))))


# What is made ---------------------------------------------------------------------------------------------


def completed_view(
    scene: Scene, known: Known, candidate: Candidate, model: VideoModel, asked: CompletionSettings, seed: int
) -> tuple[Any, Camera, Any, dict[str, Any]]:
    """Premultiplied RGBA [h, w, 4] at a candidate's camera, that camera, confidence [h, w], and numbers."""
    import torch

    from orbit4d.model.guided.sampler import Guide

    source = _source(scene, known, candidate)
    way = spherical(source, candidate, model)
    model.check(len(way.cameras), model.size, way.cameras)
    seen = sight(Given((source,), False), way, False, model.scale, model.temporal, model.background)
    steps = asked.steps or model.steps
    table = weight_table(
        "none" if asked.mode == "none" else asked.schedule, "",
        model.levels(steps, model.size), seen.latent_distances, model.kind,
    )  # fmt: skip
    mode: Any = "dgs" if asked.mode == "none" else asked.mode
    guide = Guide(
        model.encode(seen.frames), torch.from_numpy(seen.latent_seen)[None, None], table.weights, mode
    )
    latents = model.sample(seen.frames[0], way.cameras, guide, steps, seed, lambda i: None)
    image = model.decode(latents)[-1].astype(np.float32) / 255
    camera = way.cameras[-1]
    film = filmed(scene, camera, candidate.time, "film")
    assert film.alpha is not None
    shown = seen.seen[-1] * (1.0 if seen.alpha is None else seen.alpha[-1])
    alpha = np.maximum(film.alpha, shown)[..., None].astype(np.float32)
    behind = np.array(model.background, np.float32) / 255
    rgba = np.concatenate([(image - behind * (1 - alpha)).clip(0, alpha), alpha], -1).astype(np.float32)
    certain = confidence(seen, asked.hidden)[-1]
    about = {
        "time": candidate.time,
        "missing": round(candidate.score, 6),
        "seen": round(float(seen.seen[-1][film.alpha > 0.5].mean()) if (film.alpha > 0.5).any() else 0.0, 6),
        "from_deg": round(_angle(source.camera, candidate.camera), 3) if source.camera is not None else None,
        "c2w": candidate.camera.c2w.tolist(),
        **table.as_report(),
    }
    return rgba, camera, certain, about


def spherical(source: View, candidate: Candidate, model: VideoModel) -> Route:
    """From the source's camera around the object to the candidate's, in the model's frames."""
    assert source.camera is not None
    lens = covering(source.camera, model.size)
    start, end = (_polar(camera) for camera in (source.camera, candidate.camera))
    turn = (end[0] - start[0] + 180) % 360 - 180
    poses = [
        orbit_c2w(start[0] + s * turn, start[1] + s * (end[1] - start[1]), start[2] + s * (end[2] - start[2]))
        for s in np.linspace(0, 1, model.frames).tolist()
    ]
    poses[0] = source.camera.c2w
    cameras = tuple(replace(lens, c2w=pose) for pose in poses)
    return Route(cameras, (candidate.time,) * len(cameras), start[2])


def _source(scene: Scene, known: Known, candidate: Candidate) -> View:
    """The nearest training image with the fit's depth."""
    rgba, camera = known.images[candidate.source], known.cameras[candidate.source]
    film = filmed(scene, camera, candidate.time, f"training view {candidate.source}")
    alpha = rgba[..., 3]
    straight = np.where(alpha[..., None] > 0, rgba[..., :3] / np.maximum(alpha[..., None], 1e-6), 0).clip(
        0, 1
    )
    return replace(film, image=straight.astype(np.float32), alpha=alpha)


def _polar(camera: Camera) -> tuple[float, float, float]:
    x, y, z = camera.position
    radius = float(np.linalg.norm(camera.position))
    elevation = float(np.degrees(np.arcsin(np.clip(z / max(radius, 1e-9), -1, 1))))
    return float(np.degrees(np.arctan2(x, -y))), elevation, radius


def _resized(planes: Any, w: int, h: int) -> Any:
    """[h', w', C] floats at another size."""
    if planes.shape[:2] == (h, w):
        return planes
    return resampled(planes, (w, h), w < planes.shape[1], Image.Resampling.BILINEAR).astype(np.float32)
