"""What is added to a clip or an action later, or beside its images, and its row in `passes/index`.

    dataset/passes/index/*.parquet     one row per (sample, kind)
    dataset/passes/shards/*.tar        members <sample>.<kind>.<number:03d>.<ending>
    dataset/passes/staging/            what workers finished and nobody has rolled into a shard yet

A sample is a clip (`<uid>__a<action>__<rig>__o<orbit>`) or a whole action (`<uid>__a<action>`). Rows name
their clip by that text, so that what is added joins the clips of the index without a column of them. An
action that a kind refuses has a row too, with the reason code and no members: it is not tried again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.images.codec import suffix
from orbit4d.datasets.store.clip import clip_key, sample_name
from orbit4d.datasets.store.digest import digest_of

FOLDER = "passes"
INDEX, SHARDS, STAGING = f"{FOLDER}/index", f"{FOLDER}/shards", f"{FOLDER}/staging"

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")


def _described(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


SCHEMA = pa.schema(
    [
        _described("uid", pa.string(), "asset id; an asset's rows are adjacent"),
        _described("action", pa.string(), "name of the action as read from the asset"),
        _described("action_index", pa.int32(), "order of the action in its file, from 0"),
        _described("sample", pa.string(), "name of the clip, or of the action where it is shared by all"),
        _described("kind", pa.string(), "geometry, surface, normal, ...: what was added"),
        _described("refused", pa.string(), "reason code where this kind is refused for the action, else ''"),
        _described("detail", pa.string(), "one line for a person, of a refusal"),
        _described("shard", pa.string(), "tar file with the members, relative to the dataset"),
        _described("offsets", pa.list_(pa.int64()), "first byte of each member in the shard"),
        _described("lengths", pa.list_(pa.int64()), "bytes of each member"),
        _described("sha256", pa.string(), "hex SHA-256 of the members' bytes in order"),
        _described("facts", pa.string(), "JSON object: how it was made"),
        _described("shard_bytes", pa.int64(), "bytes of the whole shard"),
        _described("shard_sha256", pa.string(), "hex SHA-256 of the whole shard"),
    ],
    metadata={"orbit4d.added_version": "1"},
)


@dataclass(frozen=True)
class Added:
    """One kind of one sample."""

    uid: str
    action: str
    action_index: int
    sample: str
    """Name of a clip (`store.clip.sample_name`) or of an action (`action_sample`)."""
    kind: str
    members: tuple[bytes, ...] = ()
    """Encoded, in order: one per frame, or one alone."""
    refused: str = ""
    """Reason code where there are no members."""
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise ValueError(f"{self.sample}: a kind is a lower-case name, got {self.kind!r}")
        if bool(self.members) == bool(self.refused):
            raise ValueError(f"{self.sample}: {self.kind} has either members or a reason why it has none")

    @property
    def sha256(self) -> str:
        """SHA-256, hex, of the members' bytes in order."""
        return hashlib.sha256(b"".join(self.members)).hexdigest()

    def names(self) -> list[str]:
        """Names of the members in a tar."""
        return [f"{self.sample}.{self.kind}.{i:03d}.{ending(data)}" for i, data in enumerate(self.members)]


def action_sample(uid: str, action_index: int) -> str:
    """Name of an action, under which what its clips share is kept."""
    return f"{uid}__a{action_index}"


def clip_sample(row: Mapping[str, Any]) -> str:
    """Name of the clip of an index row."""
    return sample_name(
        clip_key(row["uid"], row["action_index"], row["rig"], row["orbit"], row.get("light", 0))
    )


def ending(data: bytes) -> str:
    """Ending of a member's name."""
    return "o4d" if data[:3] == b"O4D" else suffix(data)


def row_of(
    added: Added, offsets: Sequence[int], shard: str, shard_bytes: int, shard_sha256: str
) -> dict[str, Any]:
    """Row of the index of what lies at `offsets` of `shard`."""
    return {
        "uid": added.uid,
        "action": added.action,
        "action_index": added.action_index,
        "sample": added.sample,
        "kind": added.kind,
        "refused": added.refused,
        "detail": added.detail,
        "shard": shard,
        "offsets": list(offsets),
        "lengths": [len(member) for member in added.members],
        "sha256": added.sha256,
        "facts": json.dumps(dict(added.facts), sort_keys=True),
        "shard_bytes": shard_bytes,
        "shard_sha256": shard_sha256,
    }


def digest_lines(table: pa.Table) -> list[bytes]:
    """One line per row, of what it holds and not of where it lies."""
    names = ("uid", "action_index", "action", "sample", "kind", "refused", "sha256")
    rows = table.select(list(names)).to_pylist()
    return [json.dumps([row[name] for name in names], ensure_ascii=False).encode() for row in rows]


def extended_digest(of_images: str, lines: Iterable[bytes]) -> str:
    """A dataset's digest, from that of its clips and the lines of what was added; the former itself where
    nothing was: SHA-256 over both in hex, one after the other.
    """
    lines = list(lines)
    if not lines:
        return of_images
    return hashlib.sha256(f"{of_images}\n{digest_of(lines)}\n".encode()).hexdigest()


def check_schema(table: pa.Table, name: str) -> pa.Table:
    """`table` if it has the columns of SCHEMA; WorkError otherwise."""
    if not table.schema.equals(SCHEMA):
        raise WorkError(f"{name}: damaged (columns that are not those of the schema); run `orbit4d verify`")
    return table
