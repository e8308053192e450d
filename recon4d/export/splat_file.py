"""The .splat layout of antimatter15/splat: 32 bytes per Gaussian, no header, no harmonics."""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import from_arrays
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

#: Position 3 x float32, standard deviations 3 x float32, RGBA 4 x uint8, rotation w x y z 4 x uint8.
_ROW = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])


def splat_bytes(gaussians: Gaussians) -> bytes:
    """The .splat layout of antimatter15/splat: 32 bytes per Gaussian, largest and most opaque first.

    Position 3 x float32, standard deviations 3 x float32, RGBA 4 x uint8, rotation w x y z 4 x uint8
    (value = 128 + 128 q).
    """
    g = gaussians.detached()
    scales, opacities = g.scales.numpy(), g.opacities.numpy()
    quats = g.quats.numpy()
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    order = np.argsort(-scales.prod(1) * opacities, kind="stable")
    rows = np.zeros(len(g), _ROW)
    rows["position"], rows["scale"] = g.means.numpy()[order], scales[order]
    rgba = np.concatenate([g.colors.clamp(0, 1).numpy(), opacities[:, None]], axis=1)[order]
    rows["rgba"] = (rgba * 255 + 0.5).astype(np.uint8)
    rows["rotation"] = np.clip(np.round(quats[order] * 128 + 128), 0, 255).astype(np.uint8)
    return rows.tobytes()


def read_splat(data: bytes, name: str) -> Gaussians:
    """Inverse of `splat_bytes` within its rounding. InputError for a length that is no number of rows."""
    if not data or len(data) % _ROW.itemsize:
        raise InputError(f"{name}: {len(data)} bytes are no .splat, which has {_ROW.itemsize} a Gaussian")
    rows = np.frombuffer(data, _ROW)
    quats = (rows["rotation"].astype(np.float64) - 128) / 128
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    scales = rows["scale"].astype(np.float64)
    if not (np.isfinite(rows["position"]).all() and np.isfinite(scales).all() and (scales >= 0).all()):
        raise InputError(f"{name}: not a .splat: positions or sizes are not finite, or sizes negative")
    return from_arrays(
        rows["position"],
        np.log(np.maximum(scales, 1e-30)),
        np.where(length > 0, quats / np.maximum(length, 1e-9), (1.0, 0.0, 0.0, 0.0)),
        rows["rgba"][:, 3] / 255.0,
        (rows["rgba"][:, :3] / 255.0 - 0.5) / SH_C0,
    )
