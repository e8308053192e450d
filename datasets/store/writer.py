"""The driver's side of a dataset: create or reopen it, roll staged assets into shards, record rejections.

Commit protocol. An asset is done when its two staged files exist (`staging.stage_asset`, any process). The
driver rolls staged assets, sorted by uid, into a shard; writes the index part; and only then deletes the
staged files. Every put is atomic and every step can be repeated: a crash anywhere loses nothing that was
reported done and shows a reader nothing half done.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import manifest, parts, rejections, sealed, shards, staging
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.datasets.store.orphans import only_here
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.schema import SCHEMA_VERSION
from orbit4d.datasets.store.staging import Staged, load_staged, stage_asset, staged_assets

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
    """Creates or reopens a dataset at a path or URI. One writer at a time; any number of stagers.

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
        self._indexed: set[str] | None = None
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
        except OrbitError as error:
            raise InputError(str(error)) from error
        crash_point("create_after_manifest")

    def stage(self, uid: str, clips: Iterable[Clip], rejected: Sequence[Rejection] = ()) -> None:
        """Stage all clips of one asset (see `stage_asset`, which workers call)."""
        stage_asset(self.store, uid, clips, rejected)

    def reject(self, rows: Sequence[Rejection]) -> None:
        """Record assets or actions that will not become clips, in one atomic put."""
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
        if self._indexed is None:
            found: set[str] = set()
            for name in parts.live_parts(self.store)[0]:
                found.update(pc.unique(parts.read_part(self.store, name, ["uid"]).column("uid")).to_pylist())
            self._indexed = found
        return self._indexed

    def finished(self) -> set[str]:
        """Uids that are done: committed, or staged."""
        return self.indexed() | {staged.uid for staged in staged_assets(self.store)}

    def digest(self) -> str:
        """SHA-256 over the committed clips (see `digest.dataset_digest`)."""
        return dataset_digest(self.store)

    def roll(self, final: bool = False) -> Rolled:
        """Commit staged assets: whole shards now, and with `final` all the rest.

        `final` also removes what was never committed (unfinished puts, tars without rows, shards without an
        index part); call it when no worker stages any more.
        """
        rolled = Rolled()
        waiting = []
        for staged in staged_assets(self.store):
            if staged.uid in self.indexed():
                # A crash between the index part and the deletion, or the late attempt of a lost worker.
                self.store.delete([staged.rows, staged.tar])
            else:
                waiting.append(staged)
        group: list[Staged] = []
        for staged in waiting:
            group.append(staged)
            if sum(member.tar_bytes for member in group) >= self.shard_bytes:
                self._commit(group, rolled)
                group = []
        if final:
            if group:
                self._commit(group, rolled)
            self._sweep()
        parts.merge_small(self.store, force=False)
        crash_point("roll_done")
        return rolled

    def _commit(self, group: Sequence[Staged], rolled: Rolled) -> None:
        tables: list[pa.Table] = []
        whole: list[Staged] = []
        rejected: list[Rejection] = []
        for staged in group:
            try:
                _, table, told = load_staged(self.store, staged)
                tables.append(table)
                rejected += told
                whole.append(staged)
            except WorkError:
                self.store.delete([staged.rows, staged.tar])
                rolled.damaged.append(staged.uid)
        if not whole:
            return
        # Before the index names the assets: from then on nothing would look for these rows again. After a
        # crash the same rows are written a second time, and read as one.
        self.reject(rejected)
        crash_point("roll_after_rejected")
        content = hashlib.sha256("".join(sha for t in tables for sha in t["sha256"].to_pylist()).encode())
        stem = f"{self._next_number():06d}-{content.hexdigest()[:8]}"
        shard = f"shards/{stem}.tar"
        digest, starts, size = hashlib.sha256(), [], 0

        def pieces() -> Iterator[bytes]:
            nonlocal size
            for staged in whole:
                piece = shards.body(self.store.read(staged.tar), self.store.path(staged.tar))
                starts.append(size)
                size += len(piece)
                digest.update(piece)
                yield piece
            size += len(shards.END)
            digest.update(shards.END)
            yield shards.END

        crash_point("roll_before_shard")
        self.store.put_stream(shard, pieces())
        crash_point("roll_after_shard")
        moved = [_moved(t, start, shard, size, digest.hexdigest()) for t, start in zip(tables, starts)]
        table = pa.concat_tables(moved)
        self.store.put(f"index/{stem}.parquet", sealed.dump(table))
        crash_point("roll_after_index")
        self.indexed().update(staged.uid for staged in whole)
        for i, staged in enumerate(whole):
            self.store.delete([staged.rows, staged.tar])
            if i == 0:
                crash_point("roll_half_deleted")
        rolled.shards += 1
        rolled.assets += len(whole)
        rolled.clips += table.num_rows
        rolled.bytes += size

    def _next_number(self) -> int:
        names = [*self.store.list("shards"), *self.store.list("index")]
        return max(map(parts.sequence, names), default=-1) + 1

    def _sweep(self) -> None:
        """Remove what no index part, and no staged asset, refers to."""
        live, stale = parts.live_parts(self.store)
        used = {
            name
            for part in live
            for name in pc.unique(parts.read_part(self.store, part, ["shard"]).column("shard")).to_pylist()
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


def _moved(table: pa.Table, start: int, shard: str, shard_bytes: int, shard_sha256: str) -> pa.Table:
    """Rows of a staged asset as rows of the shard its tar body begins at `start` of."""
    n = table.num_rows
    columns = {
        "offsets": pa.array(
            [[o + start for o in row] for row in table["offsets"].to_pylist()], pa.list_(pa.int64())
        ),
        "passes": pa.array(
            [
                [(k, {**spans, "offsets": [o + start for o in spans["offsets"]]}) for k, spans in row]
                for row in table["passes"].to_pylist()
            ],
            table.schema.field("passes").type,
        ),
        "shard": pa.array([shard] * n, pa.string()),
        "shard_bytes": pa.array([shard_bytes] * n, pa.int64()),
        "shard_sha256": pa.array([shard_sha256] * n, pa.string()),
    }
    for name, column in columns.items():
        i = table.schema.get_field_index(name)
        table = table.set_column(i, table.schema.field(i), column)
    return table
