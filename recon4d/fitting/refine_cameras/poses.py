"""Cameras that are wrong: an orbit searched by silhouettes, then free poses through the rasteriser.

Order: `inputs.orbit_search` finds which way a bare video goes round, how high and through which lens. Free
poses are then fitted together with a small scene: each camera (one that stands still has one pose for all its
images) turns and moves by the gradient of its images through the world-to-camera matrix.

Gauge: turning, moving and scaling the whole world changes no image. Where a static orbit brings cameras of
its own these are held fixed. Otherwise the similarity that maps the refined centres best onto the given ones
(Umeyama 1991) is taken out, so that cameras change among themselves only. Focal lengths stay.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import FLIP_YZ, Camera
from orbit4d.recon4d.deformation.residual import plain
from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.losses import View, image_terms, weigh
from orbit4d.recon4d.fitting.refine_cameras.short_fits import placed_by_images, supported
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec
from orbit4d.recon4d.inputs.orbit_search import search_orbit, told
from orbit4d.recon4d.scene import Placed, draw

Array = npt.NDArray[np.float64]

#: Size of the images and of the small scene that poses are fitted with.
RESOLUTION, N_GAUSSIANS, COARSE, FINE = 128, 3000, 200, 500
#: Joint steps, and the rate of rotations (radians) and translations (units) at their start and end.
STEPS, RATE, LAST = 900, 4e-3, 2e-4
#: Rates of the scene's own numbers meanwhile.
_RATES = {"means": 6e-4, "quats": 3e-3, "log_scales": 5e-3, "logits": 3e-2, "colors": 6e-3}


def with_found_orbit(inputs: Inputs, spec: OrbitSpec | None, poor: bool = False) -> Inputs:
    """The inputs on the orbit that their silhouettes fit, where it is clearly better than the given one.

    Only frames without cameras of their own are moved; a note says what was found. `poor` says that the given
    orbit was seen not to fit, as of a bare video.
    """
    start = spec or OrbitSpec()
    bare = [frames for frames in (inputs.static, inputs.dynamic) if frames is not None and not frames.posed]
    if not bare or inputs.views is not None:
        return inputs
    known = inputs.static if inputs.static is not None and inputs.static.posed else None
    found = search_orbit(bare[0], start, known, quick=poor)
    chosen = found.spec if found.better else start
    moving = len(set(bare[0].time)) > 1
    if moving and known is not None:
        chosen = placed_by_images(bare[0], chosen, known)
    elif moving and found.better:
        chosen = supported(bare[0], start, chosen)
    name = bare[0].name
    if chosen == start:
        if found.better:
            inputs.notes.append(
                f"{name}: silhouettes would fit another orbit better, as those of what moves may, but "
                "the images do not: the given orbit is kept; give --cameras or --orbit if it is another"
            )
        elif not poor:
            inputs.notes.append(f"{name}: silhouettes know no better orbit than the given one")
        return inputs
    by_images = f"orbit found by images: {told(chosen)}"
    note = found.note(bare[0]) if chosen == found.spec else by_images
    inputs.notes.append(f"{name}: {note}")
    moved = {id(frames): _on(frames, chosen) for frames in bare}
    static = None if inputs.static is None else moved.get(id(inputs.static), inputs.static)
    return replace(inputs, dynamic=moved.get(id(inputs.dynamic), inputs.dynamic), static=static)


def _on(frames: Frames, spec: OrbitSpec) -> Frames:
    h, w = frames.rgba.shape[1:3]
    return replace(frames, cameras=spec.cameras(len(frames), w, h))


@dataclass
class Poses:
    """Corrections of the cameras: a twist [6] (rotation, translation, in the camera's axes) per group."""

    groups: list[int]
    """Group of each training view; -1 is held fixed."""
    twists: Tensor
    """[G, 6]"""

    def view(self, view: View, index: int) -> View:
        """The view through its corrected camera, differentiable by the twists."""
        group = self.groups[index]
        if group < 0:
            return view
        placed = view.camera
        moved = exponential(self.twists[group]) @ placed.viewmats[0]
        return replace(view, camera=Placed(moved[None], placed.Ks, placed.width, placed.height))


def exponential(twist: Tensor) -> Tensor:
    """Rigid transform [4, 4]: rotation by the vector twist[:3], then translation by twist[3:]."""
    angle = (twist[:3].square().sum() + 1e-16).sqrt()
    x, y, z = (twist[:3] / angle).unbind()
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    eye = torch.eye(3, dtype=twist.dtype)
    turn = eye + torch.sin(angle) * skew + (1 - torch.cos(angle)) * (skew @ skew)
    top = torch.cat([turn, twist[3:, None]], dim=1)
    return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=twist.dtype)])


