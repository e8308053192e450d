"""Reading an index: which rows there are, and the details of one row without reading the others."""

from __future__ import annotations

import bisect
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orbit4d.datasets import manifest
from orbit4d.datasets.errors import WorkError
from orbit4d.datasets.keys import Keys, load_keys
from orbit4d.datasets.parts import live_parts
from orbit4d.datasets.storage import Store

#: Decoded row groups kept for `Index.row`.
_KEEP_GROUPS = 8


@dataclass(frozen=True)
class Part:
    """One Parquet file of the index and where its rows stand in the whole."""

    name: str
    first_row: int
    metadata: pq.FileMetaData

    @property
    def n_rows(self) -> int:
        """Rows of the part."""
        return self.metadata.num_rows


class Index:
    """The committed rows of a dataset, numbered 0 .. len-1 in the order of the parts.

    Opening reads the footers of the parts only. Safe for many threads; picklable (a copy opens the files
    anew).
    """

    def __init__(self, uri: str | os.PathLike[str] | Store) -> None:
        self.store = uri if isinstance(uri, Store) else Store(uri)
        self.manifest = manifest.read(self.store)
        #: Where the shards lie: the dataset itself, or for a view the dataset it was selected from.
        self.shard_store = Store(self.manifest.shards_at) if self.manifest.shards_at else self.store
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[int, int, tuple[str, ...]], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.store.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    def __len__(self) -> int:
        return self.parts[-1].first_row + self.parts[-1].n_rows if self.parts else 0

    @cached_property
    def parts(self) -> list[Part]:
        """Parts that count, in the order of their names."""
        found, first = [], 0
        for name in live_parts(self.store)[0]:
            with self._open(name) as file:
                found.append(Part(name, first, file.metadata))
            first += found[-1].n_rows
        return found

    def _open(
        self, name: str, metadata: pq.FileMetaData | None = None, dictionaries: Sequence[str] = ()
    ) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(
                self.store.open(name),
                metadata=metadata,
                read_dictionary=list(dictionaries) or None,
                page_checksum_verification=True,
            )
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.store.path(name), error) from error

    def read(
        self, columns: Sequence[str], dictionaries: Sequence[str] = ()
    ) -> Iterator[tuple[int, pa.Table]]:
        """(first row, columns) part by part; `dictionaries` come as Arrow dictionary columns."""
        for part in self.parts:
            try:
                with self._open(part.name, part.metadata, dictionaries) as file:
                    table = file.read(columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(self.store.path(part.name), error) from error
            yield part.first_row, table

    @cached_property
    def keys(self) -> Keys:
        """Key and split columns of all rows, packed."""
        return load_keys(self)

    def row(self, number: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Row `number` as a dict, all columns or some. Decodes its row group, and keeps a few of them."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        part_number = bisect.bisect_right(self._firsts, number) - 1
        part = self.parts[part_number]
        local, group = number - part.first_row, 0
        while local >= part.metadata.row_group(group).num_rows:
            local -= part.metadata.row_group(group).num_rows
            group += 1
        return self._group(part_number, group, tuple(columns or ())).slice(local, 1).to_pylist()[0]

    @cached_property
    def _firsts(self) -> list[int]:
        return [part.first_row for part in self.parts]

    def _group(self, part_number: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        key = (part_number, group, columns)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
        part = self.parts[part_number]
        try:
            with self._open(part.name, part.metadata) as file:
                table = file.read_row_group(group, columns=list(columns) or None, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.store.path(part.name), error) from error
        with self._lock:
            self._groups[key] = table
            while len(self._groups) > _KEEP_GROUPS:
                self._groups.popitem(last=False)
        return table

    def rows_of(self, uid: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All rows of an asset; [] when there is none. Uses the statistics of the row groups."""
        found: list[dict[str, Any]] = []
        for part_number, part in enumerate(self.parts):
            uid_column = part.metadata.schema.names.index("uid")
            for group in range(part.metadata.num_row_groups):
                statistics = part.metadata.row_group(group).column(uid_column).statistics
                known = statistics is not None and statistics.has_min_max
                if known and not statistics.min <= uid <= statistics.max:
                    continue
                names = self._group(part_number, group, ("uid",)).column("uid").to_pylist()
                if uid in names:
                    table = self._group(part_number, group, tuple(columns or ()))
                    hits = [i for i, name in enumerate(names) if name == uid]
                    found += table.take(hits).to_pylist()
        return found


def _damaged(path: str, error: Exception) -> WorkError:
    return WorkError(f"{path}: not a readable index part ({error}); run `orbit4d verify`")
