"""Reading an index: which rows there are, and the details of one row without reading the others."""

from __future__ import annotations

import bisect
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orbit4d.datasets.added.reading import AddedIndex
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.keys import COLUMNS as KEY_COLUMNS
from orbit4d.datasets.index.keys import Keys, load_keys
from orbit4d.datasets.store import manifest
from orbit4d.datasets.store.parts import NOT_READABLE, check_columns, completed, live_parts, whole

#: Decoded row groups kept for `Index.row`.
_KEEP_GROUPS = 8
#: Parsed footers kept for reading single rows.
_KEEP_FOOTERS = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """One Parquet file of the index and where its rows stand in the whole."""

    name: str
    first_row: int
    group_ends: npt.NDArray[np.int64]
    """[G] number of the row after each row group, counted from `first_row`."""

    @property
    def n_rows(self) -> int:
        """Rows of the part."""
        return int(self.group_ends[-1]) if len(self.group_ends) else 0


class Index:
    """The committed rows of a dataset, numbered 0 .. len-1 in the order of the parts.

    Opening reads the footers of the parts only. Safe for many threads; picklable (a copy opens the files
    again).
    """

    def __init__(self, uri: str | os.PathLike[str] | Store) -> None:
        self.store = uri if isinstance(uri, Store) else Store(uri)
        self.manifest = manifest.read(self.store)
        #: Where the shards lie: the dataset itself, or for a view the dataset it was selected from.
        self.shard_store = Store(self.manifest.shards_at) if self.manifest.shards_at else self.store
        self._lock = threading.Lock()
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._known_bounds: dict[int, list[tuple[str, str] | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.store.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    def __len__(self) -> int:
        return self.parts[-1].first_row + self.parts[-1].n_rows if self.parts else 0

    @cached_property
    def parts(self) -> list[Part]:
        """Parts that count, in the order of their names."""

        def ends(name: str) -> npt.NDArray[np.int64]:
            # Parsed footers of a long index take more memory than its keys, so only the counts are kept.
            with self._reading(name), self._open(name) as file:
                check_columns(file)
                footer = file.metadata
                return np.cumsum(
                    [footer.row_group(i).num_rows for i in range(footer.num_row_groups)], dtype=np.int64
                )

        found, first = [], 0
        for name, group_ends in self._side_by_side(ends, live_parts(self.store)[0]):
            found.append(Part(name, first, group_ends))
            first += found[-1].n_rows
        return found

    def _side_by_side(self, read: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """(item, read(item)) in order, a few items ahead of the consumer; pyarrow reads without the GIL."""
        with ThreadPoolExecutor(min(8, usable_cores() + 1)) as pool:
            waiting: deque[tuple[T, Future[R]]] = deque()
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) >= 16:
                    ready, result = waiting.popleft()
                    yield ready, result.result()
            for ready, result in waiting:
                yield ready, result.result()

    def _open(
        self, name: str, metadata: pq.FileMetaData | None = None, dictionaries: Sequence[str] = ()
    ) -> pq.ParquetFile:
        return pq.ParquetFile(
            self.store.open(name),
            metadata=metadata,
            read_dictionary=list(dictionaries) or None,
            page_checksum_verification=True,
        )

    def _reading(self, name: str) -> AbstractContextManager[None]:
        return reading(self.store.path(name), NOT_READABLE)

    def _footer(self, part: Part) -> pq.FileMetaData:
        with self._lock:
            if part.name in self._footers:
                self._footers.move_to_end(part.name)
                return self._footers[part.name]
        with self._reading(part.name), self._open(part.name) as file:
            footer = file.metadata
        with self._lock:
            self._footers[part.name] = footer
            while len(self._footers) > _KEEP_FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def read(
        self, columns: Sequence[str], dictionaries: Sequence[str] = ()
    ) -> Iterator[tuple[int, pa.Table]]:
        """(first row, columns) part by part; `dictionaries` come as Arrow dictionary columns."""

        def table(part: Part) -> pa.Table:
            with self._reading(part.name), self._open(part.name, None, dictionaries) as file:
                return completed(whole(file.read(columns=list(columns), use_threads=False)), columns)

        for part, found in self._side_by_side(table, self.parts):
            yield part.first_row, found

    @cached_property
    def added(self) -> AddedIndex:
        """Passes that lie beside the clips, in shards and index parts of their own."""
        return AddedIndex(self.store, self.shard_store)

    @cached_property
    def keys(self) -> Keys:
        """Key and split columns of all rows, packed."""
        return load_keys(len(self), self.read(KEY_COLUMNS, dictionaries=("rig", "split")))

    def row(self, number: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Row `number` as a dict, all columns or some. Decodes its row group, and keeps a few of them."""
        part, group, local = self.place(number)
        with self._reading(self.parts[part].name):
            return self._group(part, group, tuple(columns or ())).slice(local, 1).to_pylist()[0]

    def place(self, number: int) -> tuple[int, int, int]:
        """(part, row group in it, row in that) of row `number`; IndexError where there is none."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        part_number = bisect.bisect_right(self._firsts, number) - 1
        part = self.parts[part_number]
        local = number - part.first_row
        group = int(np.searchsorted(part.group_ends, local, side="right"))
        if group:
            local -= int(part.group_ends[group - 1])
        return part_number, group, local

    @cached_property
    def _firsts(self) -> list[int]:
        return [part.first_row for part in self.parts]

    def _group(self, part_number: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        key = (part_number, group, columns)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
        table = self.read_group(part_number, group, columns)
        with self._lock:
            self._groups[key] = table
            while len(self._groups) > _KEEP_GROUPS:
                self._groups.popitem(last=False)
        return table

    def read_group(self, part_number: int, group: int, columns: Sequence[str] = ()) -> pa.Table:
        """Decode one row group of a part: all columns, or some."""
        part = self.parts[part_number]
        with self._reading(part.name), self._open(part.name, self._footer(part)) as file:
            table = whole(file.read_row_group(group, columns=list(columns) or None, use_threads=False))
            return completed(table, columns or None)

    def rows_of(self, uid: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All rows of an asset; [] when there is none. Decodes only the row groups that may hold it."""
        found: list[dict[str, Any]] = []
        for part_number, part in enumerate(self.parts):
            for group, bounds in enumerate(self._bounds(part_number)):
                if bounds is not None and not bounds[0] <= uid <= bounds[1]:
                    continue
                with self._reading(part.name):
                    names = self._group(part_number, group, ("uid",)).column("uid").to_pylist()
                    if uid in names:
                        table = self._group(part_number, group, tuple(columns or ()))
                        found += table.take([i for i, name in enumerate(names) if name == uid]).to_pylist()
        return found

    def _bounds(self, part_number: int) -> list[tuple[str, str] | None]:
        """(first, last) uid of each row group in the order of text; None where it is not known.

        On a disk from the uids themselves: no checksum covers the footer's statistics, and Arrow aborts the
        process where those are damaged in some ways. Object stores have checksums of their own, and there a
        column costs one request a group.
        """
        if part_number not in self._known_bounds:
            part = self.parts[part_number]
            with self._reading(part.name):
                read = self._bounds_of_uids if self.store.local is not None else self._bounds_of_footer
                self._known_bounds[part_number] = read(part)
        return self._known_bounds[part_number]

    def _bounds_of_uids(self, part: Part) -> list[tuple[str, str] | None]:
        with self._open(part.name) as file:
            uids = whole(file.read(columns=["uid"], use_threads=False)).column("uid")
        starts = [0, *part.group_ends[:-1].tolist()]
        groups = [pc.min_max(uids.slice(a, b - a)).as_py() for a, b in zip(starts, part.group_ends.tolist())]
        return [None if bounds["min"] is None else (bounds["min"], bounds["max"]) for bounds in groups]

    def _bounds_of_footer(self, part: Part) -> list[tuple[str, str] | None]:
        footer = self._footer(part)
        column = footer.schema.names.index("uid")
        groups = [footer.row_group(i).column(column).statistics for i in range(footer.num_row_groups)]
        return [None if s is None or not s.has_min_max else (s.min, s.max) for s in groups]
