"""DATASET:uid with a rig: the static orbit is fitted, everything else is driven by the asset's skeleton."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path, named
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.reference import split_reference
from orbit4d.datasets.store.clip import Clip
from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.deformation.rigs.rigged import RigField, refuse_flat, rig_field
from orbit4d.recon4d.deformation.surface import Binding, bind_to_surface, spread_out
from orbit4d.recon4d.devices import choose_device, describe_device
from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.inputs import Inputs, unseen
from orbit4d.recon4d.fitting.rigging.moment import fitted_clip, into_world
from orbit4d.recon4d.fitting.rigging.slot import Read, reader
from orbit4d.recon4d.fitting.scores import compared, measure, renders
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, load_checkpoint, new_fit
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.inputs.loading import Frames, from_clip
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import Scene

#: Steps of a fit to a static orbit, over the coarse steps of a preset.
_STEPS = 1500 / 880


def static_settings(settings: ReconstructionSettings) -> ReconstructionSettings:
    """A preset's settings for a fit in which nothing moves: coarse steps alone."""
    return replace(
        settings,
        coarse_steps=round(settings.coarse_steps * _STEPS),
        fine_steps=0,
        deform_from=2.0,
        deformation={"kind": "nodes"},
        exposure=False,
    )


def reconstruct_rigged(
    source: str,
    asset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ReconstructionSettings,
    seed: int = 0,
    *,
    threads: int | None = None,
    device: str = "auto",
    force: bool = False,
    moment: str = "first",
) -> Scene:
    """Fit the static orbit of `source`, DATASET:uid[:action], and drive it by the rig of `asset`.

    `moment` says whose static orbit: `first` the action's own, `auto` that of the asset's action in whose
    first moment the least of its surface touches itself, else an action's name. Held-out PSNR and SSIM are of
    the action's dynamic orbits and its front view, no frame of which was seen. An interrupted run resumes, a
    finished one is loaded. Raises InputError, one line, for a dataset without a static orbit, a file without
    a rig, and one that is not the dataset's (unless `force`).
    """
    driven, unseen_clips = _clips(source)
    sha256 = hashlib.sha256(Path(asset).read_bytes()).hexdigest() if Path(asset).is_file() else ""
    if not sha256:
        raise InputError(f"--rig {asset}: no such file; give the asset that {source} was rendered from")
    if driven.asset_sha256 and sha256 != driven.asset_sha256 and not force:
        raise InputError(
            f"--rig {asset}: its SHA-256 {sha256[:8]} is not the {driven.asset_sha256[:8]} that {source} was "
            "rendered from; give that file, or --force"
        )
    read = reader()(str(asset), driven.scale, driven.centre)
    if not 0 <= driven.action_index < len(read.rig.motions):
        raise InputError(
            f"--rig {asset}: it has {len(read.rig.motions)} actions, none of index {driven.action_index}"
        )
    static = fitted_clip(split_reference(source)[0], driven, moment, read)
    refuse_moment(read, (read.rig.motions[static.action_index].name, float(static.seconds[0])))
    frames = from_clip(static).resized(settings.resolution)
    inputs = _inputs(frames, unseen_clips, settings.resolution, read.notes, static is driven)
    chosen, on, folder = static_settings(settings), choose_device(device), local_path(out)
    reconstruction._check_out(folder)
    run = {
        "settings": chosen.as_config(), "seed": seed,
        "input_sha256": reconstruction.fingerprint(inputs), "rig_sha256": sha256,
    }  # fmt: skip
    if static is not driven:
        run["rig_moment"] = static.action
    if (scene := reconstruction._finished(folder, run)) is not None:
        print(f"{folder}: already finished")
        return scene.to(on)
    for note in inputs.notes:
        print(note)
    with alone(threads) as used:
        print(describe_device(on, used))
        fit = fit_static(inputs, chosen, seed, folder, run, on)
    still = Scene(fit.gaussians.to("cpu"), StillField(), frames.cameras, frames.time, eps2d=chosen.eps2d)
    gaussians = into_world(still.gaussians, static, driven)
    field, binding = rigged(gaussians, read, driven, static)
    scene = replace(still, gaussians=gaussians, field=field)
    scene.metrics = measure(scene, inputs) | {
        "seconds": round(fit.seconds, 2), "n_gaussians": len(fit.gaussians), "loose": binding.loose,
        "repaired_weights": read.surface.repaired,
    }  # fmt: skip
    if static is not driven:
        scene.metrics["psnr_train"], scene.metrics["ssim_train"] = compared(renders(still, frames), frames)
    scene.info |= {
        "run": run,
        "source": named(source),
        "rig": named(str(asset)),
        "notes": named(inputs.notes),
    }
    scene.info["device"] = describe_device(on).removeprefix("device ")
    scene.save(folder)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return scene.to(on)


