"""Control videos: what a clip stores beside its colours, as images that a control model reads.

Each kind is a function of a clip at the export's size; it gives RGB frames and the numbers that undo the
mapping, none called like a kind, since a VideoFolder has columns of those names. `flow` and `tracks` come
from the dataset's geometry (geometry_controls.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.fitting import Fit
from orbit4d.datasets.exports.geometry_controls import (
    GEOMETRY_CONTROLS,
    check_geometry_control,
    geometry_control,
)
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.clip import Clip

Frames = npt.NDArray[np.uint8]
#: (clip, where its pixels go, depth mapping) -> (uint8 [F, H, W, 3], numbers for the metadata).
Control = Callable[[Clip, Fit, str], tuple[Frames, dict[str, Any]]]

_REGISTERED: dict[str, Control] = {}


def register(kind: str, make: Control) -> None:
    """Serve `--control kind` by `make`; a later registration wins."""
    _REGISTERED[kind] = make


def check_control(kind: str, index: Index, row: Mapping[str, Any], name: str) -> None:
    """Raise InputError where clip `name`, an index row, has no such control."""
    if kind in GEOMETRY_CONTROLS:
        check_geometry_control(kind, index, row, name)
    stored = {pass_name for pass_name, _ in row["passes"] or []}
    if kind in ("depth", "normal") and kind not in stored:
        raise InputError(f"{name}: stores no {kind}; render with --passes {kind}, or leave --control out")


def control_frames(
    kind: str, index: Index, clip: Clip, fit: Fit, depth: str
) -> tuple[Frames, dict[str, Any]]:
    """uint8 [F, H, W, 3] of a kind, and what its metadata say."""
    if kind in GEOMETRY_CONTROLS:
        frames, facts = geometry_control(kind, index, clip)
        return fit.nearest(frames), facts
    return _REGISTERED[kind](clip, fit, depth)


def _depth(clip: Clip, fit: Fit, mapping: str) -> tuple[Frames, dict[str, Any]]:
    """Near is bright. Ends are percentiles of 1/z over the whole clip (2, 98), so nothing flickers."""
    z = fit.nearest(clip.pass_arrays("depth")).astype(np.float64)
    covered = np.isfinite(z) & (z > 0)
    if not covered.any():
        return _grey(np.zeros(z.shape)), {"depth_mapping": mapping, "z_near": None, "z_far": None}
    inverse = np.where(covered, 1.0 / np.where(covered, z, 1.0), 0.0)
    far, near = np.percentile(inverse[covered], (2, 98))
    values, low, high = (inverse, far, near) if mapping == "inverse" else (-z, -1 / far, -1 / near)
    with np.errstate(invalid="ignore"):
        scaled = (values - low) / (high - low) if high > low else np.ones_like(z)
    grey = np.where(covered, np.clip(np.where(covered, scaled, 0.0), 0.0, 1.0), 0.0)
    return _grey(grey), {"depth_mapping": mapping, "z_near": float(1 / near), "z_far": float(1 / far)}


def _normal(clip: Clip, fit: Fit, mapping: str) -> tuple[Frames, dict[str, Any]]:
    """Axes of the camera: x right, y up, z towards it (OpenGL)."""
    world = fit.nearest(clip.pass_arrays("normal")).astype(np.float64)
    seen = (world != 0).any(-1)
    rotations = np.stack([camera.c2w[:3, :3] for camera in clip.cameras])
    local = np.einsum("fhwi,fij->fhwj", world, rotations)
    rgb = np.where(seen[..., None], np.clip(np.rint(127.5 * (local + 1)), 0, 255), (128, 128, 255))
    return rgb.astype(np.uint8), {"normal_axes": "camera: x right, y up, z towards the camera (OpenGL)"}


def _mask(clip: Clip, fit: Fit, mapping: str) -> tuple[Frames, dict[str, Any]]:
    alpha = fit.smooth(clip.pixels()[..., 3:])[..., 0]
    return _grey((alpha >= 127.5).astype(float)), {}


def _grey(values: npt.NDArray[np.floating]) -> Frames:
    return np.repeat(np.rint(values * 255).astype(np.uint8)[..., None], 3, axis=-1)


register("depth", _depth)
register("normal", _normal)
register("mask", _mask)
