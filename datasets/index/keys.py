"""The key columns of a whole index in little memory: 11 bytes a row, and one uid per asset.

An asset's rows are adjacent and lie in one part, so a uid is kept once, and a row only knows its asset's
number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.store.schema import SPLITS

COLUMNS = ("uid", "action_index", "rig", "orbit", "split", "light")


@dataclass(frozen=True)
class Keys:
    """Columns of all rows; `R` rows, `A` assets."""

    asset: npt.NDArray[np.int32]
    """[R] number of the row's asset."""
    action_index: npt.NDArray[np.int16]
    """[R]"""
    rig: npt.NDArray[np.int8]
    """[R] place in `rigs`."""
    orbit: npt.NDArray[np.int16]
    """[R]"""
    split: npt.NDArray[np.int8]
    """[A] place in SPLITS, per asset."""
    uids: pa.ChunkedArray
    """[A] string."""
    rigs: tuple[str, ...]
    """Names of the rigs."""
    light: npt.NDArray[np.int16]
    """[R]"""

    def uid(self, row: int) -> str:
        """Uid of a row."""
        return self.uids[int(self.asset[row])].as_py()


def load_keys(n: int, parts: Iterable[tuple[int, pa.Table]]) -> Keys:
    """Keys of an index of `n` rows; parts: (number of its first row, table of the COLUMNS), in order."""
    asset = np.empty(n, np.int32)
    action_index, orbit, light = (np.empty(n, np.int16) for _ in range(3))
    rig = np.empty(n, np.int8)
    rigs: dict[str, int] = {}
    uids: list[pa.Array] = []
    splits: list[npt.NDArray[np.int8]] = []
    n_assets = 0
    for first, table in parts:
        here = slice(first, first + table.num_rows)
        uid = table.column("uid").combine_chunks()
        uid = uid.chunk(0) if isinstance(uid, pa.ChunkedArray) else uid
        starts = np.ones(len(uid), bool)
        starts[1:] = pc.not_equal(uid.slice(1), uid.slice(0, len(uid) - 1)).to_numpy(zero_copy_only=False)
        asset[here] = np.cumsum(starts) + (n_assets - 1)
        firsts = np.flatnonzero(starts)
        uids.append(uid.take(pa.array(firsts)))
        n_assets += len(firsts)
        action_index[here] = _integers(table, "action_index")
        orbit[here] = _integers(table, "orbit")
        light[here] = _integers(table, "light")
        rig[here] = _codes(table.column("rig"), rigs)
        known = {name: i for i, name in enumerate(SPLITS)}
        splits.append(_codes(table.column("split"), known)[firsts])
    split = np.concatenate(splits) if splits else np.empty(0, np.int8)
    return Keys(
        asset, action_index, rig, orbit, split, pa.chunked_array(uids, pa.string()), tuple(rigs), light
    )


def _integers(table: pa.Table, name: str) -> npt.NDArray[np.int16]:
    return table.column(name).to_numpy().astype(np.int16)


def _codes(column: pa.ChunkedArray, known: dict[str, int]) -> npt.NDArray[np.int8]:
    """Places of a dictionary column's values in `known`, which grows by what it lacks."""
    pieces = []
    for chunk in column.chunks:
        table = np.array([known.setdefault(v, len(known)) for v in chunk.dictionary.to_pylist()], np.int8)
        pieces.append(table[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(pieces) if pieces else np.empty(0, np.int8)
