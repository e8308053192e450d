"""Gaussians of others: files of splats read and written, and opened where a scene is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.core.atomic import replacing_file, write_bytes
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path
from orbit4d.recon4d.composition import load_scene
from orbit4d.recon4d.deformation.field import StillField
from orbit4d.recon4d.deformation.windows import WindowField
from orbit4d.recon4d.export.compressed_ply import compressed_ply_bytes
from orbit4d.recon4d.export.reading.by_content import SUFFIXES, read_file
from orbit4d.recon4d.export.sog import sog_bytes
from orbit4d.recon4d.export.splat_file import splat_bytes
from orbit4d.recon4d.export.splat_glb import splat_glb_bytes
from orbit4d.recon4d.export.spz import spz_bytes
from orbit4d.recon4d.export.upright import from_axes, to_axes
from orbit4d.recon4d.export.usd import write_usd
from orbit4d.recon4d.gaussians import Gaussians, save_ply
from orbit4d.recon4d.scene import Scene
from orbit4d.recon4d.world import World

#: Formats that `write_splats` knows, and the suffix of each.
WRITTEN = {
    "ply": ".ply", "compressed-ply": ".compressed.ply", "splat": ".splat", "spz": ".spz", "sog": ".sog",
    "glb": ".glb", "usd": ".usdc",
}  # fmt: skip
#: A set with its centre and size within these of ours is drawn where it is.
_NEAR, _SIZES = 0.25, (0.3, 3.0)
#: Share of the Gaussians that may lie outside of what is called the object: floaters of a capture.
_OUTSIDE = 0.02


def read_splats(path: str | Path, axes: str = "file") -> Gaussians:
    """Gaussians of a file of splats, known by its content, else by its suffix.

    PLY of INRIA's layout (any order, ASCII, big-endian), compressed PLY, SOG (version 2, file or folder), SPZ
    (versions 2 to 4), .splat, .ksplat (levels 0 to 2), GLB with KHR_gaussian_splatting, and of what moves its
    first time: USD with ParticleField3DGaussianSplat, .4dgs. `axes`: "file" leaves the numbers as stored;
    z-up, y-up, rdf or y-down-180 says which axes the file has, and the set is turned from them to ours, +Z
    up. InputError, one line, for anything else and for values that cannot be drawn: numbers that are not
    finite, rotations of length 0, negative sizes.
    """
    return read_noted(path, axes)[0]


def read_noted(path: str | Path, axes: str = "file") -> tuple[Gaussians, list[str]]:
    """`read_splats`, and what of the file was left out, a line each."""
    source, notes = local_path(path), list[str]()
    found = read_file(source, notes)
    gaussians = found.gaussians if found.field is None else found.field.move(found.gaussians, 0.0)
    if not len(gaussians):
        raise InputError(f"{source}: holds no Gaussians at its first moment; `orbit4d film` shows the others")
    return from_axes(gaussians, axes), notes


def write_splats(
    gaussians: Gaussians, path: str | Path, format: str | None = None, axes: str = "file"
) -> None:
    """Write a set of static splats; `format` is ply, compressed-ply, splat, spz, sog, glb or usd.

    None takes it from the suffix (.compressed.ply is compressed-ply; usd also .usd, .usda). `axes`: "file"
    leaves the numbers; z-up, y-up, rdf or y-down-180 turns the set from ours, +Z up, to those. The file
    appears only when it is whole. InputError for an unknown format and where `path` cannot be written.
    """
    target = local_path(path)
    format = format or format_of(target)
    if format not in WRITTEN:
        raise InputError(f"{target}: format {format}; choose from {', '.join(WRITTEN)}")
    turned = to_axes(gaussians.detached().to("cpu"), axes)
    if not len(turned):
        raise InputError(f"{target}: there are no Gaussians to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if format == "ply":
            save_ply(turned, target)
        elif format == "usd":
            up = "Y" if axes == "y-up" else "Z"
            with replacing_file(target) as draft:
                write_usd([turned], draft, up)
        else:
            write_bytes(target, _BYTES[format](turned))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from None


_BYTES: dict[str, Callable[[Gaussians], bytes]] = {
    "compressed-ply": compressed_ply_bytes,
    "splat": splat_bytes,
    "spz": spz_bytes,
    "sog": sog_bytes,
    "glb": splat_glb_bytes,
}


def format_of(path: Path) -> str:
    """The format that a name's suffix means. InputError for others."""
    name = path.name.lower()
    for format, suffix in sorted(WRITTEN.items(), key=lambda each: -len(each[1])):
        if name.endswith(suffix):
            return format
    if path.suffix.lower() in (".usd", ".usda"):
        return "usd"
    raise InputError(f"{path}: its suffix names no format; choose from {', '.join(WRITTEN.values())}")


def is_splats(path: str | Path) -> bool:
    """Whether a name or what lies there is a file of splats rather than a scene folder."""
    name = str(path).lower().rstrip("/")
    here = Path(path)
    if here.is_dir():
        return not (here / "scene.json").is_file() and (here / "meta.json").is_file()
    return name.endswith((*SUFFIXES, "meta.json"))


def open_scene(
    path: str | Path,
    device: torch.device | str = "cpu",
    axes: str | None = None,
    notes: list[str] | None = None,
) -> Scene:
    """A scene folder, or splats of a file as a scene, to be drawn on `device`; only those of .4dgs move.

    `axes` of a file: None takes those that it means (glb y-up, usd its stage's, 4dgs its own), else as
    `read_splats` has them. `notes` receives what was left out. InputError as `read_splats` and `load_scene`.
    """
    source = local_path(path)
    if not is_splats(source):
        if axes is not None:
            raise InputError(f"{path}: --input-axes is for files of splats; a scene has its own")
        return load_scene(source, device)
    said: list[str] = []
    found = read_file(source, said)
    axes = axes or found.axes
    gaussians, field = from_axes(found.gaussians, axes), found.field
    if field is not None:
        # Velocities turn as places do.
        field.motion[:] = from_axes(replace(found.gaussians, means=field.motion), axes).means
    if notes is not None:
        notes.extend(said)
    return still_scene(gaussians, {"source": str(path)}, field).to(device)


def still_scene(
    gaussians: Gaussians, info: dict[str, Any] | None = None, field: WindowField | None = None
) -> Scene:
    """Gaussians as a scene that does not move, or moves by `field`, with one camera that sees all of the
    object.
    """
    means = gaussians.means.double().numpy()
    low, high = np.quantile(means, (_OUTSIDE, 1 - _OUTSIDE), axis=0)
    centre, size = (low + high) / 2, float(max((high - low).max(), 1e-6))
    world = World(size, (float(centre[0]), float(centre[1]), float(centre[2])))
    if np.abs(centre).max() < _NEAR and _SIZES[0] < size < _SIZES[1]:
        world = World()
        size = 1.0
    fitted = gaussians
    if world:
        fitted = replace(
            gaussians,
            means=torch.from_numpy(((means - centre) / size).astype(np.float32)),
            log_scales=gaussians.log_scales - float(np.log(size)),
        )
        if field is not None:
            field.motion /= size
    (camera,) = orbit(1, radius=2.0 * size, elevation_deg=0.0)
    c2w = np.array(camera.c2w)
    c2w[:3, 3] += np.array(world.centre)
    cameras = (replace(camera, c2w=c2w),)
    return Scene(fitted, field or StillField(), cameras, (0.0,), info or {}, world=world)
