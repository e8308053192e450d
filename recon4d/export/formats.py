"""A scene in the formats of others: PLY sequence, .splat, .spz, frames of novel views."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from orbit4d.datasets.cameras.transforms import cameras_record
from orbit4d.datasets.core.atomic import replacing_file, replacing_folder, write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.core.progress import track
from orbit4d.datasets.core.remote import local_path
from orbit4d.recon4d.export.upright import check_up, turn_camera, turn_gaussians
from orbit4d.recon4d.filming import camera_path
from orbit4d.recon4d.gaussians import EPS2D, SH_C0, Gaussians, save_ply
from orbit4d.recon4d.scene import Scene

FORMATS = ("ply-sequence", "splat", "spz", "frames")
#: Those that are one file, named like their suffix.
_FILES = ("splat", "spz")


def export_scene(
    scene: Scene,
    out: str | Path,
    format: str = "ply-sequence",
    frames: int = 24,
    time: float = 0.0,
    rig: str = "dynamic_orbit",
    size: int | None = None,
    up: str = "z",
) -> list[Path]:
    """Write the scene; returns the files, which appear only when all of them are complete.

    ply-sequence: out/000.ply ... at `frames` times. splat, spz: one file, the moment `time`. frames: straight
    RGBA PNGs along the path `rig` with transforms.json, which `recon4d` reads back. `up` is the axis of the
    written world that points up: z as in ours, or y, (x, y, z) becoming (x, z, -y), as most viewers take it.
    Raises InputError for an unknown format, a suffix of another one, a folder that already holds something,
    and where `out` cannot be written.

    A scene's low-pass stays with it in ply-sequence (a comment of each header); see `unsaid` for the others.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: choose from {', '.join(FORMATS)}")
    if frames < 1:
        raise InputError(f"--frames {frames}: give at least 1")
    if not 0.0 <= time <= 1.0:
        raise InputError(f"--time {time}: give a time in [0, 1]")
    check_up(up)
    target = local_path(out)
    check_suffix(target, format)
    folder = format in ("ply-sequence", "frames")
    if target.is_dir() and (not folder or any(target.iterdir())):
        raise InputError(f"{target}: a folder that holds something; give a new name as --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (replacing_folder if folder else replacing_file)(target) as draft:
            if format == "splat":
                draft.write_bytes(splat_bytes(turn_gaussians(scene.at(time), up)))
            elif format == "spz":
                _write_spz(turn_gaussians(scene.at(time), up), draft)
            elif format == "ply-sequence":
                for i in track(range(frames), "export", unit="file"):
                    upright = turn_gaussians(scene.at(i / max(frames - 1, 1)), up)
                    save_ply(upright, draft / f"{i:03d}.ply", scene.eps2d)
            else:
                _write_views(scene, draft, rig, frames, size, up)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); give another --out") from None
    return naturally(target.iterdir()) if folder else [target]


def check_suffix(out: Path, format: str) -> None:
    """Refuse a name that promises another format than the one asked for."""
    suffix = out.suffix.lower()
    meant = {f".{name}": name for name in _FILES} | {".ply": "ply-sequence"}
    others = (".mp4", ".zip", ".tar", ".gz", ".json", ".png", ".glb", ".gltf", ".ksplat", ".sog")
    if format in _FILES:
        wrong = suffix in meant | dict.fromkeys(others) and suffix != f".{format}"
    else:
        wrong = suffix in meant or suffix in others
    if not wrong:
        return
    kind = f"a file *.{format}" if format in _FILES else "a folder"
    mend = f", or give --format {meant[suffix]}" if meant.get(suffix) in _FILES else ""
    raise InputError(f"{out}: --format {format} writes {kind}; give another --out{mend}")


def unsaid(scene: Scene, format: str) -> str | None:
    """What a format cannot say of the scene, one line; None when nothing is lost."""
    if format in ("splat", "spz") and scene.eps2d != EPS2D:
        return (
            f"--format {format} has no place for the scene's eps2d of {scene.eps2d:g} px²: viewers draw it "
            f"with {EPS2D:g}"
        )
    return None


def _write_views(scene: Scene, folder: Path, rig: str, frames: int, size: int | None, up: str) -> None:
    shots = camera_path(scene, rig, frames, size)
    record = cameras_record([turn_camera(c, up) for c, _ in shots], [t for _, t in shots])
    for i, (camera, t) in enumerate(track(shots, "export", unit="frame")):
        rgba = (scene.render(camera, t) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(rgba).save(folder / f"{i:03d}.png")
        record["frames"][i]["file_path"] = f"{i:03d}.png"
    write_json(folder / "transforms.json", record)


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


def _write_spz(gaussians: Gaussians, target: Path) -> None:
    """Niantic's compressed layout, through gsply (Niantic publishes no Python wheels)."""
    if importlib.util.find_spec("gsply") is None:
        raise InputError("--format spz is written by gsply, which is missing: pip install gsply")
    import gsply  # type: ignore[import-not-found]

    g = gaussians.detached()
    data = gsply.GSData(
        means=g.means.numpy(),
        scales=g.log_scales.numpy(),
        quats=torch.nn.functional.normalize(g.quats, dim=-1).numpy(),
        opacities=g.logits.numpy(),
        sh0=((g.colors - 0.5) / SH_C0).numpy(),
        shN=g.harmonics.numpy(),
    )
    gsply.write_spz(target, data)
