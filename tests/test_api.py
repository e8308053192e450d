"""Names that others rely on: they are there, they are no modules, their signatures are as promised."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types

import pytest

API = {
    "orbit4d.datasets": [
        "Camera",
        "orbit",
        "OrbitDataset",
        "import_diffusion4d",
        "DatasetWriter",
        "read_clip",
    ],
    "orbit4d.curate": ["measure", "decide"],
    "orbit4d.model": ["load_videomv", "videomv_cameras", "OrbitUNet", "OrbitPipeline"],
    "orbit4d.recon4d": ["rasterize", "reconstruct", "load_scene"],
}
SIGNATURES = {
    "orbit4d.datasets.orbit": [
        "n",
        "radius",
        "elevation_deg",
        "fov_x_deg",
        "azimuth0_deg",
        "size",
        "closed",
    ],
    "orbit4d.datasets.OrbitDataset": ["path", "where", "split", "background", "size", "require"],
    "orbit4d.datasets.import_diffusion4d": ["folder_or_tar", "out", "azimuth0_deg"],
    "orbit4d.datasets.read_clip": ["dataset", "uid", "action", "rig", "orbit"],
    "orbit4d.curate.decide": ["table", "rules"],
    "orbit4d.model.load_videomv": ["path", "variant"],
    "orbit4d.recon4d.rasterize": [
        "means",
        "quats",
        "scales",
        "opacities",
        "colors",
        "viewmats",
        "Ks",
        "width",
        "height",
        "near_plane",
        "far_plane",
        "eps2d",
        "sh_degree",
        "backgrounds",
        "render_mode",
        "absgrad",
        "backend",
    ],
    "orbit4d.recon4d.reconstruct": [
        "video_or_frames",
        "out",
        "static",
        "cameras",
        "static_cameras",
        "static_time",
        "preset",
        "seed",
    ],
}


@pytest.mark.parametrize("room", API)
def test_names_are_there_and_stay_there(room: str) -> None:
    """A submodule of the same name would replace a function once it is imported: import them all first."""
    package = importlib.import_module(room)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in ("blender", "__main__") and not module.name.endswith("_main"):
            importlib.import_module(f"{room}.{module.name}")
    for name in API[room]:
        value = getattr(package, name)
        assert not isinstance(value, types.ModuleType), f"{room}.{name} is a module"
        assert callable(value), f"{room}.{name}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_begin_as_promised(name: str) -> None:
    room, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(room), attribute)
    parameters = list(inspect.signature(value).parameters)
    assert parameters[: len(SIGNATURES[name])] == SIGNATURES[name]
