"""Motion-80 folders and DyMesh pickles: vertices of one mesh at its times."""

from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry.exports.job import ExportAction, Files, Refused, each_action, npy, turned

DYMESH_TIMES = 16
#: What AnimateAnyMesh trains on unless asked otherwise.
DYMESH_VERTICES, DYMESH_FACES = 4096, 10_240
#: Longest sequences of the published files.
DYMESH_MOST = 50_000


def motion80(action: ExportAction) -> Files:
    """`<name>_pointclouds/frame_XXXX.npy` float32 [V, 3] and `faces.npy` int32 [M, 3]."""
    moments, up = action.moments(), action.axes("z")
    folder = f"{action.name}_pointclouds"
    for k, t in enumerate(moments):
        yield f"{folder}/frame_{k:04d}.npy", npy(turned(action.geometry.vertices[t], up))
    yield f"{folder}/faces.npy", npy(action.mesh.faces.astype(np.int32))
    yield f"{folder}/meta.json", action.meta(moments, up)


def dymesh(action: ExportAction) -> Files:
    """`<name>.bin`: a pickle of `vertices` float32 [16, V, 3], `faces` int64 [M, 3] and `caption`."""
    moments, up = action.moments(DYMESH_TIMES), action.axes("z")
    vertices = turned(action.geometry.vertices[moments], up)
    # Quantised places of one vertex may be off by the bound, of two of them by twice that.
    kept, faces = merged(vertices, action.mesh.faces, 2.0 * action.mesh.bound)
    if len(kept) > DYMESH_MOST:
        raise Refused("dymesh:vertices", f"{len(kept)} vertices; at most {DYMESH_MOST}")
    if len(kept) > DYMESH_VERTICES or len(faces) > DYMESH_FACES:
        action.note(
            f"{len(kept)} vertices and {len(faces)} triangles; AnimateAnyMesh takes {DYMESH_VERTICES} and "
            f"{DYMESH_FACES} unless --max_length says otherwise"
        )
    given = {"vertices": vertices[:, kept], "faces": faces, "caption": action.rows[0].get("caption") or " "}
    yield f"{action.name}.bin", pickle.dumps(given, protocol=4)


def merged(
    vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.integer], tolerance: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(vertices to keep [U], triangles over them): equal ones at rest are one, as the reader makes them.

    Triangles without three different vertices and doubled ones are dropped. Vertices that are equal at rest
    and part later raise Refused: the reader would tear the mesh.
    """
    _, first, number = np.unique(vertices[0], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept, number = first[order].astype(np.int64), rank[number.reshape(-1)]
    apart = np.abs(vertices.astype(np.float64) - vertices[:, kept[number]]).max()
    if apart > tolerance:
        raise Refused(
            "dymesh:parting",
            f"vertices that are one at first part later, by {apart:.3g}; merging tears the mesh",
        )
    corners = number[faces]
    a, b, c = corners.T
    corners = corners[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    corners = corners[np.sort(first)]
    used = np.unique(corners)
    if not len(used):
        raise Refused("dymesh:empty", "no triangle is left")
    place = np.zeros(len(kept), np.int64)
    place[used] = np.arange(len(used))
    return kept[used], place[corners]


FORMATS = {"motion80": each_action(motion80), "dymesh": each_action(dymesh)}
