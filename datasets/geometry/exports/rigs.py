"""Rigs at rest as Articulation-XL 2.0 and UniRig have them, with the poses of the action beside them.

Both layouts hold a mesh at rest, its joints and its weights, scaled to [-1, 1]. They have no place for poses
and none for morph targets: an action that linear blend skinning of the rest mesh does not give is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry.exports.job import (
    LEFT_OUT,
    ExportAction,
    Files,
    Refused,
    each_action,
    leave_out,
)
from orbit4d.datasets.geometry.exports.surface_points import Doubles, vertex_normals
from orbit4d.datasets.geometry.skeleton import Skeleton

#: Points of `pc_w_norm`.
POINTS = 8192
#: Largest error of linear blend skinning, in the box of [-1, 1], besides that of the stored vertices.
MOST_ERROR = 1e-5
#: Columns of Articulation-XL's table.
COLUMNS = ("uuid", "source", "vertex_count", "face_count", "joint_count", "bone_count", "category_label",
           "fileType", "fileIdentifier")  # fmt: skip


@dataclass(frozen=True)
class Rig:
    """`V` vertices, `M` triangles, `J` joints with parents first and one root, `T` times."""

    names: tuple[str, ...]
    parents: npt.NDArray[np.int64]
    """[J], -1 for the root, which is joint 0."""
    rest: Doubles
    """[J, 4, 4] joint to the scaled world, without scale."""
    motion: Doubles
    """[T, J, 4, 4] by what each joint moves the vertices that follow it alone, from rest, in that world."""
    vertices: Doubles
    """[V, 3] at rest."""
    normals: Doubles
    """[V, 3] unit vectors."""
    weights: npt.NDArray[np.float32]
    """[V, J], rows sum to 1."""


def rig(action: ExportAction) -> Rig:
    """The rig of an action. Refused where skinning misses its vertices; InputError without a skeleton."""
    skeleton, mesh = action.geometry.skeleton, action.mesh
    morphs = skeleton.morph_weights
    if morphs is not None and morphs.size and np.abs(morphs).max() > 0.0:
        raise Refused("rig:morphs", "morph targets move it, which the layout cannot say")
    low, high = skeleton.basis.min(axis=0).astype(float), skeleton.basis.max(axis=0).astype(float)
    centre, factor = 0.5 * (low + high), 2.0 / float((high - low).max() or 2.0)
    _check(action, skeleton, factor)
    weights = np.zeros((len(skeleton.basis), len(skeleton.names)), np.float64)
    np.add.at(weights, (skeleton.vertex, skeleton.joint), skeleton.weight)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    into = np.diag([factor, factor, factor, 1.0])
    into[:3, 3] = -factor * centre
    turns = np.matmul(skeleton.pose, np.linalg.inv(skeleton.rest))
    motion = np.matmul(np.matmul(into, turns), np.linalg.inv(into))
    rest = np.matmul(into, skeleton.rest)
    rest[:, :3, :3] /= np.linalg.norm(rest[:, :3, :3], axis=1, keepdims=True)  # columns
    first = np.zeros((mesh.welded.shape[1], 3))
    first[mesh.weld] = skeleton.basis
    normals = vertex_normals(first, mesh.welded_faces)[mesh.weld]
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    vertices = (skeleton.basis.astype(np.float64) - centre) * factor
    parents = skeleton.parents.astype(np.int64)
    names, parents, rest, motion, weights = _one_root(skeleton.names, parents, rest, motion, weights)
    return Rig(names, parents, rest, motion, vertices, normals, weights.astype(np.float32))


def _check(action: ExportAction, skeleton: Skeleton, factor: float) -> None:
    if len(skeleton.basis) != len(action.mesh.weld) or not len(skeleton.vertex):
        raise Refused("rig:vertices", "its skeleton is of other vertices than its surface")
    known = action.geometry.vertices
    error = max(np.abs(skeleton.skinned(t) - known[t]).max() for t in range(len(known)))
    if not (error - action.mesh.bound) * factor <= MOST_ERROR:
        raise Refused("rig:skinning", f"linear blend skinning misses its vertices by {error:.3g}")


def _one_root(
    names: tuple[str, ...], parents: npt.NDArray[np.int64], rest: Doubles, motion: Doubles, weights: Doubles
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], Doubles, Doubles, Doubles]:
    """The same with one root: several get one in their middle, which moves nothing."""
    roots = np.flatnonzero(parents < 0)
    if len(roots) == 1:
        # Parents stand before children, so that the only root is the first joint.
        return names, parents, rest, motion, weights
    still = np.eye(4)
    middle = still.copy()
    middle[:3, 3] = rest[roots, :3, 3].mean(axis=0)
    return (
        ("root", *names),
        np.concatenate([[-1], np.where(parents < 0, 0, parents + 1)]),
        np.concatenate([middle[None], rest]),
        np.concatenate([np.tile(still, (len(motion), 1, 1, 1)), motion], axis=1),
        np.concatenate([np.zeros((len(weights), 1)), weights], axis=1),
    )


def _poses(action: ExportAction, found: Rig) -> bytes:
    """`motion` [T, J, 4, 4] at `seconds`: vertex(t) = sum of weight · motion[t] · vertex."""
    return _npz(motion=found.motion, seconds=action.mesh.seconds, names=np.array(found.names))


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unirig(action: ExportAction) -> Files:
    """`<name>/raw_data.npz` with UniRig's keys, and `poses.npz`."""
    found, faces = rig(action), action.mesh.faces.astype(np.int64)
    a, b, c = np.moveaxis(found.vertices[faces], 1, 0)
    flat = np.cross(b - a, c - a)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.where(lengths > 0.0, flat / np.where(lengths > 0.0, lengths, 1.0), [0.0, 0.0, 1.0])
    parents = np.array([None, *found.parents[1:].tolist()], object)
    row = action.rows[0]
    yield (
        f"{action.name}/raw_data.npz",
        _npz(
            vertices=found.vertices.astype(np.float32),
            vertex_normals=found.normals.astype(np.float32),
            faces=faces,
            face_normals=flat.astype(np.float32),
            joints=found.rest[:, :3, 3].astype(np.float32),
            tails=np.array(None, object),
            skin=found.weights,
            parents=parents,
            names=np.array(found.names),
            matrix_local=found.rest.astype(np.float32),
            no_skin=np.array(None, object),
            path=np.array(row.get("source_url") or row["uid"]),
            cls=np.array("orbit4d"),
        ),
    )
    yield f"{action.name}/poses.npz", _poses(action, found)


