"""Finished assets that wait to be rolled into a shard: `staging/<uid>.tar`, then `staging/<uid>.parquet`.

Any process may stage. The Parquet file is written last and is the mark of success; both puts are atomic and
their content depends on the clips alone, so a second attempt writes the same bytes over the first.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import pyarrow as pa
from PIL import Image

from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store import sealed
from orbit4d.datasets.store.clip import Clip, member_names
from orbit4d.datasets.store.parts import completed, is_known
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.sample_record import record_name, sample_record
from orbit4d.datasets.store.schema import INDEX_SCHEMA, clip_row
from orbit4d.datasets.store.shards import END, pack

FOLDER = "staging"
#: Key in a staged Parquet file's schema under which the asset's rejected actions travel, as JSON.
_REJECTED = b"orbit4d.rejected"


@dataclass(frozen=True)
class Staged:
    """A staged asset: the sizes of its two files."""

    uid: str
    tar_bytes: int
    row_bytes: int

    @property
    def tar(self) -> str:
        """Name of the tar with the frames."""
        return f"{FOLDER}/{self.uid}.tar"

    @property
    def rows(self) -> str:
        """Name of the Parquet file with the index rows."""
        return f"{FOLDER}/{self.uid}.parquet"


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) from an encoded image's header."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"not an image that can be stored ({len(data)} bytes): {error}") from error


def stage_asset(uri: str | Store, uid: str, clips: Iterable[Clip], rejected: Sequence[Rejection] = ()) -> int:
    """Stage all clips of one asset; returns the bytes of its tar.

    Two atomic puts: the tar, then the rows. Staging the same clips again is harmless. `rejected` are the
    asset's actions that became no clip: they travel with the rows and are recorded when the asset is rolled,
    so that none is lost with a driver that dies in between.
    """
    store = uri if isinstance(uri, Store) else Store(uri)
    ordered = sorted(clips, key=lambda clip: clip.key)
    _check(uid, ordered)
    tar_body, offsets = pack(pair for clip in ordered for pair in _members(clip))
    tar = tar_body + END
    sha256 = hashlib.sha256(tar).hexdigest()
    staged = Staged(uid, len(tar), 0)
    rows, start = [], 0
    for clip in ordered:
        spans = offsets[start : start + len(clip.members)]
        start += len(clip.members) + 1  # and the record
        rows.append(clip_row(clip, image_size(clip.frames[0]), spans, staged.tar, len(tar), sha256))
    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    if rejected:
        told = json.dumps([asdict(row) for row in rejected])
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _REJECTED: told})
    crash_point("stage_before_tar")
    store.put(staged.tar, tar)
    crash_point("stage_after_tar")
    store.put(staged.rows, sealed.dump(table))
    crash_point("stage_done")
    return len(tar)


def _members(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a clip's members in a tar: frames, passes, and its record, which no row points to."""
    yield from zip(member_names(clip), clip.members, strict=True)
    yield record_name(clip), sample_record(clip)


def _check(uid: str, clips: Sequence[Clip]) -> None:
    if not clips:
        raise InputError(f"{uid}: no clips to stage; an asset without clips is a rejection")
    for clip in clips:
        if clip.uid != uid:
            raise InputError(f"{uid}: a clip of {clip.uid} among its clips")
    for a, b in pairwise(clips):
        if a.key == b.key:
            raise InputError(
                f"{uid}: two clips of action {a.action_index}, {a.rig}, orbit {a.orbit}, light {a.light}"
            )


def staged_assets(store: Store) -> list[Staged]:
    """Assets with both files in staging, sorted by uid."""
    sizes = store.list(FOLDER)
    found = []
    for name, row_bytes in sizes.items():
        uid = name.removeprefix(f"{FOLDER}/").removesuffix(".parquet")
        if name.endswith(".parquet") and f"{FOLDER}/{uid}.tar" in sizes:
            found.append(Staged(uid, sizes[f"{FOLDER}/{uid}.tar"], row_bytes))
    return sorted(found, key=lambda staged: staged.uid)


def load_staged(store: Store, staged: Staged) -> tuple[bytes, pa.Table, list[Rejection]]:
    """(tar, rows, rejected actions) of a staged asset; a pair that does not fit raises WorkError."""
    tar = store.read(staged.tar)
    table = sealed.load(store.read(staged.rows), store.path(staged.rows))
    with reading(store.path(staged.rows)):
        promised = set(table.column("shard_sha256").to_pylist())
        told = (table.schema.metadata or {}).get(_REJECTED, b"[]")
        rejected = [Rejection(**row) for row in json.loads(told)]
    if promised != {hashlib.sha256(tar).hexdigest()}:
        raise WorkError(f"{store.path(staged.tar)}: damaged (its checksum does not fit its rows)")
    if not is_known(table.schema):
        raise WorkError(f"{store.path(staged.rows)}: damaged (columns that are not those of the schema)")
    return tar, completed(table).replace_schema_metadata(INDEX_SCHEMA.metadata), rejected
