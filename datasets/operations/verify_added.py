"""Check every byte of what was added to clips: index parts, shards, members, and the maps they promise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow.compute as pc

from orbit4d.datasets.added.reading import added_parts
from orbit4d.datasets.added.rolling import leftovers
from orbit4d.datasets.added.rows import INDEX, check_schema, digest_lines
from orbit4d.datasets.added.staging import load_staged_added, staged_added
from orbit4d.datasets.core.damage import reason
from orbit4d.datasets.core.errors import OrbitError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.geometry.reader import GEOMETRY, read_geometry
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store import sealed
from orbit4d.datasets.store.shards import member_name_before

#: (kind, file, what is wrong).
Told = tuple[Literal["damage", "uncommitted"], str, str]


@dataclass
class AddedReport:
    """What was seen."""

    findings: list[Told] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    """For the digest, one per row."""
    rows: int = 0
    shards: int = 0
    bytes: int = 0


def verify_added(store: Store, shard_store: Store, uids: set[str]) -> AddedReport:
    """Check what lies under `passes/` of a dataset whose committed assets are `uids`."""
    report = AddedReport()
    known: dict[tuple[str, str], str] = {}
    used: set[str] = set()
    for name in store.list(INDEX):
        if not name.endswith(".parquet"):
            report.findings.append(("damage", name, "a foreign file"))
    for name in added_parts(store):
        try:
            table = check_schema(sealed.load(store.read(name), name), name)
        except OrbitError as error:
            report.findings.append(("damage", name, str(error)))
            continue
        rows = table.to_pylist()
        report.rows += len(rows)
        report.lines += digest_lines(table)
        for row in rows:
            key = row["sample"], row["kind"]
            if key in known:
                report.findings.append(("damage", name, f"{' '.join(key)}: stands in {known[key]} too"))
            if row["uid"] not in uids:
                report.findings.append(("damage", name, f"{row['sample']}: of an asset without clips"))
            known[key] = name
        for shard in pc.unique(table["shard"]).to_pylist():
            used.add(shard)
            faults = _shard_faults(shard_store, shard, [r for r in rows if r["shard"] == shard], report)
            report.findings += [("damage", shard, what) for what in faults]
    if not report.findings and report.rows:
        report.findings += [("damage", INDEX, what) for what in _map_faults(store)]
    if store is shard_store and not any(name.startswith(INDEX) for _, name, _ in report.findings):
        report.findings += [("uncommitted", name, "left by an interrupted run") for name in leftovers(store)]
    report.findings += _staged_faults(store)
    return report


def _shard_faults(store: Store, shard: str, rows: list[dict[str, Any]], report: AddedReport) -> Iterator[str]:
    try:
        data = store.read(shard)
    except FileNotFoundError:
        yield f"missing, though the index names it for {len(rows)} passes"
        return
    report.shards += 1
    report.bytes += len(data)
    if {row["shard_bytes"] for row in rows} != {len(data)}:
        yield f"{len(data)} bytes, the index says {rows[0]['shard_bytes']}"
    if {row["shard_sha256"] for row in rows} != {hashlib.sha256(data).hexdigest()}:
        yield "its checksum is not the one in the index"
    for row in rows:
        members = [data[o : o + n] for o, n in zip(row["offsets"], row["lengths"])]
        if hashlib.sha256(b"".join(members)).hexdigest() != row["sha256"]:
            yield f"{row['sample']}: its {row['kind']} is not what was written"
        # A tar header holds 100 characters of a name.
        start = f"{row['sample']}.{row['kind']}."[:100]
        if any(not member_name_before(data, offset).startswith(start) for offset in row["offsets"]):
            yield f"{row['sample']}: its {row['kind']} stands under another name"


def _map_faults(store: Store) -> Iterator[str]:
    """Clips whose surface maps do not come out as they were rendered."""
    index = Index(store)
    for row in index.added.table.filter(pc.equal(index.added.table["kind"], GEOMETRY)).to_pylist():
        if row["refused"]:
            continue
        try:
            found = read_geometry(index, row["uid"], row["action_index"])
            for rig, orbit in found.clips:
                clip = found.clip(rig, orbit)
                for frame in range(len(clip)):
                    clip.triangles(frame)
        except Exception as error:
            # A check never ends at what it is there to find.
            what = str(error) if isinstance(error, OrbitError) else reason(error)
            yield f"{row['sample']}: {what}"


def _staged_faults(store: Store) -> Iterable[Told]:
    for staged in staged_added(store):
        try:
            load_staged_added(store, staged)
        except OrbitError as error:
            yield "damage", staged.tar, str(error)
