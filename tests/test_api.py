"""Names that others rely on: they are there, they are no modules, their signatures are as promised."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator
from typing import Any

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


# Docstrings -------------------------------------------------------------------------------------------------

#: Methods without an underscore, and these.
SAID = ("__call__", "__getitem__", "__iter__")
ARRAYS = re.compile(r"NDArray|ndarray|ArrayLike|Tensor")


def spoken(package: str) -> Iterator[tuple[str, Any]]:
    """(name, function) of a package's public functions and of what its public classes define themselves."""
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for method, held in vars(value).items():
                function = held.fget if isinstance(held, property) else getattr(held, "__func__", held)
                if inspect.isfunction(function) and (not method.startswith("_") or method in SAID):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize(
    "package",
    [
        f"orbit4d.{p}"
        for p in [
            "datasets",
            "render",
            "curate",
            "model",
            "model.distill",
            "recon4d",
            "compose",
            "evaluate",
            "app",
        ]
    ],
)
def test_docstrings_name_shapes_and_errors(package: str) -> None:
    """Every public name has one; where arrays or tensors go in or out it has shapes, and it names errors that
    its body raises.
    """
    module = importlib.import_module(package)
    missing = [n for n in module.__all__ if callable(v := getattr(module, n)) and not v.__doc__]
    assert not missing
    for name, function in spoken(package):
        text = inspect.getdoc(function) or ""
        assert text, f"{package}.{name} has no docstring"
        if ARRAYS.search(str(inspect.signature(function))):
            assert re.search(r"\[[^\]]*\]", text), f"{package}.{name}: no shapes"
        if re.search(r"^\s*raise \w+\(", inspect.getsource(function), re.MULTILINE):
            assert re.search(r"Raises|\w+Error", text), f"{package}.{name}: its errors are not named"
