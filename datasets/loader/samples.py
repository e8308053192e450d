"""From index rows to training samples: one per (uid, action, orbit, light), with a row for each rig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.keys import Keys

#: Short names of a sample's clips, and the rigs they come from.
RIG_OF = {"dynamic": "dynamic_orbit", "static": "static_orbit", "front": "front_view"}

Rows = npt.NDArray[np.int64]


class OrbitSample(TypedDict):
    """One item of an `OrbitDataset`: an orbit of one action of an asset.

    Clips are float32 [F, 3, H, W] in [0, 1] on the background, their alpha [F, 1, H, W]. c2w [F, 4, 4]
    float32 has OpenGL axes, K [F, 3, 3] is in pixels of the delivered size, time [F] lies in [0, 1]; they are
    those of the dynamic orbit, else of the static one, else of the front view. What is not required is there
    where the dataset holds it, and passes where they were asked for.
    """

    uid: str
    action: str
    action_index: int
    orbit: int
    split: str
    caption: str
    light: int
    """Number of the lighting, 0 where there is one."""
    c2w: Tensor
    K: Tensor
    time: Tensor
    dynamic: NotRequired[Tensor]
    alpha_dynamic: NotRequired[Tensor]
    static: NotRequired[Tensor]
    alpha_static: NotRequired[Tensor]
    front: NotRequired[Tensor]
    alpha_front: NotRequired[Tensor]
    front_c2w: NotRequired[Tensor]
    front_K: NotRequired[Tensor]
    front_time: NotRequired[Tensor]
    motion_magnitude: NotRequired[Tensor]
    """[] mean squared difference of dynamic and static orbit, where it was measured."""
    depth_dynamic: NotRequired[Tensor]
    """[F, 1, H, W] float32, infinite where nothing is hit; as all passes of `datasets.store.passes`."""
    depth_static: NotRequired[Tensor]
    depth_front: NotRequired[Tensor]
    normal_dynamic: NotRequired[Tensor]
    """[F, 3, H, W] float32, axes of the clip's world."""
    normal_static: NotRequired[Tensor]
    normal_front: NotRequired[Tensor]
    mask_dynamic: NotRequired[Tensor]
    """[F, 1, H, W] int64."""
    mask_static: NotRequired[Tensor]
    mask_front: NotRequired[Tensor]


@dataclass(frozen=True)
class Samples:
    """`S` samples in the order of the index.

    Each array holds index rows, -1 where the sample lacks that clip.
    """

    dynamic: Rows
    """[S]"""
    static: Rows
    """[S]"""
    front: Rows
    """[S] the front view of the same orbit, else that of orbit 0, under the same light."""
    anchor: Rows
    """[S] the row a filter looks at: the dynamic orbit's, else the static one's, else the front view's."""

    def __len__(self) -> int:
        return len(self.anchor)

    def take(self, keep: npt.NDArray[np.bool_]) -> Samples:
        """The samples where `keep` [S] holds."""
        return Samples(self.dynamic[keep], self.static[keep], self.front[keep], self.anchor[keep])


def group(keys: Keys, require: Sequence[str] = ("dynamic",)) -> Samples:
    """Samples that have every clip of `require` (of dynamic, static, front)."""
    for name in require:
        if name not in RIG_OF:
            raise InputError(f"require={name!r}: known are {', '.join(RIG_OF)}")
    sizes = tuple(int(of.max(initial=0)) + 1 for of in (keys.action_index, keys.orbit, keys.light))
    per_action, lights = sizes[1] * sizes[2], sizes[2]
    found = {name: _sorted_rows(keys, rig, sizes) for name, rig in RIG_OF.items()}
    first = next((name for name in RIG_OF if name in require), None)
    wanted = found[first][0] if first else _any_clip(found, per_action)
    rows = {name: _look_up(*found[name], wanted) for name in RIG_OF}
    shared_front = _look_up(*found["front"], wanted - wanted % per_action + wanted % lights)
    rows["front"] = np.where(rows["front"] >= 0, rows["front"], shared_front)
    anchor = rows["front"]
    for name in ("static", "dynamic"):
        anchor = np.where(rows[name] >= 0, rows[name], anchor)
    samples = Samples(rows["dynamic"], rows["static"], rows["front"], anchor)
    return samples.take(np.logical_and.reduce([rows[name] >= 0 for name in require] or [anchor >= 0]))


def _any_clip(found: dict[str, tuple[Rows, Rows]], per_action: int) -> Rows:
    """Codes of all samples that have any clip at all."""
    turning = np.union1d(found["dynamic"][0], found["static"][0])
    # A front view belongs to every orbit of its action, but makes no sample of its own beside an orbit.
    alone = found["front"][0]
    return np.union1d(turning, alone[~np.isin(alone // per_action, turning // per_action)])


def _sorted_rows(keys: Keys, rig: str, sizes: tuple[int, ...]) -> tuple[Rows, Rows]:
    """(codes of asset, action, orbit and light, ascending; their rows) of one rig; `sizes` are how many
    actions, orbits and lights there may be."""
    if rig not in keys.rigs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = np.flatnonzero(keys.rig == keys.rigs.index(rig))
    codes = keys.asset[rows].astype(np.int64)
    for size, column in zip(sizes, (keys.action_index, keys.orbit, keys.light)):
        codes *= size
        codes += column[rows]
    # Rows are written in key order, so this is sorted already in all but foreign indices.
    if np.any(codes[1:] < codes[:-1]):
        order = np.argsort(codes, kind="stable")
        rows, codes = rows[order], codes[order]
    return codes, rows


def _look_up(codes: Rows, rows: Rows, wanted: Rows) -> Rows:
    """Row of each wanted code, -1 where there is none."""
    if not len(codes):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[place] == wanted, rows[place], -1)
