"""Assets of boxes that walk, and their concepts as a fit leaves them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.characters.concepts import concept_key, rest_action
from orbit4d.compose.characters.reading import read_character
from orbit4d.recon4d.fitting.rigging.fit import bound_at
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.scene import Scene

Floats = npt.NDArray[np.float64]

#: Of each asset the length of its body, its caption and its licence.
ASSETS = {
    "toy_fox": (0.7, "a red fox", "CC0-1.0"),
    "toy_wolf": (0.9, "a grey wolf", "CC0-1.0"),
    "toy_horse": (1.1, "a white horse", "CC-BY-4.0"),
    "toy_seal": (0.6, "a seal", ""),
}
ACTIONS = ("Idle", "Walk", "Gallop")


@dataclass(frozen=True)
class Toys:
    """A CSV of assets and the folder of their fitted concepts."""

    library: Path
    cache: Path
    keys: dict[str, str]


def glb(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    parts = (struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(binary), b"BIN\0"))
    return head + b"".join(parts) + binary


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Floats:
    """[36, 3] corners of its twelve triangles."""
    found = []
    for axis in range(3):
        for side in (0, 1):
            b, c = (axis + 1) % 3, (axis + 2) % 3
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 0), (1, 1), (0, 1)):
                point = np.zeros(3)
                point[[axis, b, c]] = side, u, v
                found.append(np.array(low) + point * (np.array(high) - np.array(low)))
    return np.array(found)


def walker(length: float, change: Callable[[dict[str, Any], list[Floats]], None] | None = None) -> bytes:
    """A glTF of a body on two legs that swing; its front is +Z as glTF has it.

    `change` may alter the document and its arrays (body, leg, times, rotations of each action's legs).
    """
    meshes = [
        box((-0.15, 0.4, -length / 2), (0.15, 0.7, length / 2)), box((-0.06, -0.4, -0.06), (0.06, 0.0, 0.06))
    ]  # fmt: skip
    times = np.linspace(0, 1, 9)
    arrays: list[Floats] = [*meshes, times]
    animations = []
    for name, swing in zip(ACTIONS, (0.0, 0.4, 0.8)):
        first = len(arrays)
        for sign in (1, -1):
            angle = sign * swing * np.cos(2 * np.pi * times)
            zeros = np.zeros_like(angle)
            arrays.append(np.stack([np.sin(angle / 2), zeros, zeros, np.cos(angle / 2)], axis=1))
        samplers = [{"input": 2, "output": first + k} for k in range(2)]
        channels = [{"sampler": k, "target": {"node": 2 + k, "path": "rotation"}} for k in range(2)]
        animations.append({"name": name, "samplers": samplers, "channels": channels})
    document: dict[str, Any] = {
        "asset": {"version": "2.0"}, "animations": animations,
        "meshes": [{"primitives": [{"attributes": {"POSITION": k}}]} for k in range(2)],
        "nodes": [
            {"name": "root", "children": [1, 2, 3]}, {"name": "body", "mesh": 0},
            {"name": "leg.L", "mesh": 1, "translation": [0.1, 0.4, 0]},
            {"name": "leg.R", "mesh": 1, "translation": [-0.1, 0.4, 0]},
        ],
        "scenes": [{"nodes": [0]}], "scene": 0,
    }  # fmt: skip
    if change is not None:
        change(document, arrays)
    return packed(document, arrays)


def packed(document: dict[str, Any], arrays: list[Floats]) -> bytes:
    """The document with a float32 accessor for each array."""
    kinds = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
    views, accessors, binary = [], [], b""
    for array in arrays:
        data = array.astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        width = 1 if array.ndim == 1 else array.shape[1]
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": 5126, "count": len(array), "type": kinds[width]}
        )
        binary += data
    more = {"buffers": [{"byteLength": len(binary)}], "bufferViews": views, "accessors": accessors}
    return glb({**document, **more}, binary)


def fitted(path: Path, uid: str, cache: Path, n: int = 400) -> str:
    """Key of the concept of an asset, with Gaussians spread over its surface, in `cache`."""
    action = rest_action(ACTIONS)
    character = read_character(str(path))
    posed = character.surface.posed(character.rig.maps(action, 0.0))
    corners = posed[character.surface.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(0)
    faces = rng.choice(len(corners), n, p=areas / areas.sum())
    shares = rng.dirichlet(np.ones(3), n)
    points = np.einsum("nk,nkd->nd", shares, corners[faces])
    gaussians = from_points(points, np.full((n, 3), 0.3 + 0.1 * len(uid) % 0.5), opacity=0.9)
    field, _ = bound_at(gaussians, character, ACTIONS[action], 0.0, (0.0, 1.0))
    scene = Scene(gaussians, field)
    scene.info |= {"uid": uid, "scale": 1.0, "centre": [0.0, 0.0, 0.0]}
    key = concept_key(str(path), action, None)
    scene.save(cache / key)
    return key
