"""Skeleton, weights and surface of any file that Blender loads, its poses sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.characters.gltf_rig import Character, usable
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.scratch import scratch_folder
from orbit4d.recon4d.deformation.rigs.rig import Channel, Motion, Rig, composed, decomposed, finite_rig
from orbit4d.recon4d.deformation.surface import SkinnedSurface
from orbit4d.render.fleet.child import BlenderChild, ChildError, TaskRefused
from orbit4d.render.protocol.geometry_file import read_geometry_file, read_skeleton_file

Floats = npt.NDArray[np.float64]

#: Poses a second: twice the frames of the importers' clock, on which their keys lie.
RATE = 48.0
#: Time that Blender may take for one action.
TIMEOUT = 600.0
#: Largest error of a pose said as translation, rotation and scale, of its largest entry.
_SHEAR = 1e-3


def read_with_blender(path: str, scale: float, centre: Sequence[float]) -> Character:
    """Rig and surface, placed at scale · (x - centre). Raises InputError for a file without a skeleton."""
    with scratch_folder() as scratch, BlenderChild() as child:
        asked = {
            "path": str(Path(path).resolve()),
            "scratch": scratch,
            "scale": scale,
            "centre": list(centre),
        }
        first = _told(child, asked, 0, [0.0], path)
        actions = first["actions"] or [["", 0.0, 0.0]]
        found = []
        for number, (_, start, end) in enumerate(actions):
            seconds = moments(start, end)
            given = _told(child, asked, number, seconds.tolist(), path)
            found.append((seconds, read_skeleton_file(Path(scratch) / given["skeleton"]["file"])))
            if number == 0:
                geometry = read_geometry_file(Path(scratch) / given["geometry"]["file"])
    names = [str(name) for name, _, _ in actions]
    return _character(path, names, found, np.asarray(geometry["faces"], np.int64))


def moments(start: float, end: float) -> Floats:
    """Both ends of an action and what lies between them of the importers' half frames, where keys lie."""
    first, last = np.floor(start * RATE) + 1, np.ceil(end * RATE) - 1
    inner = np.arange(first, last + 1) / RATE
    inner = inner[(inner > start + 1e-6) & (inner < end - 1e-6)]
    return np.concatenate([[start], inner, [end]] if end > start else [[start]])


def _told(child: BlenderChild, asked: dict[str, Any], action: int, seconds: list[float], path: str) -> Any:
    try:
        given = child.call("skeleton", {**asked, "action": action, "seconds": seconds}, TIMEOUT)
    except TaskRefused as error:
        raise InputError(f"{path}: {error.reason} ({error.detail})"[:300]) from None
    except ChildError as error:
        raise WorkError(f"{path}: Blender gave no skeleton ({error.reason}: {error})"[:300]) from None
    for part in ("geometry", "skeleton"):
        if "refused" in given[part]:
            why = given[part]
            raise InputError(
                f"{path}: no skeleton that moves it ({why['refused']}: {why['detail']}); leave --rig out"[
                    :300
                ]
            )
    return given


def _character(path: str, names: list[str], found: list[tuple[Floats, Any]], faces: Any) -> Character:
    base = found[0][1]
    parents = np.asarray(base["parents"], np.int64)
    rest = np.asarray(base["rest"], np.float64)
    motions = []
    for name, (seconds, skeleton) in zip(names, found):
        if list(skeleton["names"]) != list(base["names"]):
            raise WorkError(f"{path}: its joints change from action to action")
        motions.append(_motion(path, name, seconds, parents, np.asarray(skeleton["pose"], np.float64)))
    local = _local(parents, rest)
    vertex, joint, weight = np.asarray(base["coo"], np.float64).T
    index, weights = _table(len(base["basis"]), vertex.astype(np.int64), joint.astype(np.int64), weight)
    places = np.asarray(base["basis"], np.float64)
    index, weights, repaired = usable(path, places, index, weights)
    joints = np.arange(len(parents))
    rig = Rig(
        tuple(base["names"]), parents, local, decomposed(local), joints, np.linalg.inv(rest), tuple(motions)
    )
    notes = ["morph targets stay as modelled"] if len(base["morphs"]) else []
    surface = SkinnedSurface(places, faces, index, weights, repaired)
    return Character(finite_rig(rig, path), surface, tuple(notes))


def _local(parents: npt.NDArray[np.int64], world: Floats) -> Floats:
    """Joint to parent, [..., J, 4, 4], from joint to world."""
    found = world.copy()
    below = np.flatnonzero(parents >= 0)
    found[..., below, :, :] = np.linalg.inv(world[..., parents[below], :, :]) @ world[..., below, :, :]
    return found


def _motion(path: str, name: str, seconds: Floats, parents: Any, pose: Floats) -> Motion:
    local = _local(parents, pose)
    times, count = local.shape[:2]
    trs = decomposed(local.reshape(-1, 4, 4))
    error = np.abs(composed(trs) - local.reshape(-1, 4, 4)).max()
    if error > _SHEAR * max(1.0, float(np.abs(local).max())):
        raise InputError(f"{path}: {name}: a joint is sheared, which no rig here can say; leave --rig out")
    trs = trs.reshape(times, count, 10)
    channels = []
    for j in range(count):
        for what, columns in (
            ("translation", slice(0, 3)),
            ("rotation", slice(3, 7)),
            ("scale", slice(7, 10)),
        ):
            values = trs[:, j, columns]
            still = np.ptp(values, axis=0).max() == 0
            channels.append(
                Channel(j, what, seconds[:1] if still else seconds, values[:1] if still else values)
            )
    return Motion(name, float(seconds[0]), float(seconds[-1]), tuple(channels))


def _table(n: int, vertex: Any, joint: Any, weight: Any) -> tuple[Any, Any]:
    """Joints and weights [V, K] of (vertex, joint, weight) rows."""
    order = np.argsort(vertex, kind="stable")
    vertex, joint, weight = vertex[order], joint[order], weight[order]
    rank = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
    width = int(rank.max(initial=0)) + 1
    index, weights = np.zeros((n, width), np.int64), np.zeros((n, width))
    index[vertex, rank], weights[vertex, rank] = joint, weight
    return index, weights
