"""Tar shards: deterministic headers, contiguous clips, so that one clip is one ranged read.

A shard is a plain tar (WebDataset's convention: a sample's members are adjacent and share the name up to the
first dot). A staged asset is a tar of its own; rolling a shard copies bodies and shifts offsets.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable

from orbit4d.datasets.core.errors import WorkError

BLOCK = 512
#: End-of-archive mark: two zero blocks.
END = bytes(2 * BLOCK)


def _header(name: str, size: int) -> bytes:
    """Tar header of one member: no time, no owner, so that equal content gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    # GNU format: names above 100 characters get a long-name block that every reader knows.
    return info.tobuf(tarfile.GNU_FORMAT)


def pack(members: Iterable[tuple[str, bytes]]) -> tuple[bytes, list[int]]:
    """(tar body without its end mark, offset of each member's data)."""
    pieces: list[bytes] = []
    offsets: list[int] = []
    position = 0
    for name, data in members:
        header = _header(name, len(data))
        padding = bytes(-len(data) % BLOCK)
        offsets.append(position + len(header))
        pieces += [header, data, padding]
        position += len(header) + len(data) + len(padding)
    return b"".join(pieces), offsets


def body(tar: bytes, name: str) -> bytes:
    """A staged tar without its end mark."""
    if len(tar) % BLOCK or not tar.endswith(END):
        raise WorkError(f"{name}: truncated, or not a tar written by orbit4d")
    return tar[: -len(END)]


def member_name_before(data: bytes, offset: int) -> str:
    """Name in the tar header that ends at `offset` (short names only; '' when there is no header)."""
    try:
        info = tarfile.TarInfo.frombuf(data[offset - BLOCK : offset], "utf-8", "strict")
    except (tarfile.TarError, UnicodeDecodeError, ValueError):
        return ""
    return info.name
