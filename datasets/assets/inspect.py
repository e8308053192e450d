"""Inspection of an asset file without Blender: refuse what is truncated, lying, hostile or absurd.

`inspect` either returns an `Inspection` or raises `BadFile` with a reason code; no other exception, no hang,
and memory bounded by `LIMITS` (files are mapped, and inspected in pieces). glTF and FBX are read structure by
structure; the other formats are checked as far as their headers, lengths and mentioned paths go.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.assets.inspection import REASONS, BadFile, Inspection, map_file

__all__ = ["REASONS", "BadFile", "Inspection", "companion_files", "inspect"]


def inspect(path: str | os.PathLike[str], sha256: str | None = None) -> Inspection:
    """Inspect one local asset file.

    `sha256` spares hashing the file again where the caller did. Raises BadFile and nothing else.
    """
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise BadFile("format", f"suffix {suffix!r}")
    try:
        data = map_file(path)
        digest = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
        found = _reader(FORMATS[suffix])(path, data, FORMATS[suffix])
    except BadFile:
        raise
    except Exception as error:
        # Hostile bytes reach many parsers (json, struct, zlib, expat, PIL); what one of them trips over is a
        # property of the file, and the caller must be able to continue with the next one.
        raise BadFile("corrupt", f"{type(error).__name__}: {error}") from error
    return replace(found, sha256=digest)


def _reader(name: str):
    if name in ("glb", "gltf"):
        from orbit4d.datasets.assets.gltf import inspect_gltf

        return inspect_gltf
    if name == "fbx":
        from orbit4d.datasets.assets.fbx import inspect_fbx

        return inspect_fbx
    from orbit4d.datasets.assets.obj import INSPECTORS

    return INSPECTORS[name]


def companion_files(path: str | os.PathLike[str]) -> list[str]:
    """Files inside its own folder that a .gltf names, in document order; [] where it cannot be read."""
    from orbit4d.datasets.assets.gltf import gltf_companions

    try:
        return gltf_companions(os.fspath(path))
    except Exception:
        # `inspect` says what is wrong with it; for hashing, the file alone is what there is.
        return []
