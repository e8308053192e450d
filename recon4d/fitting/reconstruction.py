"""From an orbit video to a scene folder: read, check, fit, measure, save."""

from __future__ import annotations

import hashlib
import json
import os
import time as clock
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path, named
from orbit4d.recon4d.deformation.residual import key_times
from orbit4d.recon4d.devices import choose_device, describe_device
from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting.completion.refit import far_scores, in_fit, refitted
from orbit4d.recon4d.fitting.completion.slot import Completer, CompletionSettings, completer
from orbit4d.recon4d.fitting.exposure import exposure_of
from orbit4d.recon4d.fitting.inputs import Inputs, read_inputs
from orbit4d.recon4d.fitting.losses import why_no_lpips
from orbit4d.recon4d.fitting.refine_cameras.poses import following, refine_poses, with_found_orbit
from orbit4d.recon4d.fitting.scores import failure, measure
from orbit4d.recon4d.fitting.scores import nearest_frame as nearest_frame
from orbit4d.recon4d.fitting.scores import score as score
from orbit4d.recon4d.fitting.settings import PRESETS, ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, load_checkpoint, new_fit
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.inputs.confidence import HIDDEN
from orbit4d.recon4d.inputs.find_world import find_world, frames_in
from orbit4d.recon4d.inputs.footage import MAX_EDGE
from orbit4d.recon4d.inputs.hull import Hull, carve, sample_surface
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec
from orbit4d.recon4d.inputs.open_start import sweep
from orbit4d.recon4d.inputs.open_views import ViewOptions
from orbit4d.recon4d.inputs.shared_cameras import on_static_orbit, rest_times, stays
from orbit4d.recon4d.inputs.views import LEAST_CAMERAS
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import Scene, load_scene
from orbit4d.recon4d.world import World

#: Coverage of the silhouettes by the visual hull below which the cameras are said not to fit. Right cameras
#: give 0.98 to 0.999 on published orbits of still objects; a moving object gives less.
_FIT_STATIC, _FIT_DYNAMIC = 0.93, 0.80
#: The same where all views agree, at small size: below it a bare video's orbit is searched. Moving animals on
#: right orbits give 0.38 to 0.95, on reversed ones 0.27 to 0.81.
_UNSURE, _GLANCE = 0.95, 128
#: Training cameras a time from which each Gaussian may differ from the nodes. Measured with 8.
FREE_CAMERAS = 8


