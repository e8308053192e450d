"""What samples hold of the geometry beside their clips: derived while loading, from the stored surfaces."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.datasets.geometry.clip import ClipGeometry
from orbit4d.datasets.geometry.reader import GEOMETRY, read_clip_geometry, read_mesh
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.loader.samples import Samples

#: Rows of the index that are kept, per process.
_KEEP_ROWS = 512
_COLUMNS = ("uid", "action", "action_index", "rig", "orbit", "c2w", "fl_x", "fl_y", "cx", "cy",
            "width", "height", "seconds")  # fmt: skip

#: Kinds with an image per frame -> what makes it of a clip and a frame.
_PER_FRAME: dict[str, Callable[[ClipGeometry, int], npt.NDArray[Any]]] = {
    "pointmap": lambda clip, f: clip.points(f),
    "pointmap_camera": lambda clip, f: clip.points(f, "camera"),
    "pointmap_first": lambda clip, f: clip.points(f, "first"),
    "depth": lambda clip, f: clip.depth(f),
    "normal": lambda clip, f: clip.normals(f),
    "nocs": lambda clip, f: clip.nocs(f),
    "object": lambda clip, f: clip.objects(f),
    "material": lambda clip, f: clip.materials(f),
    "triangle": lambda clip, f: clip.triangles(f).astype(np.int64),
}
#: Everything that `OrbitDataset(geometry=...)` takes.
KINDS = ("flow", "scene_flow", "tracks", *_PER_FRAME)


def geometry_kinds(asked: Sequence[str], passes: Sequence[str]) -> tuple[str, ...]:
    """The kinds as a tuple, of one too. InputError for an unknown or doubled one, and for one that is asked
    for as a stored pass as well.
    """
    kinds = (asked,) if isinstance(asked, str) else tuple(asked)
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"geometry={kind!r}: {or_known(kind, KINDS)}")
        if kinds.count(kind) > 1 or kind in passes:
            raise InputError(f"geometry={kinds!r}: {kind!r} is named twice")
    return kinds


def with_geometry(index: Index, samples: Samples) -> tuple[Samples, dict[str, int]]:
    """(samples whose action has geometry, reason -> samples left out)."""
    state: dict[tuple[str, int], str] = {
        (uid, action): refused
        for uid, action, kind, refused in zip(
            *(index.added.table[n].to_pylist() for n in ("uid", "action_index", "kind", "refused"))
        )
        if kind == GEOMETRY
    }
    keys = index.keys
    uids = keys.uids.to_pylist()
    why = [
        state.get((uids[keys.asset[row]], int(keys.action_index[row])), "not rendered")
        for row in samples.anchor.tolist()
    ]
    names, counts = np.unique([reason for reason in why if reason], return_counts=True)
    left_out = dict(zip(names.tolist(), counts.tolist()))
    return samples.take(np.array([not reason for reason in why], bool)), left_out


class SurfaceSource:
    """Geometry of the rows of an index. Safe for many threads; a pickled copy starts empty."""

    def __init__(self, index: Index, kinds: Sequence[str], points: int) -> None:
        self.index, self.kinds, self.points = index, tuple(kinds), points
        self._forget()

    def _forget(self) -> None:
        self._rows: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "kinds": self.kinds, "points": self.points}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def clip(self, number: int, size: tuple[int, int] | None = None) -> ClipGeometry:
        """Geometry of index row `number`, at `size` = (width, height)."""
        with self._lock:
            row = self._rows.get(number)
        if row is None:
            row = self.index.row(number, _COLUMNS)
            with self._lock:
                self._rows[number] = row
                while len(self._rows) > _KEEP_ROWS:
                    self._rows.popitem(last=False)
        where = f"{self.index.store.uri}: {row['uid']}, action {row['action']!r}"
        found = read_clip_geometry(self.index, row, read_mesh(self.index, row, where))
        return found if size is None else found.resized(*size)

    def item(self, number: int, name: str, size: tuple[int, int] | None, seed: int) -> dict[str, Tensor]:
        """Everything that was asked for, of the clip `name` (dynamic, ...), under `<kind>_<name>`."""
        clip = self.clip(number, size)
        found: dict[str, Tensor] = {}
        for kind in self.kinds:
            if kind in _PER_FRAME:
                frames = [_PER_FRAME[kind](clip, f) for f in range(len(clip))]
                found[f"{kind}_{name}"] = _planes(frames)
            elif kind == "flow":
                pairs = [clip.flow(f, f + 1) for f in range(len(clip) - 1)]
                found[f"flow_{name}"] = _planes([flow for flow, _ in pairs])
                found[f"flow_visible_{name}"] = _planes([seen for _, seen in pairs])
            elif kind == "scene_flow":
                found[f"scene_flow_{name}"] = _planes(
                    [clip.scene_flow(f, f + 1) for f in range(len(clip) - 1)]
                )
            else:
                xyz, pixels, visible = clip.tracks(self.points, seed)
                found[f"tracks_{name}"] = torch.from_numpy(pixels)
                found[f"tracks_xyz_{name}"] = torch.from_numpy(xyz)
                found[f"tracks_visible_{name}"] = torch.from_numpy(visible)
        return found


def _planes(frames: Sequence[npt.NDArray[Any]]) -> Tensor:
    """[F, C, H, W] of images [H, W] or [H, W, C]."""
    stacked = np.stack(frames)
    stacked = stacked[:, None] if stacked.ndim == 3 else np.moveaxis(stacked, 3, 1)
    return torch.from_numpy(np.ascontiguousarray(stacked))
