"""Check every byte of a dataset, and clear away what was never committed.

Each file vouches for itself or is vouched for: dataset.json and every Parquet file carry a checksum of their
own bytes, each row the SHA-256 of its frames and of its shard, each staged asset that of its tar. So one
flipped byte in any file is found, and so is a missing, truncated, or foreign file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.added.rows import extended_digest
from orbit4d.datasets.cameras.checks import camera_faults
from orbit4d.datasets.core.damage import reason
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.verify_added import verify_added
from orbit4d.datasets.store import manifest, parts, sealed
from orbit4d.datasets.store.clip import clip_key, sample_name
from orbit4d.datasets.store.digest import digest_lines, digest_of
from orbit4d.datasets.store.schema import REJECTED_SCHEMA, SPLITS, row_spans
from orbit4d.datasets.store.shards import member_name_before, only_here
from orbit4d.datasets.store.staging import image_size, load_staged, staged_assets

#: damage: committed data is wrong. uncommitted: leftovers of an interrupted run, which `--repair` removes.
Kind = Literal["damage", "uncommitted"]


_SHARD_COLUMNS = [
    *("uid", "action_index", "rig", "orbit", "n_frames", "width", "height", "offsets", "lengths", "passes"),
    *("sha256", "shard_bytes", "shard_sha256", "light"),
]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    file: str
    what: str


@dataclass
class Verification:
    """What `verify` saw."""

    findings: list[Finding] = field(default_factory=list)
    clips: int = 0
    assets: int = 0
    shards: int = 0
    bytes: int = 0
    staged: int = 0
    rejected: int = 0
    digest: str = ""
    """Of the clips and of what was added to them."""
    image_digest: str = ""
    """Of the clips alone."""
    added: int = 0
    """Rows of passes beside the clips."""

    repaired: list[str] = field(default_factory=list)
    """Files that `repair` removed."""

    def findings_in(self, *places: str) -> list[Finding]:
        """Damage in files of these names or folders."""
        return [
            f
            for f in self.findings
            if f.kind == "damage" and (f.file in places or f.file.split("/")[0] in places)
        ]

    @contextmanager
    def checking(self, file: str, label: str = "") -> Iterator[None]:
        """Whatever is raised inside is damage of `file`: a check never ends at what it is there to find."""
        try:
            yield
        except Exception as error:
            what = str(error) if isinstance(error, OrbitError) else reason(error)
            self.findings.append(Finding("damage", file, f"{label}: {what}" if label else what))

    @property
    def ok(self) -> bool:
        """Nothing found."""
        return not self.findings


def check_added(store: Store, shard_store: Store, uids: set[str], seen: Verification) -> None:
    """Passes beside the clips: index parts, shards, members; surface maps are drawn again."""
    report = verify_added(store, shard_store, uids)
    seen.findings += [Finding(kind, file, what) for kind, file, what in report.findings]
    seen.added, seen.digest = report.rows, extended_digest(seen.image_digest, report.lines)
    seen.shards += report.shards
    seen.bytes += report.bytes


def verify(uri: str, repair: bool = False) -> Verification:
    """Check a dataset; with `repair`, remove what was never committed (and leave it out of the findings).

    Something that is no dataset, or one of a newer schema, raises InputError; damage is reported, not raised.
    """
    store = Store(uri)
    seen = Verification()
    try:
        stored = manifest.read(store)
    except WorkError as error:
        seen.findings.append(Finding("damage", manifest.NAME, str(error)))
        stored = None
    shard_store = Store(stored.shards_at) if stored and stored.shards_at else store
    used, uids = _check_index(store, shard_store, seen)
    if shard_store is store:
        _check_orphans(store, used, uids, seen, whole=not seen.findings_in(parts.FOLDER, manifest.NAME))
    check_added(store, shard_store, uids, seen)
    _check_staging(store, seen)
    _check_rejected(store, seen)
    for folder in ("", "index", "shards", "staging", "rejected"):
        for name in store.list(folder, temporary=True):
            seen.findings.append(Finding("uncommitted", name, "an unfinished put"))
    if repair:
        rests = [finding for finding in seen.findings if finding.kind == "uncommitted"]
        seen.repaired = [finding.file for finding in rests]
        store.delete(seen.repaired)
        seen.findings = [finding for finding in seen.findings if finding.kind != "uncommitted"]
    return seen


def _check_index(store: Store, shard_store: Store, seen: Verification) -> tuple[set[str], set[str]]:
    """Check every part and the shards it names, part by part; returns (those shards, the uids)."""
    lines: list[bytes] = []
    keys: dict[tuple[Any, ...], str] = {}
    used: set[str] = set()
    sizes = shard_store.list("shards")
    live, stale = _live(store, seen)
    for name in stale:
        seen.findings.append(Finding("uncommitted", name, "replaced by a merged index part"))
    for name in store.list(parts.FOLDER):
        if not name.endswith(".parquet"):
            seen.findings.append(Finding("damage", name, "a foreign file"))
    with Progress("verify", len(sizes), "shard") as progress:
        for name in live:
            with seen.checking(name):
                table = sealed.load(store.read(name), name)
                if not parts.is_known(table.schema):
                    raise WorkError("columns that are not those of the schema")
                table = parts.completed(table)
                used |= set(shards := sorted(set(table["shard"].to_pylist())))
                lines += digest_lines(table)
                _check_rows(name, table, keys, seen)
                for shard in shards:
                    rows = table.filter(pc.equal(table["shard"], shard)).select(_SHARD_COLUMNS).to_pylist()
                    with seen.checking(shard):
                        _check_shard(shard_store, shard, sizes, rows, seen)
                    progress.update()
    uids = {key[0] for key in keys}
    if len(uids) != seen.assets:
        seen.findings.append(Finding("damage", parts.FOLDER, "an asset's rows are not adjacent"))
    seen.digest = seen.image_digest = digest_of(lines)
    return used, uids


def _check_rows(name: str, table: pa.Table, keys: dict[tuple[Any, ...], str], seen: Verification) -> None:
    """Keys, splits, cameras and times of one part."""
    previous = None
    # Lists become Python objects here, so a large part is inspected in pieces.
    for batch in table.to_batches(max_chunksize=512):
        for row in batch.to_pylist():
            key = clip_key(row["uid"], row["action_index"], row["rig"], row["orbit"], row["light"])
            label = " ".join(map(str, key))
            if key in keys:
                seen.findings.append(Finding("damage", name, f"{label}: stands in {keys[key]} too"))
            keys[key] = name
            if row["uid"] != previous:
                seen.assets += 1
                previous = row["uid"]
            if row["split"] not in SPLITS:
                seen.findings.append(Finding("damage", name, f"{label}: unknown split {row['split']!r}"))
            with seen.checking(name, label):
                seen.findings += [
                    Finding("damage", name, f"{label}: {fault}") for fault in camera_faults(row)
                ]
            seen.clips += 1


def _live(store: Store, seen: Verification) -> tuple[list[str], list[str]]:
    """Live and replaced parts; a merged part whose footer is damaged replaces nothing and is reported
    later.
    """
    try:
        return parts.live_parts(store)
    except OrbitError:
        return list(store.list(parts.FOLDER, ".parquet")), []


def _check_orphans(store: Store, used: set[str], uids: set[str], seen: Verification, whole: bool) -> None:
    """Shards that no part names. Only a `whole` index can say that they were never committed, and only when
    their assets are committed elsewhere or still staged: else the part that named them is lost.
    """
    known = uids | {staged.uid for staged in staged_assets(store)}
    for name in store.list("shards"):
        if name in used:
            continue
        if not name.endswith(".tar"):
            seen.findings.append(Finding("damage", name, "a foreign file"))
        elif not whole:
            seen.findings.append(Finding("damage", name, "a shard that no readable index part names"))
        else:
            with seen.checking(name):
                _check_orphan(name, only_here(store.read(name), known), seen)


def _check_orphan(name: str, lost: list[str], seen: Verification) -> None:
    if lost:
        named = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        what = f"named by no index part; holds uncommitted assets ({named})"
        seen.findings.append(Finding("damage", name, what))
    else:
        seen.findings.append(Finding("uncommitted", name, "a shard that no index part names"))


def _check_shard(
    store: Store, name: str, sizes: dict[str, int], rows: list[dict[str, Any]], seen: Verification
) -> None:
    if name not in sizes:
        missing = f"missing, though the index names it for {len(rows)} clips"
        seen.findings.append(Finding("damage", name, missing))
        return
    data = store.read(name)
    seen.findings += [Finding("damage", name, what) for what in _shard_faults(data, rows)]
    seen.shards += 1
    seen.bytes += len(data)


def _shard_faults(data: bytes, rows: list[dict[str, Any]]) -> Iterator[str]:
    sha256 = hashlib.sha256(data).hexdigest()
    if {row["shard_bytes"] for row in rows} != {len(data)}:
        yield f"{len(data)} bytes, the index says {rows[0]['shard_bytes']}"
    if {row["shard_sha256"] for row in rows} != {sha256}:
        yield "its checksum is not the one in the index"
    for row in rows:
        key = clip_key(row["uid"], row["action_index"], row["rig"], row["orbit"], row["light"])
        sample = sample_name(key)
        digest = hashlib.sha256()
        spans = row_spans(row)
        for offset, length in spans:
            digest.update(data[offset : offset + length])
        if digest.hexdigest() != row["sha256"]:
            yield f"{sample}: its frames are not those that were written"
            continue
        # A tar header holds 100 characters of a name.
        if any(
            not member_name_before(data, offset).startswith(f"{sample}."[:100])
            for offset, _ in spans[: row["n_frames"]]
        ):
            yield f"{sample}: its frames stand under another name"
        offset, length = spans[0]
        try:
            size = image_size(data[offset : offset + length])
        except InputError as error:
            yield f"{sample}: {error}"
        else:
            if size != (row["width"], row["height"]):
                given = f"{row['width']}x{row['height']}"
                yield f"{sample}: frames of {size[0]}x{size[1]}, the index says {given}"


def _check_staging(store: Store, seen: Verification) -> None:
    """Staged assets are done, only not rolled yet: they must be whole. Half ones were never done."""
    whole = staged_assets(store)
    names = {name for staged in whole for name in (staged.tar, staged.rows)}
    for name in store.list("staging"):
        if name not in names:
            seen.findings.append(Finding("uncommitted", name, "half of a staged asset"))
    for staged in whole:
        with seen.checking(staged.tar):
            load_staged(store, staged)
            seen.staged += 1


def _check_rejected(store: Store, seen: Verification) -> None:
    reasons = set()
    for name in store.list("rejected"):
        with seen.checking(name):
            table = sealed.load(store.read(name), name)
            if not table.schema.equals(REJECTED_SCHEMA):
                raise WorkError("columns that are not those of the schema")
            keys = table.select(["uid", "action", "stage"]).to_pylist()
            reasons |= {tuple(key.values()) for key in keys}
    seen.rejected = len(reasons)
