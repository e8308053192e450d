"""What was added to the clips of a dataset, and its bytes back."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.datasets.added.rows import INDEX, SCHEMA, check_schema
from orbit4d.datasets.core.damage import VERIFY
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import sealed

_ORDER = [(name, "ascending") for name in ("uid", "action_index", "sample", "kind")]


def added_parts(store: Store) -> list[str]:
    """Names of the index parts, in order."""
    return list(store.list(INDEX, ".parquet"))


class AddedIndex:
    """Rows of everything that was added, by asset. Read when they are first asked for; safe for threads."""

    def __init__(self, store: Store, shard_store: Store) -> None:
        """`shard_store` holds the shards: of a view, the dataset that it was selected from."""
        self.store, self.shard_store = store, shard_store
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "shard_store": self.shard_store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["shard_store"])  # type: ignore[misc]

    @cached_property
    def table(self) -> pa.Table:
        """All rows, ordered by asset; damage raises WorkError."""
        tables = []
        for name in added_parts(self.store):
            where = self.store.path(name)
            tables.append(check_schema(sealed.load(self.store.read(name), where), where))
        return pa.concat_tables(tables).sort_by(_ORDER) if tables else SCHEMA.empty_table()

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """uid -> (first row, row after the last)."""
        with self._lock:
            uids = self.table.column("uid").to_pylist()
        starts = [i for i in range(len(uids)) if i == 0 or uids[i] != uids[i - 1]]
        return dict(zip((uids[i] for i in starts), zip(starts, [*starts[1:], len(uids)])))

    def __len__(self) -> int:
        return self.table.num_rows

    def rows_of(self, uid: str) -> list[dict[str, Any]]:
        """All rows of an asset; [] when nothing was added to it."""
        start, end = self._places.get(uid, (0, 0))
        return self.table.slice(start, end - start).to_pylist()

    def row(self, uid: str, sample: str, kind: str) -> dict[str, Any] | None:
        """The row of one kind of a sample, None when there is none."""
        return next((r for r in self.rows_of(uid) if (r["sample"], r["kind"]) == (sample, kind)), None)

    def kinds(self) -> dict[str, int]:
        """kind -> samples that have it, those that refuse it not counted."""
        names, counts = np.unique(
            [
                k
                for k, why in zip(self.table["kind"].to_pylist(), self.table["refused"].to_pylist())
                if not why
            ],
            return_counts=True,
        )
        return dict(zip(names.tolist(), counts.tolist()))

    def members(self, row: Mapping[str, Any]) -> list[bytes]:
        """Members of a row, by one ranged read, compared with its SHA-256; damage raises WorkError."""
        where = self.shard_store.path(row["shard"])
        if not row["offsets"]:
            return []
        start = min(row["offsets"])
        end = max(offset + length for offset, length in zip(row["offsets"], row["lengths"]))
        try:
            data = self.shard_store.read_range(row["shard"], start, end - start)
        except FileNotFoundError:
            raise WorkError(f"{where}: missing, though the index names it") from None
        found = [data[o - start : o - start + n] for o, n in zip(row["offsets"], row["lengths"])]
        if hashlib.sha256(b"".join(found)).hexdigest() != row["sha256"]:
            raise WorkError(f"{where}: {row['kind']} of {row['sample']} is not what was written; {VERIFY}")
        return found
