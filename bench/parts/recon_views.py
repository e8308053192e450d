"""Synchronised cameras x times: `bench/recon.py --cameras 4,8,16 --dataset DATASET --assets UID:ACTION`.

The dataset holds a ring of cameras (`--rigs ring:16@15`) and a rig of held-out ones (`--cameras held.json`).
Of the ring every k-th camera is trained on. Beside the fit stand the same images through the path of one
orbit (no time where the shape is found, times as if every image were one), and static Gaussians of single
times. Every number is PSNR in dB on white, mean over the held-out cameras' images.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting import reconstruction as rec
from orbit4d.recon4d.fitting.scores import each_compared, renders
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.fitting.state import new_fit
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.inputs.open_views import ViewOptions
from orbit4d.recon4d.scene import Scene

Show = Callable[[dict[str, Any]], dict[str, Any]]


def rows(
    reference: str, settings: ReconstructionSettings, counts: Sequence[int], wanted: Sequence[str], rig: str,
    held: str, moments: int, show: Show, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one action: a fit and its baselines per number of cameras."""
    found = []
    for count in counts:
        inputs = grid(reference, count, rig, held, settings.resolution)
        name = f"{reference.split(':', 1)[1]}, {count} cameras"
        if "fit" in wanted:
            chosen = rec.for_views(rec.anchored(settings, inputs), inputs)
            found.append(show(fitted(name, "fit", inputs, chosen, seed)))
        if "orbit" in wanted:
            alone = rec.Inputs(inputs.dynamic, None, inputs.held_out, [])
            found.append(show(fitted(name, "path of one orbit", alone, settings, seed)))
        if "moments" in wanted:
            found.append(show(of_moments(name, inputs, settings, moments, seed)))
    return found


def grid(reference: str, count: int, rig: str, held: str, resolution: int) -> rec.Inputs:
    """Every k-th camera of the ring, and the held-out rig."""
    options = ViewOptions(sync=rig, hold_cameras=held)
    inputs = rec.read_inputs(reference, None, None, None, 0.0, None, None, options=options)
    labels = list(dict.fromkeys(inputs.dynamic.labels))
    kept = set(labels[:: len(labels) // count][:count])
    train = inputs.dynamic.picked([i for i, label in enumerate(inputs.dynamic.labels) if label in kept])
    assert inputs.static is not None
    still = inputs.static.picked([i for i, label in enumerate(inputs.static.labels) if label in kept])
    small = {name: frames.resized(resolution) for name, frames in inputs.held_out.items()}
    return replace(
        inputs, dynamic=train.resized(resolution), static=still.resized(resolution), held_out=small
    )


def fitted(
    name: str, what: str, inputs: rec.Inputs, settings: ReconstructionSettings, seed: int
) -> dict[str, Any]:
    """A row of one fit."""
    wall, cpu = time.monotonic(), time.process_time()
    scene = fit_of(inputs, settings, seed)
    row: dict[str, Any] = {
        "asset": name, "what": what, "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1), "seed": seed,
    }  # fmt: skip
    row["train"], row["train_ssim"] = rec.score(scene, inputs.dynamic)
    scores = [rec.score(scene, frames) for frames in inputs.held_out.values()]
    row["held out"], row["held out_ssim"] = np.mean(scores, axis=0).tolist()
    row |= {label: score[0] for label, score in zip(inputs.held_out, scores)}
    return row


def fit_of(inputs: rec.Inputs, settings: ReconstructionSettings, seed: int) -> Scene:
    with contextlib.redirect_stderr(io.StringIO()):
        fit = new_fit(rec.first_gaussians(inputs, settings, seed), settings, seed)
        optimize.optimise(fit, inputs.dynamic, inputs.static, settings)
    return Scene(fit.gaussians, fit.field.requires_grad_(False), inputs.dynamic.cameras, inputs.dynamic.time)


def of_moments(
    name: str, inputs: rec.Inputs, settings: ReconstructionSettings, moments: int, seed: int
) -> dict[str, Any]:
    """Static Gaussians of single times, evenly spread over the clip: nothing is shared over time."""
    times = np.unique(inputs.dynamic.time)
    picked = times[np.linspace(0, len(times) - 1, moments + 2).round().astype(int)[1:-1]]
    still = replace(settings, coarse_steps=2 * settings.coarse_steps, fine_steps=0, deform_from=2.0)
    wall, cpu, scores = time.monotonic(), time.process_time(), []
    for t in picked:
        own = at(inputs.dynamic, float(t))
        held = {label: at(frames, float(t)) for label, frames in inputs.held_out.items()}
        seen = rec.Inputs(own, own, held, [])
        scene = fit_of(seen, still, seed)
        scores += [p for frames in held.values() for p in each_compared(renders(scene, frames), frames)[0]]
    return {
        "asset": name, "what": f"static Gaussians of {moments} moments",
        "seconds": round(time.monotonic() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
        "held out": float(np.mean(scores)),
    }  # fmt: skip


def at(frames: Frames, t: float) -> Frames:
    return frames.picked([i for i, own in enumerate(frames.time) if abs(own - t) < 1e-6])
