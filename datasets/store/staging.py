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
from orbit4d.datasets.store.shards import END, body, pack

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
        given = json.dumps([asdict(row) for row in rejected])
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _REJECTED: given})
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
    table, rejected = load_rows(store, staged, store.read(staged.rows))
    check_tar(store, staged, table, tar)
    return tar, table, rejected


def load_rows(store: Store, staged: Staged, data: bytes) -> tuple[pa.Table, list[Rejection]]:
    """(rows, rejected actions) from the bytes of a staged Parquet file; damage raises WorkError."""
    table = sealed.load(data, store.path(staged.rows))
    with reading(store.path(staged.rows)):
        given = (table.schema.metadata or {}).get(_REJECTED, b"[]")
        rejected = [Rejection(**row) for row in json.loads(given)]
    if not is_known(table.schema):
        raise WorkError(f"{store.path(staged.rows)}: damaged (columns that are not those of the schema)")
    return completed(table).replace_schema_metadata(INDEX_SCHEMA.metadata), rejected


def check_tar(store: Store, staged: Staged, table: pa.Table, tar: bytes) -> None:
    """Raise WorkError where a staged tar is not the one that its rows promise."""
    with reading(store.path(staged.rows)):
        promised = set(table.column("shard_sha256").to_pylist())
    if promised != {hashlib.sha256(tar).hexdigest()}:
        raise WorkError(f"{store.path(staged.tar)}: damaged (its checksum does not fit its rows)")


class ShardDraft:
    """A shard in the making: the bodies of staged tars in a row, and where each begins."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.size = store, name, 0
        self.whole: list[tuple[Staged, pa.Table, int]] = []
        """What it holds: the asset, its rows, the start of its body."""
        self.damaged: list[Staged] = []
        self.gone: list[Staged] = []
        self._digest = hashlib.sha256()

    def pieces(self, loaded: Sequence[tuple[Staged, pa.Table]]) -> Iterator[bytes]:
        """The shard's bytes, to be written as they come; staged tars are read ahead."""
        tars = self.store.read_many([staged.tar for staged, _ in loaded], missing=True)
        for (staged, table), tar in zip(loaded, tars, strict=True):
            if tar is None:
                self.gone.append(staged)
                continue
            try:
                check_tar(self.store, staged, table, tar)
                piece = body(tar, self.store.path(staged.tar))
            except WorkError:
                self.damaged.append(staged)
                continue
            self.whole.append((staged, table, self.size))
            yield self._add(piece)
        yield self._add(END)

    def _add(self, piece: bytes) -> bytes:
        self._digest.update(piece)
        self.size += len(piece)
        return piece

    def rows(self) -> pa.Table:
        """The index rows of all that it holds."""
        sha256 = self._digest.hexdigest()
        return pa.concat_tables(
            [_moved(table, start, self.name, self.size, sha256) for _, table, start in self.whole]
        )


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
