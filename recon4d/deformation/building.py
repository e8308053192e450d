"""A field from what a scene or a run keeps of it."""

from __future__ import annotations

from typing import Any

from orbit4d.recon4d.deformation.field import Deformation, HexPlaneField, NodeField, StillField
from orbit4d.recon4d.deformation.keyframes import KeyframeField
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.residual import ResidualField
from orbit4d.recon4d.deformation.rigs.rigged import RigField
from orbit4d.recon4d.deformation.windows import WindowField


def build_field(config: dict[str, Any]) -> Deformation:
    """A field from its `config`."""
    options = {key: value for key, value in config.items() if key != "kind"}
    if config["kind"] == "hexplane":
        lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
        return HexPlaneField(**{**options, **lists})
    if config["kind"] == "nodes":
        return NodeField(**options)
    if config["kind"] == "paths":
        return PathField(**options)
    if config["kind"] == "residual":
        return ResidualField(**options)
    if config["kind"] == "keyframes":
        return KeyframeField(**{**options, "heads": tuple(options["heads"])})
    if config["kind"] == "still":
        return StillField()
    if config["kind"] == "rigged":
        return RigField(options["action"], tuple(options["window"]), tuple(options["moment"]))
    if config["kind"] == "windows":
        return WindowField(**options)
    raise ValueError(
        f"unknown deformation field {config['kind']!r}; "
        "choose nodes, paths, residual, hexplane, keyframes, rigged, windows or still"
    )
