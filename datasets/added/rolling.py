"""The driver's side: staged passes become shards and index parts beside those of the clips.

As with clips, the shard comes first, then the index part, then the staged files go: every put is atomic and
every step can be repeated. Nothing of the clips' own shards, index or rejections is rewritten; refused
actions are listed in `rejected` as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.added.reading import added_parts
from orbit4d.datasets.added.rows import INDEX, SHARDS, STAGING
from orbit4d.datasets.added.staging import StagedAdded, load_staged_added, staged_added
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import rejections, sealed, shards
from orbit4d.datasets.store.parts import sequence
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import SHARD_BYTES

#: Where a test may kill the process, in the order in which the points are passed.
CRASH_POINTS = (
    "added_before_tar",
    "added_after_tar",
    "added_staged",
    "added_roll_rejected",
    "added_roll_shard",
    "added_roll_index",
    "added_roll_deleted",
)
#: The `stage` of rejections of assets that no pass could be added to; that of a refused kind is its name.
STAGE = "passes"


@dataclass
class RolledAdded:
    """What one call of `roll_added` did."""

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    dropped: int = 0
    """Staged files that were damaged, or of assets that never became clips."""


def roll_added(
    store: Store, committed: Container[str], shard_bytes: int = SHARD_BYTES, final: bool = False
) -> RolledAdded:
    """Commit what is staged of assets that are `committed`: whole shards, and with `final` the rest.

    `final` also removes what was never committed; call it when no worker stages any more.
    """
    rolled = RolledAdded()
    known = _known(store)
    group: list[StagedAdded] = []
    for staged in staged_added(store):
        if staged.uid not in committed:
            if final:
                store.delete([staged.rows, staged.tar])
                rolled.dropped += 1
            continue
        group.append(staged)
        if sum(one.tar_bytes for one in group) >= shard_bytes:
            _commit(store, group, known, rolled)
            group = []
    if final:
        if group:
            _commit(store, group, known, rolled)
        store.delete(leftovers(store))
    return rolled


def _known(store: Store) -> set[tuple[str, str]]:
    """(sample, kind) of everything that is committed."""
    return {
        pair
        for name in added_parts(store)
        for table in [sealed.load(store.read(name), store.path(name))]
        for pair in zip(table["sample"].to_pylist(), table["kind"].to_pylist())
    }


def leftovers(store: Store) -> list[str]:
    """Files that an interrupted run left and that nothing refers to."""
    used = {
        shard
        for name in added_parts(store)
        for shard in pc.unique(sealed.load(store.read(name), store.path(name))["shard"]).to_pylist()
    }
    pairs = {name for staged in staged_added(store) for name in (staged.tar, staged.rows)}
    return [
        *(name for name in store.list(SHARDS, ".tar") if name not in used),
        *(name for name in store.list(STAGING) if name not in pairs),
        *(name for folder in (INDEX, SHARDS, STAGING) for name in store.list(folder, temporary=True)),
    ]


def _commit(
    store: Store, group: Sequence[StagedAdded], known: set[tuple[str, str]], rolled: RolledAdded
) -> None:
    whole: list[tuple[StagedAdded, pa.Table]] = []
    for staged in group:
        try:
            whole.append((staged, load_staged_added(store, staged)[1]))
        except WorkError:
            store.delete([staged.rows, staged.tar])
            rolled.dropped += 1
    new = [(staged, table) for staged, table in whole if _new(table, known)]
    if new:
        _put(store, new, known, rolled)
    for i, (staged, _) in enumerate(whole):
        store.delete([staged.rows, staged.tar])
        if i == 0:
            crash_point("added_roll_deleted")


def _new(table: pa.Table, known: set[tuple[str, str]]) -> bool:
    """Whether a staged table holds rows that are not committed: it stands for another one otherwise, of a
    crash between index and deletion, or of a lost worker's late attempt.
    """
    return not known.issuperset(zip(table["sample"].to_pylist(), table["kind"].to_pylist()))


def _put(
    store: Store,
    new: Sequence[tuple[StagedAdded, pa.Table]],
    known: set[tuple[str, str]],
    rolled: RolledAdded,
) -> None:
    _tell_refusals(store, [table for _, table in new])
    crash_point("added_roll_rejected")
    content = "".join(sha for _, table in new for sha in table["sha256"].to_pylist())
    number = max(map(sequence, [*store.list(SHARDS), *store.list(INDEX)]), default=-1) + 1
    stem = f"{number:06d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    shard = f"{SHARDS}/{stem}.tar"
    digest, starts, size = hashlib.sha256(), [], 0

    def pieces() -> Iterator[bytes]:
        nonlocal size
        for staged, _ in new:
            piece = shards.body(store.read(staged.tar), store.path(staged.tar))
            starts.append(size)
            size += len(piece)
            digest.update(piece)
            yield piece
        size += len(shards.END)
        digest.update(shards.END)
        yield shards.END

    store.put_stream(shard, pieces())
    crash_point("added_roll_shard")
    tables = [
        _moved(table, start, shard, size, digest.hexdigest(), known)
        for (_, table), start in zip(new, starts, strict=True)
    ]
    table = pa.concat_tables(tables)
    store.put(f"{INDEX}/{stem}.parquet", sealed.dump(table))
    crash_point("added_roll_index")
    known.update(zip(table["sample"].to_pylist(), table["kind"].to_pylist()))
    rolled.shards += 1
    rolled.rows += table.num_rows
    rolled.bytes += size


def _moved(
    table: pa.Table, start: int, shard: str, size: int, sha256: str, known: set[tuple[str, str]]
) -> pa.Table:
    """Rows of a staged table that are not committed yet, as rows of `shard`, where it begins at `start`."""
    rows = [row for row in table.to_pylist() if (row["sample"], row["kind"]) not in known]
    for row in rows:
        row["offsets"] = [offset + start for offset in row["offsets"]]
        row["shard"], row["shard_bytes"], row["shard_sha256"] = shard, size, sha256
    return pa.Table.from_pylist(rows, schema=table.schema)


def _tell_refusals(store: Store, tables: Sequence[pa.Table]) -> None:
    rows = [row for table in tables for row in table.to_pylist() if row["refused"]]
    given = {
        Rejection(
            row["uid"], row["action"] or f"#{row['action_index']}", row["kind"], row["refused"], row["detail"]
        )
        for row in rows
    }
    new = given - set(rejections.read(store)) if given else set()
    rejections.write(store, sorted(new, key=lambda row: (row.uid, row.action)))
