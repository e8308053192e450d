"""Where Gaussians start: a grey ball, or a still object from a scene, a dataset or an asset."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from orbit4d.compose.animate.priors.truth import still_field
from orbit4d.compose.animate.settings import Settings
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_dataset
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.reference import is_reference, open_reference
from orbit4d.recon4d.composition import load_scene
from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.reconstruction import first_gaussians
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.fitting.state import new_fit
from orbit4d.recon4d.gaussians import Gaussians, from_points
from orbit4d.recon4d.inputs.loading import Frames, from_clip
from orbit4d.recon4d.scene import Scene

#: Steps of the coarse stage that fits a still object, and pixels of its views.
STEPS, SIZE = 880, 256
ASSETS = (
    ".glb", ".gltf", ".fbx", ".blend", ".usd", ".usda", ".usdc", ".usdz", ".obj", ".ply", ".abc", ".dae",
    ".stl",
)  # fmt: skip


def ball(settings: Settings, seed: int) -> Gaussians:
    """Grey Gaussians drawn evenly in a ball, faint."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(settings.n_gaussians, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = settings.start_radius * rng.random((settings.n_gaussians, 1)) ** (1 / 3)
    grey = np.full((settings.n_gaussians, 3), 0.5)
    return from_points(directions * radii, grey, opacity=settings.start_opacity)


def still_scene(source: str, seed: int) -> tuple[Scene, list[str]]:
    """The still object of `--static`, and notes on what was done.

    Raises:
        InputError: no scene, a dataset without a static orbit, an asset without geometry, or several.
    """
    place = Path(source).expanduser()
    if is_reference(source) and not place.exists():
        dataset, uid, action = open_reference(source)
        return _of_clip(dataset, uid, action, seed)
    if place.suffix.lower() in ASSETS:
        return _of_asset(place, seed)
    if not place.exists():
        raise InputError(f"--static {source}: no such file; give a scene, DATASET:uid or an asset file")
    if is_dataset(place):
        raise InputError(f"--static {source}: is a dataset; name one object in it: {source}:uid")
    scene = load_scene(place)
    g = scene.at(0.0)
    notes = [f"still object: {source} at time 0, {len(g)} Gaussians; its field is dropped"]
    if g.sh_degree:
        notes.append("its colours' dependence on the direction is dropped")
        g = Gaussians(g.means, g.log_scales, g.quats, g.logits, g.colors)
    still = Scene(g, still_field(), scene.cameras, scene.time, eps2d=scene.eps2d)
    return still, notes


def _of_clip(dataset: str, uid: str, action: str, seed: int) -> tuple[Scene, list[str]]:
    try:
        clip = read_clip(dataset, uid, action, "static_orbit", 0)
    except InputError as error:
        raise InputError(f"--static {dataset}:{uid}: no static orbit to start from ({error})") from None
    g = fit_still(from_clip(clip), seed)
    return Scene(g, still_field()), [
        f"still object: static orbit of {dataset}:{uid} ({len(clip.cameras)} views), {len(g)} Gaussians"
    ]


def fit_still(frames: Frames, seed: int) -> Gaussians:
    """The coarse stage of recon4d on a static orbit."""
    frames = frames.resized(SIZE).at_time(0.0)
    settings = replace(PRESETS["fast"], coarse_steps=STEPS, fine_steps=0, deform_from=1.0, exposure=False)
    start = first_gaussians(Inputs(frames, frames, {}, []), settings, seed)
    fit = new_fit(start, settings, seed)
    optimize.optimise(fit, frames, frames, settings)
    return fit.gaussians.detached()


def _of_asset(path: Path, seed: int) -> tuple[Scene, list[str]]:
    """Render a static orbit of an asset, then as from a dataset."""
    from orbit4d.render.dataset.render_assets import render_assets
    from orbit4d.render.fleet.settings import FleetSettings
    from orbit4d.render.planning.settings import preset

    if not path.is_file():
        raise InputError(f"--static {path}: no such file")
    with tempfile.TemporaryDirectory(prefix="orbit4d-animate-") as folder:
        out = str(Path(folder) / "dataset")
        settings = preset("draft", rigs=("static_orbit",), resolution=SIZE, frames=24)
        summary = render_assets([str(path)], out, settings, FleetSettings(workers=1))
        index = Index(out)
        if len(index) == 0:
            raise InputError(f"--static {path}: nothing could be rendered of it ({summary})")
        first = index.row(0)
        scene, _ = _of_clip(out, str(first["uid"]), str(first["action"]), seed)
    return scene, [f"still object: {path} rendered from 24 views, {len(scene.gaussians)} Gaussians"]


def to_device(gaussians: Gaussians, device: torch.device) -> Gaussians:
    """Copies on a device, without gradient."""
    return gaussians.detached().to(device)
