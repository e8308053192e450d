"""The player's file: a JSON header and arrays, compressed together. `unpacking.js` reads it.

    4 bytes "O4DV", u32 length of the header, the header (JSON, padded to 4), arrays one after the other

Arrays of more than a byte a number are stored as byte planes (all lowest bytes, then the next), which deflate
far better. The whole is a gzip stream.
"""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.export.html.motion import Motion, motion_of
from orbit4d.recon4d.export.packing import unit_quats
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene

Array = npt.NDArray[Any]
MAGIC = b"O4DV"
#: Harmonics are stored from -1 to 1 in a byte; beyond, they are clipped.
_HARMONIC_RANGE = 1.0


def player_data(
    scene: Scene, times: int | None = None, quantised: bool = True, seconds: float = 2.0
) -> tuple[bytes, Motion]:
    """The file of a scene, and the motion in it. `quantised`: 25 bytes a Gaussian rather than float32."""
    motion = motion_of(scene, times)
    arrays: dict[str, Array] = {}
    header = _pack_gaussians(motion.gaussians or scene.gaussians, arrays, quantised)
    header |= _pack_motion(motion, arrays, quantised)
    header |= {"version": 1, "seconds": seconds, "eps2d": scene.eps2d, "view": _first_view(scene)}
    given, body = [], b""
    for name, array in arrays.items():
        kind = array.dtype.str.lstrip("<|")
        planes = np.ascontiguousarray(array).view(np.uint8).reshape(array.size, array.itemsize).T
        given.append({"name": name, "type": kind, "length": array.size})
        body += planes.tobytes()
    text = json.dumps({**header, "arrays": given}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    whole = MAGIC + struct.pack("<I", len(text)) + text + body
    return gzip.compress(whole, 9, mtime=0), motion


def _pack_gaussians(g: Gaussians, arrays: dict[str, Array], quantised: bool) -> dict[str, Any]:
    means, logs = g.means.double().numpy(), g.log_scales.double().numpy()
    # As the rasteriser draws: without harmonics colours end at 0 and 1.
    colors = g.colors.double().numpy()
    colors = colors if g.sh_degree else colors.clip(0, 1)
    harmonics, opacities = g.harmonics.double().numpy(), g.opacities.double().numpy()
    header: dict[str, Any] = {"count": len(g), "degree": g.sh_degree, "quantised": quantised}
    if not quantised:
        for name, array in (
            ("means", means), ("quats", unit_quats(g)), ("logs", logs), ("colors", colors),
            ("opacities", opacities), ("harmonics", harmonics),
        ):  # fmt: skip
            arrays[name] = array.astype("<f4")
        return header
    for name, array, levels, kind in (
        ("means", means, 65535, "<u2"), ("logs", logs, 255, "u1"), ("colors", colors, 255, "u1"),
    ):  # fmt: skip
        low, high = array.min(0), array.max(0)
        header[name] = {"low": low.tolist(), "high": high.tolist()}
        share = (array - low) / np.where(high > low, high - low, 1.0)
        arrays[name] = np.round(share * levels).astype(kind)
    # The largest component positive, all at 16 bits: 2-10-10-10 bits are seen at the rims of long Gaussians.
    arrays["quats"] = np.round(unit_quats(g) * 32767).astype("<i2")
    arrays["opacities"] = np.round(opacities * 255).astype("u1")
    coded = np.clip(np.round((harmonics / _HARMONIC_RANGE + 1) * 127.5), 0, 255)
    arrays["harmonics"] = coded.astype("u1")
    return header


def _pack_motion(motion: Motion, arrays: dict[str, Array], quantised: bool) -> dict[str, Any]:
    # A skeleton has few joints, which turn far: half floats would be off by a thousandth of the object.
    halves = quantised and motion.kind != "bones"
    arrays["motion"] = motion.values.astype("<f2" if halves else "<f4")
    if motion.kind in ("nodes", "bones"):
        arrays["nodes"] = motion.index.astype("<u2")
        arrays["weights"] = _shared_out(motion.weights) if quantised else motion.weights.astype("<f4")
    units = motion.values.shape[1]
    return {"motion": {"kind": motion.kind, "times": motion.times, "units": units, "error": motion.error}}


def _shared_out(weights: Array) -> Array:
    """Weights in bytes; the player makes their sum 1."""
    return np.round(weights / np.maximum(weights.max(1, keepdims=True), 1e-9) * 255).astype("u1")


def _first_view(scene: Scene) -> dict[str, Any]:
    """Where the player's camera starts, in the world of the fit: that of the first training view."""
    if not scene.cameras:
        return {"azimuth": 0.0, "elevation": 0.2, "distance": 2.0, "fov": 0.69}
    camera = scene.world.camera(scene.cameras[0])
    x, y, z = camera.position
    distance = float(np.linalg.norm(camera.position))
    return {
        "azimuth": float(np.arctan2(x, -y)),
        "elevation": float(np.arcsin(np.clip(z / max(distance, 1e-9), -1, 1))),
        "distance": distance,
        "fov": float(2 * np.arctan(camera.h / 2 / camera.fl_y)),
    }