def articulation_xl(actions: Iterable[ExportAction]) -> Files:
    """`<split>.npz`, whose `arr_0` holds a dict per action, `metadata.csv`, and `poses/<name>.npz`."""
    splits: dict[str, list[dict[str, Any]]] = {}
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(COLUMNS)
    for action in actions:
        try:
            found = rig(action)
        except LEFT_OUT as error:
            leave_out(action.name, error, action.notes)
            continue
        row = action.rows[0]
        entry = _entry(action, found)
        splits.setdefault(str(row.get("split") or "train"), []).append(entry)
        counts = (len(entry[key]) for key in ("vertices", "faces", "joints", "bones"))
        lines.writerow([action.name, "orbit4d", *counts, "", "", row.get("asset_sha256", "")])
        yield f"poses/{action.name}.npz", _poses(action, found)
    for split, entries in splits.items():
        held = np.empty(len(entries), object)
        held[:] = entries
        yield f"{split}.npz", _npz(arr_0=held)
    if splits:
        yield "metadata.csv", table.getvalue().encode()


def _entry(action: ExportAction, found: Rig) -> dict[str, Any]:
    children = np.flatnonzero(found.parents >= 0)
    rows, columns = np.nonzero(found.weights)
    faces = action.mesh.faces.astype(np.int64)
    return {
        "vertices": found.vertices.astype(np.float32),
        "faces": faces,
        "normals": found.normals.astype(np.float32),
        "joints": found.rest[:, :3, 3].astype(np.float32),
        "bones": np.stack([found.parents[children], children], axis=1),
        "root_index": 0,
        "uuid": action.name,
        "pc_w_norm": _sampled(found, faces, action.settings.points or POINTS, action.settings.seed),
        "joint_names": list(found.names),
        "skinning_weights_value": found.weights[rows, columns],
        "skinning_weights_row": rows,
        "skinning_weights_col": columns,
        "skinning_weights_shape": found.weights.shape,
    }


def _sampled(found: Rig, faces: npt.NDArray[np.int64], n: int, seed: int) -> npt.NDArray[np.float32]:
    """[n, 6] points spread evenly over the surface at rest, with normals mixed from the vertices'."""
    rng = np.random.default_rng(seed)
    a, b, c = np.moveaxis(found.vertices[faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not areas.sum() > 0.0:
        raise Refused("rig:empty", "its surface has no area at rest")
    which = rng.choice(len(faces), n, p=areas / areas.sum())
    u, v = np.sqrt(rng.random(n)), rng.random(n)
    weights = np.stack([1.0 - u, u * (1.0 - v), u * v], axis=1)[:, :, None]
    points = (found.vertices[faces[which]] * weights).sum(axis=1)
    normals = (found.normals[faces[which]] * weights).sum(axis=1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(lengths > 1e-9, normals / np.maximum(lengths, 1e-9), [0.0, 0.0, 1.0])
    return np.concatenate([points, normals], axis=1).astype(np.float32)


FORMATS = {"articulation-xl": articulation_xl, "unirig": each_action(unirig)}
