"""D-NeRF and N3DV reconstructed here: the training views are fitted, the layout's test views are measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.evaluate.benchmarks.images import MARKS, RECALLED, Test, measured
from orbit4d.evaluate.benchmarks.result import Benchmark, folders_in
from orbit4d.evaluate.metrics.suite import Suite
from orbit4d.evaluate.tasks.frames import Frames, on_background
from orbit4d.recon4d import Scene, ViewOptions, reconstruct
from orbit4d.recon4d.fitting.inputs import read_inputs
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.inputs import loading
from orbit4d.recon4d.inputs.footage import MAX_EDGE

#: How the background of a layout is read: D-NeRF has alpha, N3DV is of whole rooms.
MATTE = {"dnerf": "flat", "n3dv": "none"}


def run(
    name: str, root: Path, folder: Path, suite: Suite, settings: ReconstructionSettings, device: str = "auto"
) -> Benchmark:
    """Reconstruct every scene of `dnerf` or `n3dv` into `folder` and measure its test views."""
    found = measured(name, tests(name, root, folder, settings, device), suite, RECALLED)
    found.protocol |= {"recon4d preset": settings.preset, "resolution": settings.resolution}
    found.protocol |= {"steps": settings.coarse_steps + settings.fine_steps, "matte": MATTE[name]}
    return found


def tests(
    name: str, root: Path, folder: Path, settings: ReconstructionSettings, device: str = "auto", seed: int = 0
) -> Iterator[Test]:
    """The test views of every scene of a layout, drawn by a scene that was fitted to its training views.

    Scenes are kept as `folder`/<scene>; one that is finished is loaded, one that was interrupted is resumed.
    Images are measured at the size of the fit. Raises InputError where `root` is not of the layout, or a
    scene has no test view.
    """
    for place in folders_in(root, MARKS[name]):
        scene = reconstruct(
            str(place), folder / place.name, settings=settings, matte=MATTE[name], device=device, seed=seed,
            views=ViewOptions(layout=name),
        )  # fmt: skip
        held = _held_out(name, place, settings.resolution)
        for label, frames in held.items():
            yield Test(place.name, label, _on_white(frames), _drawn(scene, frames), fvd=name == "n3dv")


def _held_out(name: str, place: Path, resolution: int) -> dict[str, loading.Frames]:
    edge = max(MAX_EDGE, resolution)
    options = ViewOptions(layout=name)
    inputs = read_inputs(
        str(place), None, None, None, 0.0, None, None, MATTE[name], edge, options
    )  # fmt: skip
    if not inputs.held_out:
        raise InputError(
            f"{place}: has no test view that differs from its training views; nothing to measure"
        )
    return {label: frames.resized(resolution) for label, frames in inputs.held_out.items()}


def _on_white(frames: loading.Frames) -> Frames:
    """Frames of recon4d, whose colours are multiplied by alpha."""
    alpha = frames.rgba[..., 3:]
    white = over_premultiplied(frames.rgba[..., :3], alpha, 1.0)
    pixels = np.concatenate([white, alpha], -1).astype(np.float32)
    both = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Frames(both[:, :3].clamp(0, 1), both[:, 3:])


def _drawn(scene: Scene, frames: loading.Frames) -> Frames:
    views = zip(frames.cameras, frames.time, strict=True)
    return on_background(np.stack([scene.render(camera, time) for camera, time in views]))