def refine_poses(inputs: Inputs, first: Gaussians, settings: ReconstructionSettings, seed: int) -> Inputs:
    """The inputs, in the world of the fit, with a refined pose for each of their cameras; a note says by how
    much they moved. Deterministic for one seed. `first` are the Gaussians that the fit would start from.
    """
    small = _small(settings)
    dynamic = inputs.dynamic.resized(RESOLUTION)
    static = None if inputs.static is None else inputs.static.resized(RESOLUTION)
    step = max(1, len(first) // N_GAUSSIANS)
    thin = Gaussians(**{name: tensor[::step].clone() for name, tensor in first.tensors().items()})
    fit = new_fit(thin, small, seed)
    with contextlib.redirect_stderr(io.StringIO()):
        optimize.optimise(fit, dynamic, static, small)
    fixed = static is not None and inputs.views is None and inputs.static is not None and inputs.static.posed
    everything = [dynamic] if static is None or inputs.views is not None else [dynamic, static]
    cameras = [camera for frames in everything for camera in frames.cameras]
    groups = _groups(everything, fixed)
    poses = Poses(groups, torch.zeros(max(groups) + 1, 6))
    views = [view for frames in everything for view in optimize.views(frames)]
    _descend(fit, small, views, poses, seed)
    refined = [
        _corrected(camera, poses.twists[group]) if group >= 0 else camera
        for camera, group in zip(cameras, groups)
    ]
    if not fixed:
        refined = in_gauge_of(cameras, refined)
    return _put(inputs, cameras, refined)


def _small(settings: ReconstructionSettings) -> ReconstructionSettings:
    field = plain(settings.deformation)
    smaller = {"nodes": {"n_nodes": 80, "width": 64}, "paths": {"n_nodes": 80}}
    field = {**field, **smaller.get(field["kind"], {})}
    return replace(
        settings, coarse_steps=COARSE, fine_steps=FINE, resolution=RESOLUTION, patience=0, exposure=False,
        deformation=field, density=replace(settings.density, every=0),
        weights=replace(settings.weights, lpips=0.0), warmup_share=0.3,
    )  # fmt: skip


def _groups(sources: Sequence[Frames], fix_last: bool) -> list[int]:
    """Views of one pose share a group, as those of a camera that stands still do."""
    known: dict[tuple[str, bytes], int] = {}
    groups = []
    for number, frames in enumerate(sources):
        for i, camera in enumerate(frames.cameras):
            if fix_last and number == len(sources) - 1:
                groups.append(-1)
                continue
            label = frames.labels[i] if frames.labels else ""
            groups.append(known.setdefault((label, camera.c2w.tobytes()), len(known)))
    return groups


def _descend(
    fit: Fit, settings: ReconstructionSettings, views: Sequence[View], poses: Poses, seed: int
) -> None:
    """Adam on scene and poses together, one view a step; a pose's moments count its own views."""
    generator = torch.Generator().manual_seed(seed + 1)
    named = fit.gaussians.tensors()
    scene: list[dict[str, Any]] = [{"params": [named[name]], "lr": rate} for name, rate in _RATES.items()]
    scene.append({"params": list(fit.field.parameters()), "lr": 1e-3})
    adam = torch.optim.Adam(scene, eps=1e-15)
    first, second = torch.zeros_like(poses.twists), torch.zeros_like(poses.twists)
    seen = torch.zeros(len(poses.twists))
    poses.twists.requires_grad_(True)
    # Cameras of a closed orbit, and of a grid, are many: each is to be drawn about as often.
    steps = max(STEPS, 25 * len(poses.twists))
    for step in range(steps):
        index = int(torch.randint(len(views), (), generator=generator))
        view = poses.view(views[index], index)
        moved = fit.field.move(fit.gaussians, view.time)
        color, alpha, _ = draw(moved, view.camera, False, eps2d=settings.eps2d)
        background = torch.rand(3, generator=generator)
        loss = weigh(image_terms(color, alpha, view.truth, background), settings.weights)
        if step % settings.regularise_every == 0:
            loss = loss + weigh(fit.field.regularisers(view.time, 1 / 24), settings.weights) * 2
        adam.zero_grad(set_to_none=True)
        poses.twists.grad = None
        loss.backward()
        adam.step()
        group = poses.groups[index]
        if group < 0 or poses.twists.grad is None:
            continue
        rate = RATE * (LAST / RATE) ** (step / steps)
        with torch.no_grad():
            slope = poses.twists.grad[group]
            seen[group] += 1
            first[group].mul_(0.8).add_(slope, alpha=0.2)
            second[group].mul_(0.95).add_(slope.square(), alpha=0.05)
            mean = first[group] / (1 - 0.8 ** seen[group])
            size = (second[group] / (1 - 0.95 ** seen[group])).sqrt() + 1e-12
            poses.twists[group] -= rate * mean / size
    poses.twists.requires_grad_(False)


def _corrected(camera: Camera, twist: Tensor) -> Camera:
    w2c = exponential(twist.double()).numpy() @ camera.w2c_opencv
    u, _, v = np.linalg.svd(w2c[:3, :3])
    w2c[:3, :3] = u @ v
    return replace(camera, c2w=np.linalg.inv(w2c) @ FLIP_YZ)


def in_gauge_of(given: Sequence[Camera], refined: Sequence[Camera]) -> list[Camera]:
    """`refined` moved as a whole so that their centres lie best on those of `given`, in least squares."""
    scale, turn, shift = similarity(
        np.stack([c.position for c in refined]), np.stack([c.position for c in given])
    )
    out = []
    for camera in refined:
        c2w = camera.c2w.copy()
        c2w[:3, :3] = turn @ c2w[:3, :3]
        c2w[:3, 3] = scale * turn @ camera.position + shift
        out.append(replace(camera, c2w=c2w))
    return out


def similarity(source: Array, target: Array) -> tuple[float, Array, Array]:
    """Scale, rotation [3, 3] and shift [3] that take points [N, 3] nearest to others (Umeyama 1991).

    The identity where the points do not say which way it turns.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    if s[1] < 1e-9 * max(s[0], 1e-30):
        return 1.0, np.eye(3), np.zeros(3)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * signs) @ vt
    scale = float((s * signs).sum() / (a**2).sum())
    return scale, turn, target.mean(0) - scale * turn @ source.mean(0)


def _put(inputs: Inputs, given: Sequence[Camera], refined: Sequence[Camera]) -> Inputs:
    """Inputs with the refined cameras at their images' own size."""
    angles = [_angle(a, b) for a, b in zip(given, refined)]
    shifts = [float(np.linalg.norm(a.position - b.position)) for a, b in zip(given, refined)]
    inputs.notes.append(
        f"cameras refined: turned by {np.mean(angles):.2f} degrees (at most {max(angles):.2f}), moved by "
        f"{np.mean(shifts):.3f} units of the fit (at most {max(shifts):.3f})"
    )
    n = len(inputs.dynamic)
    moved = [replace(own, c2w=new.c2w) for own, new in zip(inputs.dynamic.cameras, refined)]
    dynamic = replace(inputs.dynamic, cameras=tuple(moved))
    static = inputs.static
    if static is not None and inputs.views is not None:
        by_pose = {(la, old.c2w.tobytes()): new.c2w
                   for la, old, new in zip(inputs.dynamic.labels, given, refined)}  # fmt: skip
        own = [replace(c, c2w=by_pose[la, c.c2w.tobytes()]) for la, c in zip(static.labels, static.cameras)]
        static = replace(static, cameras=tuple(own))
    elif static is not None:
        own = [replace(c, c2w=new.c2w) for c, new in zip(static.cameras, refined[n:])]
        static = replace(static, cameras=tuple(own))
    return replace(inputs, dynamic=dynamic, static=static)


def following(inputs: Inputs, refined: Sequence[Camera]) -> dict[str, Frames]:
    """Held-out views, where a training camera took them (at a held-out time), at its refined pose. Cameras
    that are held out themselves stay: the gauge keeps the given ones in place as a whole.
    """
    given = inputs.dynamic.cameras
    moved = {old.c2w.tobytes(): new.c2w for old, new in zip(given, refined)}
    return {
        name: replace(
            frames,
            cameras=tuple(replace(c, c2w=moved.get(c.c2w.tobytes(), c.c2w)) for c in frames.cameras),
        )
        for name, frames in inputs.held_out.items()
    }


def _angle(a: Camera, b: Camera) -> float:
    cosine = (np.trace(a.c2w[:3, :3].T @ b.c2w[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
