"""Tar shards: deterministic headers, contiguous clips, so that one clip is one ranged read.

A shard is a plain tar (WebDataset's convention: a sample's members are adjacent and share the name up to the
first dot). A staged asset is a tar of its own; rolling a shard copies bodies and shifts offsets.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Container, Iterable

from orbit4d.datasets.core.errors import WorkError

_SAMPLE = re.compile(r"(?P<uid>[^/]+)__a\d+__\w+?__o\d+(?:__l\d+)?\..+")
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


def only_here(shard: bytes, known: Container[str]) -> list[str]:
    """Uids in a tar that are not `known` (committed or staged), and names of members that are no sample's.

    A run deletes staged assets only once their index part is written. So a shard whose assets are known was
    left by an interrupted run and can go; with others in it an index part is lost, or the tar is foreign.
    [] also for what is no tar at all.
    """
    found = set()
    try:
        # Damaged headers are stepped over: the others still say what lies here.
        with tarfile.open(fileobj=io.BytesIO(shard), mode="r:", ignore_zeros=True) as tar:
            for member in tar:
                match = _SAMPLE.fullmatch(member.name)
                if match is None:
                    found.add(member.name)
                elif match["uid"] not in known:
                    found.add(match["uid"])
    except tarfile.TarError:
        pass
    except Exception as error:
        # A damaged header can be anything; what lies behind it is not known, so it is not ours to remove.
        found.add(f"(an unreadable member: {type(error).__name__})")
    return sorted(found)
