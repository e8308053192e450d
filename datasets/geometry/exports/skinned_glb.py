"""GLB of a mesh that its own joints move: skin with four joints a vertex, keys of each joint, morph targets.

glTF keeps a joint as translation, rotation and scale below its parent. A pose with shear has no such form,
and the action is then written with morph targets (glb.py), as it is without a stored skeleton.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.exports.glb import (
    INDEX_DATA,
    VERTEX_DATA,
    GlbBuffer,
    morphed_action,
    pack_glb,
)
from orbit4d.datasets.geometry.exports.job import ExportAction, Files, turned
from orbit4d.datasets.geometry.skeleton import Skeleton

Floats = npt.NDArray[np.float64]

#: Joints of a vertex, and the largest distance that leaving out its smaller weights may make (clip units).
TOP, MOST_ERROR = 4, 1e-3
#: What a rotation may miss of being one, relative to its scale, before a pose counts as sheared.
SHEAR = 1e-4
_AXES = {"y": np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]), "z": np.eye(4)}


def action_glb(action: ExportAction) -> Files:
    """`<name>.glb`: the action as one mesh, moved by the skin of its source where the dataset holds one that
    glTF can say, else by morph targets.
    """
    skinned = skinned_action(action)
    yield f"{action.name}.glb", morphed_action(action) if skinned is None else skinned


def skinned_action(action: ExportAction) -> bytes | None:
    """The file, None where the dataset holds no skeleton of the action or glTF cannot say it (a note
    tells).
    """
    try:
        skeleton = action.geometry.skeleton
    except InputError:
        return None
    joints, weights, error = skeleton.top(TOP)
    if error > MOST_ERROR:
        action.note(f"its smaller weights move vertices by up to {error:.2g}: morph targets and no skin")
        return None
    moments, up = action.moments(), action.axes("y")
    keys = local_keys(skeleton, moments, _AXES[up])
    if keys is None:
        action.note("joints with shear, which glTF cannot say; morph targets instead of a skin")
        return None
    row = action.rows[0]
    given = {key: row.get(key, "") for key in ("uid", "action", "license", "caption")}
    seconds = np.asarray(action.mesh.seconds[moments], np.float64)
    return _file(action, skeleton, (joints, weights), keys, seconds, moments, up, given)


def local_keys(
    skeleton: Skeleton, moments: npt.NDArray[np.integer], axes: Floats
) -> tuple[Floats, Floats, Floats] | None:
    """Translations [T, J, 3], quaternions [T, J, 4] (x y z w, of one hemisphere over time) and scales
    [T, J, 3] of each joint below its parent, in a world turned by `axes` [4, 4]; None where one has shear.
    """
    world = axes @ skeleton.pose[moments]
    local = world.copy()
    for j, parent in enumerate(skeleton.parents):
        if parent >= 0:
            local[:, j] = np.linalg.inv(world[:, parent]) @ world[:, j]
    linear = local[..., :3, :3]
    scales = np.linalg.norm(linear, axis=-2)
    scales[..., 0] *= np.where(np.linalg.det(linear) < 0, -1.0, 1.0)
    turns = linear / np.where(scales == 0, 1.0, scales)[..., None, :]
    off = np.abs(turns @ turns.swapaxes(-1, -2) - np.eye(3)).max()
    if not off < SHEAR:
        return None
    return local[..., :3, 3], _quaternions(turns), scales


def _quaternions(turns: Floats) -> Floats:
    from scipy.spatial.transform import Rotation

    found = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_quat().reshape(*turns.shape[:2], 4)
    flips = np.sign((found[1:] * found[:-1]).sum(-1))
    found[1:] *= np.cumprod(np.where(flips == 0, 1.0, flips), axis=0)[..., None]
    return np.asarray(found)


def _file(
    action: ExportAction,
    skeleton: Skeleton,
    skin: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]],
    keys: tuple[Floats, Floats, Floats],
    seconds: Floats,
    moments: npt.NDArray[np.integer],
    up: str,
    given: dict[str, Any],
) -> bytes:
    buffer = GlbBuffer()
    corners = action.mesh.faces.astype(np.uint32).reshape(-1)
    attributes = {
        "POSITION": buffer.accessor(turned(skeleton.basis, up), "VEC3", True, VERTEX_DATA),
        "JOINTS_0": buffer.accessor(skin[0].astype(np.uint16), "VEC4", False, VERTEX_DATA),
        "WEIGHTS_0": buffer.accessor(skin[1].astype(np.float32), "VEC4", False, VERTEX_DATA),
    }
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.accessor(corners, "SCALAR", False, INDEX_DATA),
        "material": 0,
    }
    mesh: dict[str, Any] = {"name": action.name, "primitives": [primitive]}
    times = buffer.accessor((seconds - seconds[0]).astype(np.float32), "SCALAR", True)
    animation: dict[str, Any] = {"name": "motion", "samplers": [], "channels": []}
    nodes = _joints(buffer, skeleton, keys, times, animation)
    nodes.append({"mesh": 0, "skin": 0, "name": action.name})
    if skeleton.deltas is not None and skeleton.morph_weights is not None and len(skeleton.morphs):
        primitive["targets"] = [{"POSITION": buffer.deltas(turned(d, up))} for d in skeleton.deltas]
        weights = skeleton.morph_weights[moments].astype(np.float32)
        mesh |= {"weights": weights[0].tolist(), "extras": {"targetNames": list(skeleton.morphs)}}
        values = buffer.accessor(weights.reshape(-1), "SCALAR", False)
        _channel(animation, len(nodes) - 1, "weights", times, values)
    bind = np.linalg.inv(skeleton.rest) @ np.linalg.inv(_AXES[up])
    inverse = buffer.accessor(bind.swapaxes(-1, -2).reshape(-1, 16).astype(np.float32), "MAT4", False)
    joints = list(range(len(skeleton.names)))
    roots = [j for j in joints if skeleton.parents[j] < 0]
    document = {
        "asset": {"version": "2.0", "generator": "orbit4d", "extras": given},
        "scene": 0,
        "scenes": [{"nodes": [*roots, len(nodes) - 1]}],
        "nodes": nodes,
        "meshes": [mesh],
        "materials": [{"name": "surface", "doubleSided": True}],
        "skins": [{"joints": joints, "inverseBindMatrices": inverse}],
        "animations": [animation],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    return pack_glb(document, b"".join(buffer.chunks))


def _joints(
    buffer: GlbBuffer,
    skeleton: Skeleton,
    keys: tuple[Floats, Floats, Floats],
    times: int,
    animation: dict[str, Any],
) -> list[dict[str, Any]]:
    """A node for each joint at the first time, and its keys in `animation`."""
    nodes = []
    for j, name in enumerate(skeleton.names):
        node: dict[str, Any] = {"name": name}
        children = np.flatnonzero(skeleton.parents == j).tolist()
        if children:
            node["children"] = children
        for path, values, kind in zip(
            ("translation", "rotation", "scale"), keys, ("VEC3", "VEC4", "VEC3"), strict=True
        ):
            of_joint = values[:, j].astype(np.float32)
            node[path] = of_joint[0].tolist()
            if len(of_joint) > 1 and (of_joint != of_joint[0]).any():
                _channel(animation, j, path, times, buffer.accessor(of_joint, kind, False))
        nodes.append(node)
    if not animation["channels"]:
        still = buffer.accessor(np.repeat(keys[0][:1, 0], len(keys[0]), 0).astype(np.float32), "VEC3", False)
        _channel(animation, 0, "translation", times, still)
    return nodes


def _channel(animation: dict[str, Any], node: int, path: str, times: int, values: int) -> None:
    animation["channels"].append(
        {"sampler": len(animation["samplers"]), "target": {"node": node, "path": path}}
    )
    animation["samplers"].append({"input": times, "output": values, "interpolation": "LINEAR"})
