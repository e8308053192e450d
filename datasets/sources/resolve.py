"""From what the user names to a list of assets: files, folders, globs, lists, tables, `objaverse:`, `demo:`.

The uid of an Objaverse asset is the one it was published under. The uid of a file is its stem with anything
outside [A-Za-z0-9_-] replaced by `_`; different contents that would share a uid within one input each get
`-<8 hex of sha256>`; the same contents twice are one asset and one duplicate. So
`len(assets) + len(duplicates) + len(rejected)` is the number of inputs, always.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_uri, suffix_of
from orbit4d.datasets.sources.asset import Asset, Candidate, Resolved, version_of
from orbit4d.datasets.sources.expand import expand
from orbit4d.datasets.sources.objaverse.workers import NotFetched, fetch_object, is_object


class Read(NamedTuple):
    """What is known of one candidate's contents."""

    sha256: str
    """'' where nobody has read them yet."""
    size: int
    problem: tuple[str, str] | None
    """(reason code, detail) of what cannot be used."""
    version: str = ""


def resolve(
    sources: Sequence[str],
    captions: str | None = None,
    spare: Callable[[Sequence[Candidate]], Mapping[int, tuple[str, int]]] | None = None,
    workers_fetch: bool = False,
) -> Resolved:
    """Expand `sources`, read and hash every file once, and settle uids and duplicates.

    `captions` is a CSV of uid,caption (a header is optional; with one, license, author and source_url columns
    are used too), joined by uid or sha256. `spare` tells (sha256, bytes) of the candidates, by position, that
    need not be read: the hash is known, or '' where nothing else can be equal. Raises InputError on a missing
    path, an empty folder, a folder or glob without a supported file, an unknown scheme.

    With `workers_fetch`, Objaverse's objects are not downloaded here, and without `spare` no other asset at a
    URI is either: its hash is the one that a table or a publisher promises, '' where there is none, and the
    worker that downloads it compares or takes it (fetching.py). Only assets that share their uid or their
    size with another are read, since their contents decide what they are called and whether they count.
    """
    if not sources:
        raise InputError(
            "no source given; name a file, a folder, a glob, an id list, a table or objaverse:animated"
        )
    result = Resolved()
    candidates: list[Candidate] = []
    for source in sources:
        expanded = expand(str(source), workers_fetch)
        candidates += expanded.candidates
        result.notes += expanded.notes
    promised = _promised(candidates) if workers_fetch and spare is None else {}
    if spare is not None:
        promised = {i: Read(*found, None) for i, found in spare(candidates).items()}
    # Hashing releases the interpreter lock and waits for disks and object stores, so threads help.
    with ThreadPoolExecutor(min(8, max(1, len(candidates)))) as pool:
        read = list(pool.map(lambda i: promised.get(i) or _read(candidates[i]), range(len(candidates))))

    by_hash: dict[str, int] = {}
    kept: list[tuple[Candidate, Read]] = []
    duplicates: list[tuple[str, int]] = []
    for candidate, known in zip(candidates, read):
        if known.problem is not None:
            result.rejected.append((candidate.uid, candidate.path, *known.problem))
        elif (contents := known.sha256 or candidate.path) in by_hash:
            duplicates.append((candidate.path, by_hash[contents]))
        else:
            by_hash[contents] = len(kept)
            kept.append((candidate, known))

    holders: dict[str, int] = {}
    for candidate, _ in kept:
        holders[candidate.uid] = holders.get(candidate.uid, 0) + 1
    for candidate, known in kept:
        uid = candidate.uid if holders[candidate.uid] == 1 else f"{candidate.uid}-{known.sha256[:8]}"
        result.assets.append(
            Asset(
                uid,
                candidate.path,
                known.sha256,
                FORMATS[suffix_of(candidate.path)],
                known.size,
                candidate.license,
                candidate.author,
                candidate.source_url,
                candidate.caption,
                candidate.actions,
                candidate.split,
                known.version,
            )
        )
    result.duplicates = [(path, result.assets[position].uid) for path, position in duplicates]
    if captions is not None:
        from orbit4d.datasets.sources.captions import join_captions

        join_captions(result, captions, {asset.uid: kept[i][0].uid for i, asset in enumerate(result.assets)})
    return result


def _promised(candidates: Sequence[Candidate]) -> dict[int, Read]:
    """Position -> what is known without a download, of the candidates that are left to the workers."""
    remote = [i for i, c in enumerate(candidates) if c.problem is None and is_uri(c.path)]
    # What a table promises is known; the others are asked for, which costs a request and no download.
    with ThreadPoolExecutor(min(32, max(1, len(remote)))) as pool:
        listed = dict(zip(remote, pool.map(lambda i: _ask(candidates[i]), remote)))
    uids = Counter(uid for _, uid in {(c.path, c.uid) for c in candidates})
    of_size: dict[int, set[str]] = {}
    for i, candidate in enumerate(candidates):
        if size := (listed[i].size if i in listed else _local_size(candidate)):
            of_size.setdefault(size, set()).add(candidate.path)
    found: dict[int, Read] = {}
    for i, read in listed.items():
        alone = uids[candidates[i].uid] == 1 and len(of_size.get(read.size, ())) <= 1
        if read.problem is not None or read.sha256 or alone:
            found[i] = read
    return found


def _ask(candidate: Candidate) -> Read:
    """Size and version of an asset at a URI; a size of 0 where only its download tells."""
    if candidate.sha256 or candidate.version:
        return Read(candidate.sha256, candidate.bytes, None, candidate.version)
    if is_object(candidate.path):
        # Published once, under a name of its own.
        return Read("", candidate.bytes, None, "published")
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(candidate.path)
        info = fs.info(path)
    except FileNotFoundError:
        return Read("", 0, ("bad_file:missing", "file not found"))
    except OSError as error:
        return Read("", 0, ("bad_file:unreadable", error.strerror or str(error)))
    return Read("", int(info.get("size") or 0), None, version_of(info))


def _local_size(candidate: Candidate) -> int:
    """Bytes of a local asset, 0 where it is not known."""
    try:
        return 0 if candidate.problem or is_uri(candidate.path) else os.path.getsize(candidate.path)
    except OSError:
        return 0


def _read(candidate: Candidate) -> Read:
    """What reading the whole asset tells."""
    if candidate.problem is not None:
        return Read("", 0, candidate.problem)
    try:
        sha256, size = hash_asset(candidate.path)
    except FileNotFoundError:
        return Read("", 0, ("bad_file:missing", "file not found"))
    except NotFetched as error:
        return Read("", 0, (error.code, error.detail))
    except OSError as error:
        return Read("", 0, ("bad_file:unreadable", error.strerror or str(error)))
    # A table or a publisher that promised other contents describes another asset than the one on disk.
    if candidate.sha256 and candidate.sha256 != sha256:
        detail = f"sha256 {sha256[:12]} instead of the promised {candidate.sha256[:12]}"
        promise = f" ({candidate.promise})" if candidate.promise else ""
        return Read("", 0, ("bad_file:changed", detail + promise))
    return Read(sha256, size, None, candidate.version)


def hash_asset(path: str) -> tuple[str, int]:
    """(sha256, bytes) of an asset file; a .gltf counts with the files it names inside its own folder."""
    if is_object(path):
        path = fetch_object(path)
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
