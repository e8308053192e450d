"""From what the user names to a list of assets: files, folders, globs, lists, tables, `objaverse:`, `demo:`.

The uid of an Objaverse asset is the one it was published under. The uid of a file is its stem with anything
outside [A-Za-z0-9_-] replaced by `_`; different contents that would share a uid within one input each get
`-<8 hex of sha256>`; the same contents twice are one asset and one duplicate. So
`len(assets) + len(duplicates) + len(rejected)` is the number of inputs, always.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_uri, suffix_of
from orbit4d.datasets.sources.asset import Asset, Candidate, Resolved
from orbit4d.datasets.sources.expand import expand


def resolve(
    sources: Sequence[str],
    captions: str | None = None,
    spare: Callable[[Sequence[Candidate]], Mapping[int, tuple[str, int]]] | None = None,
) -> Resolved:
    """Expand `sources`, read and hash every file once, and settle uids and duplicates.

    `captions` is a CSV of uid,caption (a header is optional; with one, license, author and source_url columns
    are used too), joined by uid or sha256. `spare` tells (sha256, bytes) of the candidates, by position, that
    need not be read: the hash is known, or '' where nothing else can be equal. Raises InputError on a missing
    path, an empty folder, a folder or glob without a supported file, an unknown scheme.
    """
    if not sources:
        raise InputError(
            "no source given; name a file, a folder, a glob, an id list, a table or objaverse:animated"
        )
    result = Resolved()
    candidates: list[Candidate] = []
    for source in sources:
        expanded = expand(str(source))
        candidates += expanded.candidates
        result.notes += expanded.notes
    # Hashing releases the interpreter lock and waits for disks and object stores, so threads help.
    with ThreadPoolExecutor(min(8, max(1, len(candidates)))) as pool:
        spared = spare(candidates) if spare is not None else {}
        read = list(
            pool.map(
                lambda i: (*spared[i], None) if i in spared else _read(candidates[i]), range(len(candidates))
            )
        )

    by_hash: dict[str, int] = {}
    kept: list[tuple[Candidate, str, int]] = []
    duplicates: list[tuple[str, int]] = []
    for candidate, (sha256, size, problem) in zip(candidates, read):
        if problem is not None:
            result.rejected.append((candidate.uid, candidate.path, *problem))
        elif (sha256 or candidate.path) in by_hash:
            duplicates.append((candidate.path, by_hash[sha256 or candidate.path]))
        else:
            by_hash[sha256 or candidate.path] = len(kept)
            kept.append((candidate, sha256, size))

    holders: dict[str, int] = {}
    for candidate, _, _ in kept:
        holders[candidate.uid] = holders.get(candidate.uid, 0) + 1
    for candidate, sha256, size in kept:
        uid = candidate.uid if holders[candidate.uid] == 1 else f"{candidate.uid}-{sha256[:8]}"
        result.assets.append(
            Asset(
                uid,
                candidate.path,
                sha256,
                FORMATS[suffix_of(candidate.path)],
                size,
                candidate.license,
                candidate.author,
                candidate.source_url,
                candidate.caption,
                candidate.actions,
            )
        )
    result.duplicates = [(path, result.assets[position].uid) for path, position in duplicates]
    if captions is not None:
        from orbit4d.datasets.sources.captions import join_captions

        join_captions(result, captions, {asset.uid: kept[i][0].uid for i, asset in enumerate(result.assets)})
    return result


def _read(candidate: Candidate) -> tuple[str, int, tuple[str, str] | None]:
    """(sha256, bytes, problem) of one candidate."""
    if candidate.problem is not None:
        return "", 0, candidate.problem
    try:
        sha256, size = hash_asset(candidate.path)
    except FileNotFoundError:
        return "", 0, ("bad_file:missing", "file not found")
    except OSError as error:
        return "", 0, ("bad_file:unreadable", error.strerror or str(error))
    # A table or a publisher that promised other contents describes another asset than the one on disk.
    if candidate.sha256 and candidate.sha256 != sha256:
        detail = f"sha256 {sha256[:12]} instead of the promised {candidate.sha256[:12]}"
        promise = f" ({candidate.promise})" if candidate.promise else ""
        return "", 0, ("bad_file:changed", detail + promise)
    return sha256, size, None


def hash_asset(path: str) -> tuple[str, int]:
    """(sha256, bytes) of an asset file; a .gltf counts with the files it names inside its own folder."""
    if is_uri(path):
        import fsspec

        digest, size = hashlib.sha256(), 0
        with fsspec.open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size
    with open(path, "rb") as file:
        own = hashlib.file_digest(file, "sha256")
    size = os.path.getsize(path)
    if suffix_of(path) != ".gltf":
        return own.hexdigest(), size
    from orbit4d.datasets.assets.inspect import companion_files

    companions = companion_files(path)
    if not companions:
        return own.hexdigest(), size
    for companion in companions:
        with open(companion, "rb") as file:
            own.update(hashlib.file_digest(file, "sha256").digest())
        size += os.path.getsize(companion)
    return own.hexdigest(), size
