"""A scene in the formats of others: PLY sequence, .splat, .spz, frames of novel views."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

from orbit4d.datasets.errors import InputError
from orbit4d.datasets.progress import track
from orbit4d.recon4d.film import camera_path
from orbit4d.recon4d.gaussians import Gaussians, save_ply
from orbit4d.recon4d.scene import Scene, cameras_record

FORMATS = ("ply-sequence", "splat", "spz", "frames")


def export_scene(
    scene: Scene,
    out: str | Path,
    format: str = "ply-sequence",
    frames: int = 24,
    time: float = 0.0,
    rig: str = "dynamic_orbit",
    size: int = 256,
) -> list[Path]:
    """Write the scene; returns the files.

    ply-sequence: out/000.ply ... at `frames` times. splat, spz: one file, the moment `time`. frames: straight
    RGBA PNGs along the path `rig` with transforms.json. Raises InputError for an unknown format.
    """
    target = Path(out)
    if format == "splat":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(splat_bytes(scene.at(time)))
        return [target]
    if format == "spz":
        return [_write_spz(scene.at(time), target)]
    if format not in FORMATS:
        raise InputError(f"--format {format}: choose from {', '.join(FORMATS)}")
    target.mkdir(parents=True, exist_ok=True)
    written = []
    if format == "ply-sequence":
        for i in track(range(frames), "export", unit="file"):
            path = target / f"{i:03d}.ply"
            save_ply(scene.at(i / max(frames - 1, 1)), path)
            written.append(path)
        return written
    path_ = camera_path(rig, frames, size)
    for i, (camera, t) in enumerate(track(path_, "export", unit="frame")):
        path = target / f"{i:03d}.png"
        rgba = (scene.render(camera, t) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(rgba).save(path)
        written.append(path)
    record = cameras_record([c for c, _ in path_], [t for _, t in path_])
    for entry, path in zip(record["frames"], written):
        entry["file_path"] = path.name
    (target / "transforms.json").write_text(json.dumps(record, indent=1))
    return written


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
    rows = np.zeros(
        len(g), dtype=[("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)]
    )
    rows["position"], rows["scale"] = g.means.numpy()[order], scales[order]
    rgba = np.concatenate([g.colors.clamp(0, 1).numpy(), opacities[:, None]], axis=1)[order]
    rows["rgba"] = (rgba * 255 + 0.5).astype(np.uint8)
    rows["rotation"] = np.clip(np.round(quats[order] * 128 + 128), 0, 255).astype(np.uint8)
    return rows.tobytes()


def _write_spz(gaussians: Gaussians, target: Path) -> Path:
    """Through Niantic's own library, which is not on every machine."""
    if importlib.util.find_spec("spz") is None:
        raise InputError(".spz needs Niantic's library: pip install spz; or choose --format splat")
    import spz  # type: ignore[import-not-found]

    g = gaussians.detached()
    cloud = spz.GaussianCloud()
    cloud.positions = g.means.numpy().ravel()
    cloud.scales = g.log_scales.numpy().ravel()
    # spz keeps rotations as x y z w.
    cloud.rotations = np.roll(g.quats.numpy(), -1, axis=1).ravel()
    cloud.alphas = g.logits.numpy()
    cloud.colors = ((g.colors.numpy() - 0.5) / 0.28209479177387814).ravel()
    target.parent.mkdir(parents=True, exist_ok=True)
    spz.save_spz(cloud, spz.PackOptions(), str(target))
    return target
