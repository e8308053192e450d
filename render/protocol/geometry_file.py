"""The file in which a Blender process hands an action's surfaces to its worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = ("materials", "objects", "alpha")
_ARRAYS = ("seconds", "vertices", "faces", "material", "object", "shown", "alpha_uv")
_SKELETON = ("parents", "rest", "pose", "basis", "coo", "deltas", "morph_weights")


def write_geometry(path: Path, found: Mapping[str, Any]) -> None:
    """Keep `found` (see `GeometryRecorder.arrays`) in `path`, which ends in .npz."""
    facts = json.dumps({name: found[name] for name in _NAMES})
    arrays = {name: found[name] for name in _ARRAYS}
    if found["uv"] is not None:
        arrays["uv"] = found["uv"]
    if found["rig"] is not None:
        arrays |= {f"rig_{name}": found["rig"][name] for name in ("basis", "coo")}
    arrays |= {f"alpha_{k}": texels for k, texels in enumerate(found["alpha_texels"])}
    np.savez(path, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)


def write_skeleton(path: Path, found: Mapping[str, Any]) -> None:
    """Keep `found` (see `SkeletonRecorder.arrays`) in `path`, which ends in .npz."""
    facts = json.dumps({"names": found["names"], "morphs": found["morphs"]})
    arrays = {name: found[name] for name in _SKELETON}
    np.savez(path, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)


def read_skeleton_file(path: Path) -> dict[str, Any]:
    """Inverse of `write_skeleton`."""
    with np.load(path, allow_pickle=False) as stored:
        found: dict[str, Any] = json.loads(stored["facts"].tobytes())
        return found | {name: stored[name] for name in _SKELETON}


def read_geometry_file(path: Path) -> dict[str, Any]:
    """Inverse of `write_geometry`."""
    with np.load(path, allow_pickle=False) as stored:
        found: dict[str, Any] = json.loads(stored["facts"].tobytes())
        found |= {name: stored[name] for name in _ARRAYS}
        found["uv"] = stored["uv"] if "uv" in stored.files else None
        rigged = "rig_coo" in stored.files
        found["rig"] = (stored["rig_basis"], stored["rig_coo"]) if rigged else None
        found["alpha_texels"] = [stored[f"alpha_{k}"] for k in range(len(found["alpha"]))]
    return found
