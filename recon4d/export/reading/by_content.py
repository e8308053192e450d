"""Which format a file of Gaussians has: told by its content first, by its suffix where it has no magic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.windows import WindowField
from orbit4d.recon4d.export.compressed_ply import read_compressed_ply
from orbit4d.recon4d.export.fourdgs import MAGIC as FOURDGS
from orbit4d.recon4d.export.reading.fourdgs_file import read_fourdgs
from orbit4d.recon4d.export.reading.ksplat import read_ksplat
from orbit4d.recon4d.export.sog import read_sog
from orbit4d.recon4d.export.splat_file import read_splat
from orbit4d.recon4d.export.splat_glb import read_splat_glb
from orbit4d.recon4d.export.spz import MAGIC, read_spz
from orbit4d.recon4d.export.usd import read_usd
from orbit4d.recon4d.gaussians import Gaussians, load_ply
from orbit4d.recon4d.ply import parse_header, read_elements

#: Suffixes of files of Gaussians.
SUFFIXES = (
    ".ply", ".splat", ".ksplat", ".spz", ".sog", ".glb", ".usd", ".usda", ".usdc", ".usdz", ".4dgs",
)  # fmt: skip
_USD_STARTS = (b"PXR-USDC", b"#usda")


@dataclass(frozen=True)
class SplatFile:
    """What a file holds, numbers as stored."""

    gaussians: Gaussians
    axes: str = "file"
    """The axes that its format means; "file" where it says nothing of them."""
    field: WindowField | None = None
    """How they move; None where they stand still."""


def read_file(source: Path, notes: list[str]) -> SplatFile:
    """A file, or the folder of a SOG. `notes` receives what was left out.

    InputError, one line, for anything else and for values that cannot be drawn.
    """
    found = _read(source, notes)
    g = found.gaussians
    if not len(g):
        raise InputError(f"{source}: holds no Gaussians")
    for name, tensor in g.tensors().items():
        if len(tensor) != len(g):
            raise InputError(f"{source}: {name.replace('_', ' ')} of {len(tensor)} Gaussians beside {len(g)}")
    if (why := g.fault()) is not None:
        raise InputError(f"{source}: {why}; the file is damaged")
    if found.field is not None and not torch.isfinite(found.field.motion).all():
        raise InputError(f"{source}: velocities that are no finite numbers; the file is damaged")
    return found


def _read(source: Path, notes: list[str]) -> SplatFile:
    name = str(source)
    try:
        if source.is_dir() or source.name == "meta.json":
            return SplatFile(read_sog(source if source.is_dir() else source.parent, name, notes))
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    suffix = source.suffix.lower()
    if data[:3] == b"ply":
        if any(element.name == "chunk" for element in parse_header(data, name)[1]):
            return SplatFile(read_compressed_ply(read_elements(data, name), name))
        return SplatFile(load_ply(source))
    if data[:4] == MAGIC or data[:2] == b"\x1f\x8b":
        return SplatFile(read_spz(data, name, notes))
    if data[:4] == b"glTF":
        # glTF means +Y up.
        return SplatFile(read_splat_glb(data, name), "y-up")
    if data.startswith(_USD_STARTS) or suffix == ".usdz":
        gaussians, up = read_usd(source)
        return SplatFile(gaussians, f"{up}-up")
    if data[:5] == FOURDGS[:5]:
        gaussians, field, axes = read_fourdgs(data, name, notes)
        return SplatFile(gaussians, axes, field)
    if data[:2] == b"PK":
        return SplatFile(read_sog(data, name, notes))
    if suffix == ".splat":
        return SplatFile(read_splat(data, name))
    if suffix == ".ksplat":
        return SplatFile(read_ksplat(data, name))
    raise InputError(
        f"{name}: no file of Gaussian splats that is known ({', '.join(SUFFIXES)}), or a damaged one"
    )
