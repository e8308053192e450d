"""Parquet files that carry a checksum of themselves.

Parquet's page checksums cover data pages only. Here the footer holds a key `orbit4d.seal`: the SHA-256 of the
file with the seal's own 64 characters set to '0'. One flipped byte anywhere breaks it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import WorkError

SEAL = b"orbit4d.seal"
_BLANK = b"0" * 64
#: The seal's key, the few bytes that Thrift puts between a key and its value, and the value.
_STORED = re.compile(re.escape(SEAL) + rb".{1,8}?([0-9a-f]{64})", re.DOTALL)
#: Rows per row group: one clip's details are read by decoding its row group, so groups are kept small.
ROWS_PER_GROUP = 1024


def dump(
    table: pa.Table, metadata: Mapping[str, str] | None = None, rows_per_group: int = ROWS_PER_GROUP
) -> bytes:
    """Serialise a table; equal tables give equal bytes (for one version of pyarrow)."""
    sink = io.BytesIO()
    flat = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        write_page_checksum=True,
        # Statistics of list columns help no query and make footers of long indices slow to open.
        write_statistics=[name for name in flat if name not in ("sha256", "shard_sha256", "renderer")],
    ) as writer:
        writer.write_table(table, row_group_size=rows_per_group)
        writer.add_key_value_metadata({**(metadata or {}), SEAL.decode(): _BLANK.decode()})
    data = bytearray(sink.getvalue())
    start = data.index(_BLANK, data.rindex(SEAL))
    data[start : start + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def is_sealed(data: bytes) -> bool:
    """Whether the bytes are those that `dump` made.

    The seal is found without parsing: no parser sees bytes that are not known to be whole.
    """
    where = data.rfind(SEAL)
    found = _STORED.match(data, where) if where >= 0 else None
    if found is None:
        return False
    start = found.start(1)
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(_BLANK)
    digest.update(memoryview(data)[start + 64 :])
    return digest.hexdigest().encode() == found[1]


def load(data: bytes, name: str) -> pa.Table:
    """Read a sealed table back; damage raises WorkError naming `name`."""
    if not is_sealed(data):
        raise WorkError(f"{name}: damaged or not written by orbit4d (its checksum does not fit)")
    with reading(name):
        return read_bytes(data)


def read_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file in memory as a table, read by the calling thread alone, page checksums verified.

    `pq.read_table` scans with threads that may let go of the Python bytes only while the interpreter shuts
    down; a thread that then asks for the interpreter's lock aborts the process.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        return file.read(columns=columns, use_threads=False)