def refuse_beside(*given: Any) -> None:
    """InputError where an option was given that a dataset's static orbit or a fit without motion leaves no
    use for: --static, --cameras, --static-cameras, --mask, --steps."""
    names = ("--static", "--cameras", "--static-cameras", "--mask", "--steps")
    for name, value in zip(names, given, strict=True):
        if value is not None:
            raise InputError(
                f"{name} has no use beside --rig, which fits the dataset's static orbit; leave it out"
            )


def _clips(source: str) -> tuple[Clip, dict[str, Clip]]:
    """The static orbit of an action, and its other clips by name."""
    dataset, uid, action = split_reference(source)
    if uid is None:
        raise InputError(f"{source}: --rig needs DATASET:uid[:action], whose scale and time are known")
    try:
        static = read_clip(dataset, uid, action, "static_orbit", 0)
    except InputError as error:
        raise InputError(f"{error} (--rig fits a static orbit)"[:300]) from None
    found = {}
    wanted = (("orbit0", "dynamic_orbit", 0), ("orbit1", "dynamic_orbit", 1), ("front", "front_view", 0))
    for name, rig, orbit in wanted:
        try:
            found[name] = read_clip(dataset, uid, static.action_index, rig, orbit)
        except InputError:
            continue
    return static, found


def _inputs(static: Frames, clips: dict[str, Clip], size: int, notes: Sequence[str], own: bool) -> Inputs:
    """`own`: the static orbit is that of the action that plays, whose first frames may repeat its views."""
    held_out = {}
    for name, clip in clips.items():
        whole = from_clip(clip).resized(size)
        frames = unseen(whole, static) if own else whole
        if frames is not None:
            held_out[name] = frames
    return Inputs(static, None, held_out, list(notes))


def fit_static(
    inputs: Inputs,
    settings: ReconstructionSettings,
    seed: int,
    folder: Path,
    run: dict[str, Any],
    device: Any = "cpu",
) -> Fit:
    """Gaussians of the orbit `inputs.dynamic`, at whose one time nothing moves; resumes in `folder`."""
    checkpoint = folder / "checkpoint.pt"
    start = None if checkpoint.exists() else reconstruction.first_gaussians(inputs, settings, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", run)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
    if start is None:
        fit = load_checkpoint(checkpoint, settings, None, device)
    else:
        fit = new_fit(start, settings, seed, None, device)
    return optimize.optimise(fit, inputs.dynamic, None, settings, checkpoint, folder / "log.jsonl")


def rigged(
    gaussians: Gaussians, read: Read, clip: Clip, static: Clip | None = None
) -> tuple[RigField, Binding]:
    """The field that drives Gaussians by a clip's action, and how they were bound.

    `static` is the clip that they were fitted to, where it is of another action.
    """
    motion = read.rig.motions[clip.action_index]
    at = clip if static is None else static
    moment = read.rig.motions[at.action_index].name, float(at.seconds[0])
    return bound_at(gaussians, read, motion.name, moment[1], (clip.window[0], clip.window[1]), moment)


def refuse_moment(read: Read, moment: tuple[str | None, float]) -> None:
    """InputError, naming the joint, where the surface that is seen at a moment is flattened: before a fit."""
    maps, surface = read.rig.maps(*moment), read.surface
    corners = surface.posed(maps)[surface.faces]
    edges = corners[:, 1:] - corners[:, :1]
    there = spread_out(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1))
    seen = np.unique(surface.faces[there])
    refuse_flat(read.rig, moment, maps, surface.index[seen], surface.weights[seen])


def bound_at(
    gaussians: Gaussians, read: Read, action: str, seconds: float, window: tuple[float, float],
    moment: tuple[str | None, float] | None = None,
) -> tuple[RigField, Binding]:  # fmt: skip
    """Bind Gaussians fitted at `seconds` of an action, which then plays over `window`, seconds.

    `moment`: the action and its second at which they were fitted, where it is another; no action is the pose
    of the nodes where nothing plays.
    """
    moment = moment or (action, seconds)
    posed = read.surface.posed(read.rig.maps(*moment))
    still = gaussians.detached().to("cpu")
    axes, thin = _axes(still)
    binding = bind_to_surface(still.means.numpy(), axes[np.arange(len(axes)), :, thin], read.surface, posed)
    return rig_field(read.rig, binding, action, window, moment), binding


def _axes(gaussians: Gaussians) -> tuple[Any, Any]:
    """Axes [N, 3, 3] in columns, and which is the shortest [N]."""
    turns = rotations.to_matrix(torch.nn.functional.normalize(gaussians.quats, dim=1))
    return turns.double().numpy(), gaussians.log_scales.argmin(dim=1).numpy()