def reconstruct(
    video_or_frames: Any,
    out: str | os.PathLike[str],
    static: Any = None,
    cameras: str | Path | Sequence[Camera] | None = None,
    static_cameras: str | Path | Sequence[Camera] | None = None,
    static_time: float = 0.0,
    preset: str = "default",
    seed: int = 0,
    *,
    spec: OrbitSpec | None = None,
    mask: str | Path | None = None,
    matte: str = "flat",
    settings: ReconstructionSettings | None = None,
    threads: int | None = None,
    device: str = "auto",
    views: ViewOptions | None = None,
    completion: CompletionSettings | None = None,
    refine_cameras: bool | None = None,
    confidence_hidden: float = HIDDEN,
) -> Scene:
    """Fit explicit 4D Gaussians to an orbit video, or to synchronised cameras, and write the folder `out`.

    `video_or_frames` and `static` are a video, a folder, a list of image files, PIL images or uint8 arrays
    [H, W, 3 or 4], an array [F, H, W, 3 or 4], or DATASET:uid[:action] (which brings its own cameras, its
    static orbit, and held-out views). Several cameras are the folder of a capture (`inputs/captures`), a list
    of videos or an array [V, F, H, W, 3 or 4] with one of `cameras` each; `views` says what is held out of
    them. `static_time` is the time that a
    static orbit shows (a dataset's clips know it). A static orbit of as many frames as the video takes the
    video's cameras, unless it has its own; of another number it needs them. An interrupted run with the same
    inputs and settings resumes; a finished one is loaded. `device` is auto (a GPU where gsplat can draw on
    one, else the CPU), cpu, cuda or cuda:INDEX, also for a run that began on another one; the scene that is
    returned is drawn there. `threads` are those of the CPU's kernels (None: as many as cores). With
    `completion` what the first fit leaves unseen is completed and fitted again; the first fit stays in
    `out`/first. `refine_cameras` searches the orbit of a video without cameras by its silhouettes and fits a
    free pose per camera (`refine_cameras/`); None searches only where the default orbit of a bare video does
    not fit. A video of `orbit4d novel-view` brings its cameras and how far each pixel is known;
    `confidence_hidden` is what pixels count that its inputs do not show. Raises InputError, one line, for
    input that cannot be fitted; nothing is written then.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r}: choose from {', '.join(PRESETS)}")
    if completion is not None and refine_cameras:
        raise InputError(
            "--complete with --refine-cameras: views are completed at the cameras as given; refine them in a "
            "run of their own, and give its cameras.json with --cameras"
        )
    chosen, on = settings or PRESETS[preset], choose_device(device)
    folder = local_path(out)
    _check_out(folder)
    edge = max(MAX_EDGE, chosen.resolution)
    inputs = read_inputs(
        video_or_frames, static, cameras, static_cameras, static_time, spec, mask, matte, edge, views,
        confidence_hidden,
    )  # fmt: skip
    inputs = replace(
        inputs,
        dynamic=inputs.dynamic.resized(chosen.resolution),
        static=inputs.static.resized(chosen.resolution) if inputs.static is not None else None,
        held_out={name: frames.resized(chosen.resolution) for name, frames in inputs.held_out.items()},
    )
    posed, inputs = inputs.dynamic.posed, _searched(inputs, spec, refine_cameras)
    chosen = affordable(for_views(exposed(anchored(chosen, inputs), inputs), inputs), inputs.notes)
    run: dict[str, Any] = {"settings": chosen.as_config(), "seed": seed, "input_sha256": fingerprint(inputs)}
    # On the cameras of its static orbit, which are known, nothing of a video's is left to refine.
    if refine_cameras and inputs.dynamic.posed == posed:
        run["refine_cameras"] = True
    whole = run if completion is None else {**run, "completion": completion.as_config()}
    if (scene := _finished(folder, whole)) is not None:
        print(f"{folder}: already finished")
        return scene.to(on)
    for note in inputs.notes:
        print(note)
    with alone(threads) as used:
        print(describe_device(on, used))
        if completion is None:
            return _fitted(folder, inputs, chosen, seed, run, on)
        make = completer(completion)
        first = _finished(folder / "first", run)
        if first is None:
            first = _fitted(folder / "first", inputs, chosen, seed, run, on)
        write_json(folder / "run.json", whole)
        return _completed(folder, first.to(on), inputs, chosen, seed, whole, on, completion, make)


def _fitted(
    folder: Path,
    inputs: Inputs,
    chosen: ReconstructionSettings,
    seed: int,
    run: dict[str, Any],
    device: torch.device,
) -> Scene:
    """The scene of checked inputs, fitted, measured and written to `folder`."""
    world = find_world((inputs.dynamic, inputs.static), is_open(inputs))
    fitted = in_world(inputs, world)
    checkpoint = folder / "checkpoint.pt"
    if run.get("refine_cameras"):
        fitted = _refined(fitted, chosen, seed)
        inputs = _out_of(world, inputs, fitted)
    # The cameras are checked before anything is written.
    start = None if checkpoint.exists() else first_gaussians(fitted, chosen, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", run)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
    gains = exposure_of(inputs.dynamic, inputs.static) if chosen.exposure else None
    if start is None:
        fit = load_checkpoint(checkpoint, chosen, gains, device)
    else:
        fit = new_fit(start, chosen, seed, gains, device)
    optimize.optimise(fit, fitted.dynamic, fitted.static, chosen, checkpoint, folder / "log.jsonl")

    scene = as_scene(fit, inputs, chosen, world)
    scene.info |= {"run": run, "source": named(inputs.dynamic.name), "notes": named(inputs.notes)}
    scene.info["device"] = describe_device(device).removeprefix("device ")
    scene.save(folder)
    checkpoint.unlink(missing_ok=True)
    return scene


def _completed(
    folder: Path, first: Scene, inputs: Inputs, settings: ReconstructionSettings, seed: int,
    run: dict[str, Any], device: torch.device, completion: CompletionSettings, make: Completer,
) -> Scene:  # fmt: skip
    """Complete what a first scene leaves unseen, fit again, and report both, also where it does not help."""
    begun = clock.monotonic()
    fitted = in_world(inputs, first.world)
    train = [fitted.dynamic, *([fitted.static] if fitted.static is not None else [])]
    made = make(in_fit(first), train, completion, seed)
    before = far_scores(first, inputs)
    scene = replace(first, info=dict(first.info), metrics=dict(first.metrics))
    if made.frames is not None:
        fit, used = refitted(first, fitted, made.frames, settings, seed, device)
        scene = as_scene(fit, inputs, used, first.world)
        scene.info |= {k: first.info[k] for k in ("source", "notes", "device") if k in first.info}
    scene.info["run"] = run
    seconds = round(clock.monotonic() - begun, 2)
    about = {"before": before, "after": far_scores(scene, inputs), "seconds": seconds}
    scene.metrics["completion"] = {**completion.as_config(), **made.report, **about}
    scene.save(folder)
    return scene


def _searched(inputs: Inputs, spec: OrbitSpec | None, refine: bool | None) -> Inputs:
    """The inputs on an orbit that their silhouettes fit, where that is asked for, or where a bare video does
    not fit the default one.
    """
    if refine is False or (refine is None and (inputs.dynamic.posed or spec not in (None, OrbitSpec()))):
        return inputs
    seen = (inputs.static or inputs.dynamic).resized(_GLANCE)
    if refine is None and carve(seen, _GLANCE // 2, agree=1.0).coverage >= _UNSURE:
        return inputs
    found = with_found_orbit(inputs, spec, refine is None)
    if found.static is None:
        return found
    video = on_static_orbit(found.dynamic, found.static)
    return replace(found, dynamic=video, notes=[*found.notes, *video.notes[len(found.dynamic.notes) :]])


def _refined(fitted: Inputs, settings: ReconstructionSettings, seed: int) -> Inputs:
    """Inputs in the world of the fit with free poses; made again, to the same bits, by a resumed run."""
    refined = refine_poses(fitted, first_gaussians(fitted, settings, seed), settings, seed)
    print(refined.notes[-1])
    return refined


def _out_of(world: World, inputs: Inputs, fitted: Inputs) -> Inputs:
    """The refined cameras of `fitted` in the world of the given ones."""
    x, y, z = (-np.array(world.centre) / world.scale).tolist()
    back = World(1 / world.scale, (x, y, z)) if world else World()
    static = None if fitted.static is None else frames_in(back, fitted.static)
    dynamic = frames_in(back, fitted.dynamic)
    return replace(inputs, dynamic=dynamic, static=static, held_out=following(inputs, dynamic.cameras))


def _fits(inputs: Inputs) -> float:
    """Coverage of the silhouettes by the hull below which cameras are said not to fit."""
    return _FIT_STATIC if inputs.static is not None else _FIT_DYNAMIC


def in_world(inputs: Inputs, world: World) -> Inputs:
    """The inputs in the world of the fit; notes are shared, and one tells of a world that is another."""
    if not world:
        return inputs
    inputs.notes.append(f"{world}: it is scaled and moved for the fit, the scene keeps the given cameras")
    print(inputs.notes[-1])
    still = None if inputs.static is None else frames_in(world, inputs.static)
    return replace(inputs, dynamic=frames_in(world, inputs.dynamic), static=still)


def as_scene(fit: Fit, inputs: Inputs, settings: ReconstructionSettings, world: World) -> Scene:
    """The measured scene of a finished fit."""
    orbit = inputs.dynamic
    scene = Scene(fit.gaussians, fit.field.requires_grad_(False), orbit.cameras, orbit.time)
    scene.world, scene.eps2d = world, settings.eps2d
    if fit.exposure is not None:
        gains = fit.exposure.gains()
        scene.info["exposure"] = {"video": gains[: len(orbit)], "static": gains[len(orbit) :]}
    if inputs.views is not None:
        scene.info["capture"] = inputs.views.record
    scene.metrics = measure(scene, inputs)
    scene.metrics |= {"seconds": round(fit.seconds, 2), "n_gaussians": len(fit.gaussians)}
    if fit.stage == "fine" and fit.step < settings.fine_steps:
        scene.metrics["stopped"] = (
            f"stopped after {fit.step} of {settings.fine_steps} fine steps: the loss of whole passes had not "
            f"fallen for {settings.patience}"
        )
    if fit.restarts:
        scene.metrics["restarted"] = (
            f"the motion had left all views at fine step {fit.restarts[-1]} and was begun again, "
            f"at {2 ** -len(fit.restarts):g} of its rate"
        )
    still = None if inputs.static is not None else _of_still(fit)
    if (why := failure(scene.metrics["psnr_train"], orbit, still)) is not None:
        scene.metrics["failed"] = why
    return scene


def _of_still(fit: Fit) -> float | None:
    """PSNR of the views as if the object stood still, where the coarse stage saw them so."""
    rows = [row for row in fit.history if row["stage"] == "coarse"]
    return float(rows[-1]["psnr"]) if rows else None


def exposed(settings: ReconstructionSettings, inputs: Inputs) -> ReconstructionSettings:
    """Exposure decided where it is left open: on for a static orbit that may be lit unlike the video."""
    if settings.exposure is not None:
        return settings
    return replace(settings, exposure=inputs.static is not None and not inputs.one_light)


def for_views(settings: ReconstructionSettings, inputs: Inputs) -> ReconstructionSettings:
    """Settings of synchronised cameras: the time at which the shape is found is part of the video, and an
    open scene has no mattes to fit. Where enough cameras see every time, nodes are held less and each
    Gaussian may differ.
    """
    if inputs.views is None:
        return settings
    # Muon was measured on single orbits alone.
    settings = replace(settings, static_share=0.0, rates=replace(settings.rates, hidden=0.0))
    if is_open(inputs):
        return replace(settings, weights=replace(settings.weights, alpha=0.0))
    if not _freely_moved(settings, inputs):
        return settings
    keys = key_times(inputs.dynamic.time)
    weights = settings.weights
    return replace(
        settings,
        weights=replace(weights, rigidity=weights.rigidity / 10, smoothness=weights.smoothness / 10),
        deformation={**settings.deformation, "kind": "residual", "keys": keys},
    )


def _freely_moved(settings: ReconstructionSettings, inputs: Inputs) -> bool:
    """Whether each time was seen by `FREE_CAMERAS`, in the median, and the settings move by nodes alone."""
    seen = Counter(inputs.dynamic.time)
    enough = len(seen) > 1 and float(np.median(list(seen.values()))) >= FREE_CAMERAS
    return enough and settings.deformation["kind"] == "nodes" and not settings.density.every


def is_open(inputs: Inputs) -> bool:
    """Whether the background is kept."""
    return inputs.views is not None and inputs.views.open_scene


def anchored(settings: ReconstructionSettings, inputs: Inputs) -> ReconstructionSettings:
    """With a static orbit the canonical shape is the shape it shows: the field is the identity there.

    Nodes of one orbit then go on smooth paths from all times of rest (`PathField`); those of several cameras,
    of an object that leaves its place, and nodes with an `anchor` of their own, stay a network.
    """
    field = settings.deformation
    if inputs.static is None or field["kind"] != "nodes" or "anchor" in field:
        return settings
    if inputs.views is not None or not stays(inputs.dynamic, inputs.static):
        return replace(settings, deformation={**field, "anchor": inputs.static.time[0]})
    rests = rest_times(inputs.dynamic, inputs.static)
    paths: dict[str, Any] = {
        "kind": "paths",
        "keys": key_times([*inputs.dynamic.time, *rests]),
        "rests": rests,
    }
    paths |= {name: field[name] for name in ("n_nodes", "neighbours") if name in field}
    return replace(settings, fine_steps=round(settings.path_share * settings.fine_steps), deformation=paths)


def affordable(settings: ReconstructionSettings, notes: list[str]) -> ReconstructionSettings:
    """The settings without LPIPS where its weights are absent; reports it."""
    why = why_no_lpips() if settings.weights.lpips else None
    if why is None:
        return settings
    notes.append(f"LPIPS is left out of the loss: {why}")
    return replace(settings, weights=replace(settings.weights, lpips=0.0))


def _check_out(folder: Path) -> None:
    """Refuse a folder that holds something else than a scene."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder as --out")
    known = ("scene.json", "run.json", "first/run.json")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in known):
        raise InputError(f"{folder}: holds other files; give an empty or new folder as --out")


