"""What a training sample needs of an index row, kept so small that a long index fits.

Parquet gives up one row only by decoding its row group (1024 rows, about 10 ms), so random order over a long
index would spend as long on the index as on the images. Decoded groups are therefore kept: numbers as they
are, equal cameras and times once (rigs repeat), about 0.4 kB a row, least recently used groups first out.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.store.parts import NOT_READABLE

if TYPE_CHECKING:
    from orbit4d.datasets.index.index import Index

#: Kept per process; at 0.4 kB a row that is about 650,000 clips.
KEEP_BYTES = 256 << 20

_NUMBERS = ("action_index", "orbit", "light", "width", "height", "fl_x", "fl_y", "cx", "cy")
_TEXTS = ("uid", "action", "split", "caption", "shard")
_LISTS = ("offsets", "lengths", "c2w", "time")
_COLUMNS = (*_TEXTS, *_NUMBERS, *_LISTS, "measures.motion_magnitude")

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Details:
    """One clip of `F` frames."""

    uid: str
    action: str
    action_index: int
    orbit: int
    split: str
    caption: str
    shard: str
    offsets: Int64
    """[F] first byte of each frame in the shard."""
    lengths: Int64
    """[F] bytes of each frame."""
    size: tuple[int, int]
    """(width, height) in pixels."""
    c2w: Float32
    """[F, 4, 4], OpenGL axes; shared between rows, not to be written to."""
    intrinsics: tuple[float, float, float, float]
    """(fl_x, fl_y, cx, cy) in pixels."""
    time: Float32
    """[F] in [0, 1]; shared between rows, not to be written to."""
    motion_magnitude: float | None
    passes: Mapping[str, tuple[Int64, Int64]] = field(default_factory=dict)
    """name -> (offsets [F], lengths [F]) of the passes that the cache was asked for and the clip has."""
    light: int = 0


class DetailsCache:
    """Details of the rows of an index. Safe for many threads; a pickled copy starts empty."""

    def __init__(self, index: Index, keep_bytes: int = KEEP_BYTES, passes: Sequence[str] = ()) -> None:
        self.index, self.keep_bytes, self.passes = index, keep_bytes, tuple(passes)
        self._forget()

    def _forget(self) -> None:
        self._groups: OrderedDict[tuple[int, int], _Group] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"index": self.index, "keep_bytes": self.keep_bytes, "passes": self.passes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __getitem__(self, number: int) -> Details:
        """Row `number` of the index."""
        part, group, local = self.index.place(number)
        key = (part, group)
        with self._lock:
            found = self._groups.get(key)
            if found is not None:
                self._groups.move_to_end(key)
        if found is None:
            columns = (*_COLUMNS, "passes") if self.passes else _COLUMNS
            table = self.index.read_group(part, group, columns)
            with reading(self.index.store.path(self.index.parts[part].name), NOT_READABLE):
                found = _Group(table, self.passes)
            with self._lock:
                if key not in self._groups:
                    self._groups[key] = found
                    self._bytes += found.nbytes
                while self._bytes > self.keep_bytes and len(self._groups) > 1:
                    self._bytes -= self._groups.popitem(last=False)[1].nbytes
        return found.row(local)


class _Group:
    """Columns of one row group."""

    def __init__(self, table: pa.Table, passes: Sequence[str] = ()) -> None:
        numbers = {name: table.column(name).to_numpy() for name in _NUMBERS}
        self.integers = [numbers[name].astype(np.int32) for name in _NUMBERS[:5]]
        self.intrinsics = np.stack([numbers[name] for name in _NUMBERS[5:]], axis=1)
        # Equal texts once: an asset's uid and caption stand in every of its rows, a shard's name in all.
        texts: dict[str, str] = {}
        self.texts = [
            [texts.setdefault(text, text) for text in table.column(name).to_pylist()] for name in _TEXTS
        ]
        # A column of its own copy: a field of the struct would keep all measures.
        motion = _whole(table.column("measures")).field("motion_magnitude")
        self.motion = np.array(motion.to_numpy(zero_copy_only=False), np.float64)
        self.ends, offsets = _lists(table.column("offsets"))
        lengths = _lists(table.column("lengths"))[1]
        starts = self.ends[:-1][np.diff(self.ends) > 0]
        counts = np.diff(self.ends)[np.diff(self.ends) > 0]
        self.first = np.zeros(table.num_rows, np.int64)
        self.first[np.diff(self.ends) > 0] = offsets[starts]
        relative = offsets - np.repeat(offsets[starts], counts)
        self.relative, self.lengths = _narrow(relative), _narrow(lengths)
        c2w_ends, c2w = _lists(table.column("c2w"))
        time_ends, time = _lists(table.column("time"))
        self.c2w, self.c2w_of = _distinct(c2w_ends, c2w.reshape(-1, 4, 4))
        self.time, self.time_of = _distinct(time_ends, time)
        arrays = [*self.integers, self.intrinsics, self.motion, self.ends, self.first, self.relative]
        arrays += [self.lengths, *self.c2w, self.c2w_of, *self.time, self.time_of]
        self.nbytes = sum(array.nbytes for array in arrays) + sum(map(sys.getsizeof, texts))
        self.nbytes += sum(map(sys.getsizeof, self.texts))
        self.passes = _spans(table, passes)
        self.nbytes += sum(a.nbytes + b.nbytes for row in self.passes for a, b in row.values())

    def row(self, i: int) -> Details:
        frames = slice(self.ends[i], self.ends[i + 1])
        uid, action, split, caption, shard = (text[i] for text in self.texts)
        action_index, orbit, light, width, height = (int(column[i]) for column in self.integers)
        fl_x, fl_y, cx, cy = self.intrinsics[i].tolist()
        motion = float(self.motion[i])
        return Details(
            uid=uid,
            action=action,
            action_index=action_index,
            orbit=orbit,
            split=split,
            caption=caption,
            shard=shard,
            offsets=self.first[i] + self.relative[frames].astype(np.int64),
            lengths=self.lengths[frames].astype(np.int64),
            size=(width, height),
            c2w=self.c2w[self.c2w_of[i]],
            intrinsics=(fl_x, fl_y, cx, cy),
            time=self.time[self.time_of[i]],
            motion_magnitude=None if np.isnan(motion) else motion,
            light=light,
            passes=self.passes[i] if self.passes else {},
        )


def _spans(table: pa.Table, names: Sequence[str]) -> list[dict[str, tuple[Int64, Int64]]]:
    """Of each row, where the passes of `names` lie; [] when none is asked for."""
    if not names:
        return []
    return [
        {
            name: (np.array(span["offsets"], np.int64), np.array(span["lengths"], np.int64))
            for name, span in row or []
            if name in names
        }
        for row in table.column("passes").to_pylist()
    ]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array that keeps no other column's memory."""
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _lists(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.generic]]:
    """(ends [R + 1], values) of a list column, lists within lists laid flat: row i is
    `values[ends[i]:ends[i + 1]]`."""
    array = _whole(column)
    ends = array.offsets.to_numpy()
    values = array.flatten()
    while pa.types.is_nested(values.type):
        values = values.flatten()
    return ends - ends[0], values.to_numpy(zero_copy_only=False)


def _distinct(
    ends: npt.NDArray[np.int32], values: npt.NDArray[np.generic]
) -> tuple[list[Float32], npt.NDArray[np.int32]]:
    """(different rows as float32, for each row its place among them)."""
    floats: Float32 = values.astype(np.float32)
    known: dict[bytes, int] = {}
    found: list[Float32] = []
    places = np.empty(len(ends) - 1, np.int32)
    for i in range(len(places)):
        row = floats[ends[i] : ends[i + 1]]
        place = known.setdefault(row.tobytes(), len(found))
        if place == len(found):
            found.append(row.copy())
        places[i] = place
    return found, places


def _narrow(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """In half the memory where nothing is lost."""
    fits = not len(values) or (values.min() >= 0 and values.max() < 1 << 32)
    return values.astype(np.uint32) if fits else values.astype(np.int64)
