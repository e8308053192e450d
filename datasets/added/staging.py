"""What workers finished: `passes/staging/<uid>.<kinds>.tar`, then the same with `.parquet`.

The Parquet file is put last and marks success; both puts are atomic and their bytes follow from the contents,
so that a second attempt writes the same over the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from orbit4d.datasets.added.rows import SCHEMA, STAGING, Added, check_schema, row_of
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import sealed
from orbit4d.datasets.store.shards import END, pack


@dataclass(frozen=True)
class StagedAdded:
    """The two staged files of one asset."""

    stem: str
    tar_bytes: int

    @property
    def uid(self) -> str:
        """Asset that they belong to."""
        return self.stem.split(".", 1)[0]

    @property
    def tar(self) -> str:
        """Name of the tar."""
        return f"{STAGING}/{self.stem}.tar"

    @property
    def rows(self) -> str:
        """Name of the Parquet file."""
        return f"{STAGING}/{self.stem}.parquet"


def stage_added(uri: str | Store, uid: str, added: Iterable[Added]) -> int:
    """Stage what was made for one asset; returns the bytes of its tar. Staging it again is harmless."""
    store = uri if isinstance(uri, Store) else Store(uri)
    ordered = sorted(added, key=lambda one: (one.action_index, one.sample, one.kind))
    for a, b in pairwise(ordered):
        if (a.sample, a.kind) == (b.sample, b.kind):
            raise InputError(f"{uid}: {a.kind} of {a.sample} twice")
    if not ordered or any(one.uid != uid for one in ordered):
        raise InputError(f"{uid}: nothing to stage, or something of another asset")
    body, offsets = pack(pair for one in ordered for pair in zip(one.names(), one.members, strict=True))
    tar = body + END
    stem = ".".join([uid, *sorted({one.kind for one in ordered})])
    staged, sha256 = StagedAdded(stem, len(tar)), hashlib.sha256(tar).hexdigest()
    rows, start = [], 0
    for one in ordered:
        spans = offsets[start : start + len(one.members)]
        start += len(one.members)
        rows.append(row_of(one, spans, staged.tar, len(tar), sha256))
    crash_point("added_before_tar")
    store.put(staged.tar, tar)
    crash_point("added_after_tar")
    store.put(staged.rows, sealed.dump(pa.Table.from_pylist(rows, schema=SCHEMA)))
    crash_point("added_staged")
    return len(tar)


def staged_added(store: Store) -> list[StagedAdded]:
    """What has both files in staging, sorted by uid."""
    sizes = store.list(STAGING)
    found = []
    for name in sizes:
        stem = name.removeprefix(f"{STAGING}/").removesuffix(".parquet")
        if name.endswith(".parquet") and f"{STAGING}/{stem}.tar" in sizes:
            found.append(StagedAdded(stem, sizes[f"{STAGING}/{stem}.tar"]))
    return sorted(found, key=lambda staged: staged.stem)


def load_staged_added(store: Store, staged: StagedAdded) -> tuple[bytes, pa.Table]:
    """(tar, rows); a pair that does not fit raises WorkError."""
    tar = store.read(staged.tar)
    where = store.path(staged.rows)
    table = check_schema(sealed.load(store.read(staged.rows), where), where)
    if set(table["shard_sha256"].to_pylist()) != {hashlib.sha256(tar).hexdigest()}:
        raise WorkError(f"{store.path(staged.tar)}: damaged (its checksum does not fit its rows)")
    return tar, table
