"""The driver's side of a dataset: create or reopen it, roll staged assets into shards, record rejections.

Commit protocol. An asset is done when its two staged files exist (`staging.stage_asset`, any process). The
driver rolls staged assets, sorted by uid, into a shard; writes the index part; and only then deletes the
staged files. Every put is atomic and every step can be repeated: a crash anywhere loses nothing that was
reported done and shows a reader nothing half done.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, OrbitError, StorageFault, StorageRefused, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import manifest, parts, rejections, sealed, staging
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.schema import SCHEMA_VERSION
from orbit4d.datasets.store.shards import only_here
from orbit4d.datasets.store.staging import (
    ShardDraft,
    Staged,
    check_tar,
    load_rows,
    stage_asset,
    staged_assets,
)

SHARD_BYTES = 256 << 20


@dataclass
class Rolled:
    """What one call of `DatasetWriter.roll` did."""

    shards: int = 0
    assets: int = 0
    clips: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Uids whose staged files did not fit together; they were dropped and count as not done."""


class DatasetWriter:
    """Creates or reopens a dataset at a path or URI. One writer at a time (`lease`); any number of stagers.

    Another configuration than the stored one raises InputError naming the first key that differs. A folder
    that holds other files, or that cannot be written, raises InputError too.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        shard_bytes: int = SHARD_BYTES,
        software: Mapping[str, str] | None = None,
    ) -> None:
        self.store = Store(uri)
        self.uri = self.store.uri
        self.shard_bytes = shard_bytes
        self.guard: Callable[[], None] = lambda: None
        """Called around the write that commits; raises where the dataset is another driver's by now."""
        self.term = 1
        """Number of the lease: a driver that took over gives its shards names of its own."""
        self._contents: dict[str, str] | None = None
        self._parts: list[str] = []
        self._number: int | None = None
        # Held by what must not be done by two threads at once; reading and uploading are.
        self._lock = threading.RLock()
        config = manifest.resolved(config)
        if not self.store.exists(manifest.NAME):
            self._create(config, software)
            return
        self.manifest = manifest.read(self.store)
        if self.manifest.shards_at:
            raise InputError(f"{self.uri}: a view made by `orbit4d select` cannot be written; copy it first")
        where = manifest.first_difference(self.manifest.config, config)
        if where is not None:
            have, want = (_shown(manifest.value_at(c, where)) for c in (self.manifest.config, config))
            raise InputError(
                f"{self.uri}: holds another configuration ({where} is {have}, asked for {want}); "
                "choose another --out or the same settings"
            )
        if self.manifest.schema_version < SCHEMA_VERSION:
            # What is written from here on is of the present version; older parts stay as they are.
            self.manifest = replace(self.manifest, schema_version=SCHEMA_VERSION)
            self.store.put(manifest.NAME, manifest.dump(self.manifest))

    def _create(self, config: dict[str, Any], software: Mapping[str, str] | None) -> None:
        foreign = [name for name in self.store.entries() if name not in ("staging", "rejected")]
        if foreign:
            raise InputError(f"{self.uri}: holds {foreign[0]} but no dataset; choose an empty folder")
        versions = {**manifest.software_versions(), **(software or {})}
        self.manifest = manifest.Manifest(config=config, software=versions)
        crash_point("create_before_manifest")
        try:
            self.store.put(manifest.NAME, manifest.dump(self.manifest))
        except StorageFault:
            raise
        except OrbitError as error:
            raise InputError(str(error)) from error
        crash_point("create_after_manifest")

    def stage(self, uid: str, clips: Iterable[Clip], rejected: Sequence[Rejection] = ()) -> None:
        """Stage all clips of one asset (see `stage_asset`, which workers call)."""
        stage_asset(self.store, uid, clips, rejected)

    def reject(self, rows: Sequence[Rejection]) -> None:
        """Record assets or actions that will not become clips, in one atomic put."""
        with self._lock:
            rejections.write(self.store, rows)

    def rejected(self) -> dict[str, Rejection]:
        """The rejection of each uid; of an asset with several, that of the whole asset, else the first
        action's.
        """
        found: dict[str, Rejection] = {}
        for row in self.rejections():
            found.setdefault(row.uid, row)
        return found

    def rejections(self) -> list[Rejection]:
        """All rejections, sorted by uid, action and stage."""
        return rejections.read(self.store)

    def indexed(self) -> set[str]:
        """Uids whose clips are committed."""
        return set(self.contents())

    def contents(self) -> dict[str, str]:
        """uid -> SHA-256 of the asset file, of every committed asset."""
        with self._lock:
            if self._contents is None:
                found: dict[str, str] = {}
                self._parts = parts.live_parts(self.store)[0]
                for table in parts.read_parts(self.store, self._parts, ["uid", "asset_sha256"]):
                    found.update(zip(table["uid"].to_pylist(), table["asset_sha256"].to_pylist()))
                self._contents = found
            return self._contents

    def refresh(self) -> None:
        """Forget what is committed where another writer has changed it since it was read."""
        with self._lock:
            if parts.live_parts(self.store)[0] != self._parts:
                self._contents = None

    def finished(self) -> set[str]:
        """Uids that are done: committed, or staged."""
        return self.indexed() | {staged.uid for staged in staged_assets(self.store)}

    def digest(self) -> str:
        """SHA-256 over the committed clips (see `digest.dataset_digest`)."""
        return dataset_digest(self.store)

    def roll(self, final: bool = False) -> Rolled:
        """Commit staged assets: whole shards now, and with `final` all the rest.

        `final` also removes what was never committed (unfinished puts, tars without rows, shards without an
        index part), and rows that stand twice; call it when no worker stages any more.
        """
        rolled = Rolled()
        group: list[Staged] = []
        for staged in self.waiting():
            group.append(staged)
            if sum(member.tar_bytes for member in group) >= self.shard_bytes:
                self.commit(group, rolled)
                group = []
        if final:
            if group:
                self.commit(group, rolled)
            self._sweep()
        self.merge_parts()
        crash_point("roll_done")
        return rolled

    def waiting(self) -> list[Staged]:
        """Staged assets that are not committed, sorted by uid; leftovers of committed ones are removed."""
        staged = staged_assets(self.store)
        known = self.contents()
        # A crash between the index part and the deletion, or the late attempt of a lost worker.
        self.store.delete([n for s in staged if s.uid in known for n in (s.rows, s.tar)])
        return [s for s in staged if s.uid not in known]

    def merge_parts(self) -> int:
        """Merge small index parts when there are many; returns how many were replaced."""
        with self._lock:
            return parts.merge_small(self.store, force=False)

    def commit(self, group: Sequence[Staged], rolled: Rolled | None = None) -> Rolled:
        """Make one shard, and its index part, of staged assets, and delete what was staged.

        May be called by several threads. What does not fit together is dropped and listed in `damaged`.
        """
        rolled = rolled or Rolled()
        loaded = self._load_rows(sorted(group, key=lambda staged: staged.uid), rolled)
        if not loaded:
            return rolled
        # Before the index names the assets: from then on nothing would look for these rows again. After a
        # crash the same rows are written a second time, and read as one.
        self.reject([row for _, _, given in loaded for row in given])
        crash_point("roll_after_rejected")
        stem = self._stem([table for _, table, _ in loaded])
        shard = ShardDraft(self.store, f"shards/{stem}.tar")
        crash_point("roll_before_shard")
        self.store.put_stream(shard.name, shard.pieces([(staged, table) for staged, table, _ in loaded]))
        crash_point("roll_after_shard")
        self.guard()
        self._drop(shard.damaged, rolled)
        if shard.gone:
            self._explain(shard.gone, rolled)
        if not shard.whole:
            self.store.delete([shard.name])
            return rolled
        table = shard.rows()
        self.store.put(f"index/{stem}.parquet", sealed.dump(table))
        crash_point("roll_after_index")
        self._check_still_ours()
        whole = [staged for staged, _, _ in shard.whole]
        with self._lock:
            self.contents().update(zip(table["uid"].to_pylist(), table["asset_sha256"].to_pylist()))
            rolled.shards += 1
            rolled.assets += len(whole)
            rolled.clips += table.num_rows
            rolled.bytes += shard.size
        self._delete_staged(whole)
        return rolled

    def _check_still_ours(self) -> None:
        """Another driver may have taken over while we wrote, and have committed the same assets."""
        try:
            self.guard()
        except OrbitError:
            parts.drop_doubles(self.store)
            raise

    def _load_rows(
        self, group: Sequence[Staged], rolled: Rolled
    ) -> list[tuple[Staged, pa.Table, list[Rejection]]]:
        """Rows and rejected actions of staged assets; those that are damaged or gone are dropped."""
        loaded, damaged, gone = [], [], []
        pages = self.store.read_many([staged.rows for staged in group], missing=True)
        for staged, page in zip(group, pages, strict=True):
            if page is None:
                gone.append(staged)
                continue
            try:
                table, given = load_rows(self.store, staged, page)
                if self.store.local is not None:
                    # Reading twice costs little here, and the shard needs no draft.
                    check_tar(self.store, staged, table, self.store.read(staged.tar))
                loaded.append((staged, table, given))
            except WorkError as error:
                if isinstance(error, StorageFault):
                    raise
                damaged.append(staged)
            except FileNotFoundError:
                gone.append(staged)
        self._drop(damaged, rolled)
        if gone:
            self._explain(gone, rolled)
        return loaded

    def _explain(self, gone: Sequence[Staged], rolled: Rolled) -> None:
        """Staged files that are not there: another driver's commit, a place that is gone, or damage."""
        if not self.store.exists(manifest.NAME):
            raise StorageRefused(f"{self.store.path(manifest.NAME)}: is gone; was the place deleted?")
        with self._lock:
            self._contents = None
            known = self.contents()
        rolled.damaged += [staged.uid for staged in gone if staged.uid not in known]

    def _drop(self, damaged: Sequence[Staged], rolled: Rolled) -> None:
        self.store.delete([name for staged in damaged for name in (staged.rows, staged.tar)])
        rolled.damaged += [staged.uid for staged in damaged]

    def _stem(self, tables: Sequence[pa.Table]) -> str:
        """Name of a shard and its part: a number of its own, and what it is made of."""
        content = hashlib.sha256("".join(sha for t in tables for sha in t["sha256"].to_pylist()).encode())
        if self.term > 1:
            # One that was taken over in the middle may still write what it had begun.
            content.update(f" {self.term}".encode())
        with self._lock:
            if self._number is None:
                names = [*self.store.list("shards"), *self.store.list("index")]
                self._number = max(map(parts.sequence, names), default=-1)
            self._number += 1
            return f"{self._number:06d}-{content.hexdigest()[:8]}"

    def _delete_staged(self, whole: Sequence[Staged]) -> None:
        names = [name for staged in whole for name in (staged.rows, staged.tar)]
        if self.store.local is not None:
            self.store.delete(names[:2])
            crash_point("roll_half_deleted")
            names = names[2:]
        self.store.delete(names)

    def _sweep(self) -> None:
        """Remove what no index part, and no staged asset, refers to."""
        if parts.drop_doubles(self.store):
            self._contents = None
        live, stale = parts.live_parts(self.store)
        used = {
            name
            for table in parts.read_parts(self.store, live, ["shard"])
            for name in pc.unique(table.column("shard")).to_pylist()
        }
        # What is nowhere else stays, for `orbit4d verify` to report.
        known = self.indexed() | {staged.uid for staged in staged_assets(self.store)}
        orphans = [
            name
            for name in self.store.list("shards", ".tar")
            if name not in used and not only_here(self.store.read(name), known)
        ]
        drafts = [
            name
            for folder in ("shards", "index", "rejected", "staging", "")
            for name in self.store.list(folder, temporary=True)
        ]
        pairs = {name for staged in staged_assets(self.store) for name in (staged.tar, staged.rows)}
        halves = [name for name in self.store.list(staging.FOLDER) if name not in pairs]
        self.store.delete([*stale, *orphans, *drafts, *halves])


def _shown(value: Any) -> str:
    """A setting for a message: cameras of a rig would fill pages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
