"""Reading the geometry of an action back."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.added.rows import action_sample, clip_sample
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.action import ActionMesh, decode_mesh
from orbit4d.datasets.geometry.clip import Axes, ClipGeometry, Motion, clip_geometry
from orbit4d.datasets.geometry.skeleton import Skeleton, decode_skeleton
from orbit4d.datasets.geometry.surface_map import decode_maps
from orbit4d.datasets.geometry.tracks import Tracks
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import pick_action
from orbit4d.datasets.store.schema import row_cameras

#: Kinds under which a dataset keeps the surfaces of an action, and the maps of a clip.
GEOMETRY, SURFACE, SKELETON = "geometry", "surface", "skeleton"
#: Decoded actions that are kept, bytes per process.
KEEP_BYTES = 256 << 20


class Geometry:
    """The moving surface of one action, and its clips over it.

    Its own `surface_map`, `flow`, `points` and `tracks` are those of the clip `dynamic_orbit` 0; `clip(rig,
    orbit)` gives the same for another one. Units and axes are those of the clip's world: +Z up, the object
    around the origin.
    """

    def __init__(self, index: Index, rows: list[dict[str, Any]], where: str) -> None:
        self._index, self._where = index, where
        # Of clips that differ in light alone the first one: their surfaces are the same.
        self._rows = {
            (row["rig"], row["orbit"]): row
            for row in sorted(rows, key=lambda row: row.get("light", 0), reverse=True)
        }
        self._clips: dict[tuple[str, int], ClipGeometry] = {}

    @property
    def uid(self) -> str:
        """Asset id."""
        return next(iter(self._rows.values()))["uid"]

    @property
    def action(self) -> str:
        """Name of the action."""
        return next(iter(self._rows.values()))["action"]

    @property
    def clips(self) -> list[tuple[str, int]]:
        """(rig, orbit) of every clip of the action."""
        return sorted(self._rows)

    @cached_property
    def mesh(self) -> ActionMesh:
        """Everything that is stored: materials, objects, texture places, and which objects are drawn when."""
        return read_mesh(self._index, next(iter(self._rows.values())), self._where)

    @cached_property
    def skeleton(self) -> Skeleton:
        """Joints, weights and morph targets; InputError where they were not rendered, or are refused."""
        row = next(iter(self._rows.values()))
        found = added_row(self._index, row, action_sample(row["uid"], row["action_index"]), SKELETON)
        return decode_skeleton(self._index.added.members(found)[0], self._where)

    @property
    def faces(self) -> npt.NDArray[np.int64]:
        """[M, 3] int64: vertices of each triangle, counter-clockwise seen from its front."""
        return self.mesh.faces.astype(np.int64)

    @property
    def vertices(self) -> npt.NDArray[np.float32]:
        """[T, V, 3] float32: places of the vertices at `seconds`, in the clip's world."""
        return self.mesh.vertices

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """[T] float64, ascending: all times at which the action was rendered, on the asset's clock."""
        return self.mesh.seconds.copy()

    @property
    def bound(self) -> float:
        """Largest error of a stored coordinate, units of the clip's world."""
        return self.mesh.bound

    def clip(self, rig: str = "dynamic_orbit", orbit: int = 0) -> ClipGeometry:
        """One clip of the action. InputError naming those that there are."""
        key = (rig, orbit)
        if key not in self._rows:
            have = ", ".join(f"{name} {number}" for name, number in self.clips)
            raise InputError(f"{self._where} has no {rig} {orbit}; it has {have}")
        if key not in self._clips:
            self._clips[key] = read_clip_geometry(self._index, self._rows[key], self.mesh)
        return self._clips[key]

    def surface_map(self, frame: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(triangle [H, W] int64, -1 where nothing; barycentric [H, W, 3]) of `dynamic_orbit` 0."""
        return self.clip().surface_map(frame)

    def flow(
        self, frame_a: int, frame_b: int, other: ClipGeometry | None = None, motion: Motion = "both"
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """([H, W, 2] pixels, visible [H, W] bool) from frame a of `dynamic_orbit` 0 to frame b of it, or of
        `other`: see `ClipGeometry.flow`.
        """
        return self.clip().flow(frame_a, frame_b, other, motion)

    def points(self, frame: int, axes: Axes = "world") -> npt.NDArray[np.float32]:
        """[H, W, 3] places of what each pixel of a frame of `dynamic_orbit` 0 sees; 0 where nothing."""
        return self.clip().points(frame, axes)

    def tracks(
        self, n: int, seed: int = 0, on: Literal["surface", "pixels"] = "surface", frame: int = 0
    ) -> Tracks:
        """(xyz [n, F, 3], pixels [n, F, 2], visible [n, F]) through `dynamic_orbit` 0: see
        `ClipGeometry.tracks`.
        """
        return self.clip().tracks(n, seed, on, frame)


def read_geometry(dataset: str | os.PathLike[str] | Index, uid: str, action: str | int = "") -> Geometry:
    """The geometry of one action of a dataset (a path, a URI, or an open Index).

    `action` is the action's name or its index in the asset's file; '' means the action of that name, or else
    the asset's only one. Raises InputError for an action that is not there, whose geometry was not rendered,
    or was refused (naming the reason code), WorkError for damage.

    The result has `faces` [M, 3] int64, `vertices` [T, V, 3] float32 in the clip's world and `seconds` [T],
    and per clip, by `clip(rig, orbit)`, `surface_map(frame)`, `flow(frame_a, frame_b)`, `points(frame)`,
    `tracks(n, seed)`; its own methods of these names are those of `dynamic_orbit` 0.
    """
    index = dataset if isinstance(dataset, Index) else Index(dataset)
    rows = pick_action(index, uid, action)
    where = f"{index.store.uri}: asset {uid}, action {rows[0]['action']!r}"
    added_row(index, rows[0], action_sample(uid, rows[0]["action_index"]), GEOMETRY)
    return Geometry(index, rows, where)


def added_row(index: Index, row: Mapping[str, Any], sample: str, kind: str) -> dict[str, Any]:
    """Row of what was added to a sample; InputError where it was not rendered, or was refused."""
    found = index.added.row(row["uid"], sample, kind)
    where = f"{index.store.uri}: {sample}"
    if found is None:
        raise InputError(
            f"{where} has no {GEOMETRY if kind == SURFACE else kind}; `orbit4d render SOURCE --out "
            f"{index.store.uri} --add-passes {GEOMETRY if kind == SURFACE else kind}` adds it"
        )
    if found["refused"]:
        raise InputError(f"{where}: its {kind} was refused: {found['refused']} ({found['detail']})")
    return found


_kept: OrderedDict[tuple[str, str], ActionMesh] = OrderedDict()
_lock = threading.Lock()


def read_mesh(index: Index, row: Mapping[str, Any], where: str) -> ActionMesh:
    """The surfaces that an index row's clip shares with all of its action's; the last ones read are kept."""
    found = added_row(index, row, action_sample(row["uid"], row["action_index"]), GEOMETRY)
    key = (index.store.uri, found["sha256"])
    with _lock:
        mesh = _kept.get(key)
        if mesh is not None:
            _kept.move_to_end(key)
            return mesh
    mesh, _ = decode_mesh(index.added.members(found)[0], where)
    with _lock:
        _kept[key] = mesh
        while sum(one.nbytes for one in _kept.values()) > KEEP_BYTES and len(_kept) > 1:
            _kept.popitem(last=False)
    return mesh


def read_clip_geometry(index: Index, row: Mapping[str, Any], mesh: ActionMesh) -> ClipGeometry:
    """The clip of a whole index row over its action's surfaces."""
    sample = clip_sample(row)
    found = added_row(index, row, sample, SURFACE)
    where = f"{index.store.uri}: {sample}"
    stored = decode_maps(index.added.members(found)[0], where)
    return clip_geometry(mesh, row_cameras(row), row["seconds"], stored, where)