def _finished(folder: Path, run: dict[str, Any]) -> Scene | None:
    """The scene when the folder holds it finished; None when there is work left. Another run is refused."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict):
        raise InputError(
            f"{path}: damaged, so that nothing can go on from it; remove {folder}, or give another --out"
        )
    if held != json.loads(json.dumps(run)):
        key = next((k for k in run if held.get(k) != json.loads(json.dumps(run[k]))), "settings")
        raise InputError(f"{folder}: holds a scene made with another {key}; give another --out")
    return load_scene(folder) if (folder / "scene.json").exists() else None


def fingerprint(inputs: Inputs) -> str:
    """SHA-256, hex, of images, cameras, times and confidence: what a checkpoint belongs to."""
    digest = hashlib.sha256()
    for frames in (inputs.dynamic, inputs.static):
        if frames is not None:
            digest.update(np.ascontiguousarray(frames.rgba).tobytes())
            for camera, t in zip(frames.cameras, frames.time):
                digest.update(camera.c2w.tobytes() + np.array([*camera.intrinsics, t], float).tobytes())
            if frames.confidence is not None:
                digest.update(np.ascontiguousarray(frames.confidence).tobytes())
    return digest.hexdigest()


def first_gaussians(inputs: Inputs, settings: ReconstructionSettings, seed: int) -> Any:
    """Gaussians on the visual hull (static orbit if given). Says when the cameras do not fit."""
    if is_open(inputs):
        return _open_gaussians(inputs, settings, seed)
    hull = start_hull(inputs)
    limit = _fits(inputs)
    if len(hull.points) < 4 or hull.coverage < 0.4:
        raise InputError(
            f"{inputs.dynamic.name}: the silhouettes share no common volume (hull covers "
            f"{hull.coverage:.0%}): the cameras do not fit this video; {_advice(inputs.dynamic)}"
        )
    if hull.coverage < limit:
        inputs.notes.append(
            f"the visual hull covers only {hull.coverage:.0%} of the silhouettes: the cameras may not fit; "
            + _advice(inputs.dynamic)
        )
        print(inputs.notes[-1])
    points, colors = sample_surface(hull, settings.n_gaussians, np.random.default_rng(seed))
    return from_points(points, colors, sh_degree=settings.sh_degree)


def _open_gaussians(inputs: Inputs, settings: ReconstructionSettings, seed: int) -> Any:
    """Gaussians of an open scene, where the cameras of one time agree on depth."""
    assert inputs.views is not None
    if inputs.static is None:
        raise InputError(
            f"{inputs.dynamic.name}: --matte none needs a time that {LEAST_CAMERAS} cameras or more saw"
        )
    world, depths = find_world((inputs.views.train, inputs.views.still), True), inputs.views.depths
    within = None if depths is None else (depths[0] / world.scale, depths[1] / world.scale)
    points, colors = sweep(inputs.static, settings.n_gaussians, np.random.default_rng(seed), within)
    return from_points(points, colors, sh_degree=settings.sh_degree)


def _advice(frames: Frames) -> str:
    """What to check where silhouettes and cameras disagree."""
    if frames.posed:
        return "check that the given ones are camera-to-world with OpenGL axes, and belong to these frames"
    return "check --orbit, --radius, --fov, --elevation or give --cameras"


def start_hull(inputs: Inputs) -> Hull:
    """Hull of the static orbit, else of the dynamic one with fewer views that must agree."""
    if inputs.static is not None:
        hull = carve(inputs.static, agree=1.0)
        for agree in (0.9, 0.8):
            # Of several cameras one may have a matte with a hole, or a codec's edge.
            if inputs.views is None or hull.coverage >= _FIT_STATIC:
                break
            hull = carve(inputs.static, agree=agree)
        return hull
    # What moves is outside the hull of some times: ask for fewer views until something is left.
    hull = carve(inputs.dynamic, agree=0.9)
    for agree in (0.8, 0.7):
        if hull.coverage >= _FIT_DYNAMIC:
            break
        hull = carve(inputs.dynamic, agree=agree)
    return hull


def with_steps(
    settings: ReconstructionSettings, coarse: int | None, fine: int | None
) -> ReconstructionSettings:
    """The settings with other numbers of steps where given."""
    return replace(
        settings,
        coarse_steps=settings.coarse_steps if coarse is None else coarse,
        fine_steps=settings.fine_steps if fine is None else fine,
    )
