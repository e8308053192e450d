"""`objaverse:animated[?limit=N]`, lists of Objaverse uids, and Objaverse-XL annotation tables.

On one machine the objects are downloaded here. Version 1.0 comes without checksums: the SHA-256 of the first
sound file is noted beside the object and compared with it ever after (promises.py). Objaverse-XL publishes
one for every file, and a file that differs is refused. Where workers fetch (a cluster), candidates name
objects by URIs instead (workers.py), with the checksums of the hub's own listing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.sources.asset import Candidate, Expanded, clean_uid
from orbit4d.datasets.sources.objaverse.cache import (
    DOWNLOADS_AT_ONCE,
    annotations_of,
    checksums,
    object_paths,
    offline,
    place_of,
)
from orbit4d.datasets.sources.objaverse.cache import download as _download
from orbit4d.datasets.sources.objaverse.workers import XL_SOURCES, download_xl, object_uri, stored_xl, xl_uri
from orbit4d.datasets.sources.promises import first_seen_sha256, note_of
from orbit4d.datasets.sources.read_table import read_table

#: Short names of Sketchfab's licences, as the annotations carry them.
LICENSES = {
    "by": "CC-BY-4.0",
    "by-sa": "CC-BY-SA-4.0",
    "by-nd": "CC-BY-ND-4.0",
    "by-nc": "CC-BY-NC-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",
    "by-nc-nd": "CC-BY-NC-ND-4.0",
    "cc0": "CC0-1.0",
}


def expand_objaverse(source: str, workers_fetch: bool = False) -> Expanded:
    """`objaverse:animated[?limit=N]`: the assets whose annotation counts at least one animation."""
    body, _, query = source.partition("?")
    if body != "objaverse:animated":
        raise InputError(f"{source}: unknown Objaverse set; known: objaverse:animated[?limit=N]")
    limit = parse_limit(source, query)
    paths = object_paths()
    by_folder: dict[str, list[str]] = {}
    for uid, path in paths.items():
        by_folder.setdefault(path.split("/")[1], []).append(uid)
    chosen: dict[str, dict] = {}
    notes: list[str] = []
    # One annotation file a folder: stop as soon as the limit is reached instead of reading all 160.
    for folder in sorted(by_folder):
        try:
            annotations = annotations_of(by_folder[folder], paths)
        except InputError as error:
            if not chosen:
                raise
            notes.append(f"{error}; going on with the {len(chosen)} animated assets already known")
            break
        for uid in sorted(annotations):
            count = annotations[uid].get("animationCount")
            if isinstance(count, int) and count > 0:
                chosen[uid] = annotations[uid]
                if limit is not None and len(chosen) >= limit:
                    break
        if limit is not None and len(chosen) >= limit:
            break
    if not chosen:
        raise InputError(f"{source}: the annotations hold no animated asset")
    expanded = fetch(list(chosen), chosen, paths, workers_fetch)
    return Expanded(expanded.candidates, notes + expanded.notes)


def fetch(
    uids: Sequence[str],
    annotations: dict[str, dict] | None = None,
    paths: dict[str, str] | None = None,
    workers_fetch: bool = False,
) -> Expanded:
    """Candidates of Objaverse uids, downloaded where the cache lacks them, unless workers fetch them.

    An object that cannot be had becomes a rejected input (`download_failed`, `unknown_id`). When nothing at
    all can be had, InputError names it in one line.
    """
    paths = object_paths() if paths is None else paths
    known = [uid for uid in uids if uid in paths]
    notes: list[str] = []
    if annotations is None:
        try:
            annotations = annotations_of(known, paths) if known else {}
        except InputError as error:
            annotations = {}
            notes.append(f"{error}; licence and author stay empty")
    where = {uid: place_of(paths[uid]) for uid in known}
    if workers_fetch:
        return Expanded(_for_workers(uids, annotations, paths), notes)
    missing = [uid for uid in known if not os.path.exists(where[uid])]
    failures: dict[str, str] = {}
    if missing:
        with (
            Progress("download", len(missing), "object") as progress,
            ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
        ):
            for uid, failure in zip(missing, pool.map(lambda u: _download(paths[u], where[u]), missing)):
                progress.update()
                if failure:
                    failures[uid] = failure
    if known and len(failures) == len(known):
        uid, failure = next(iter(failures.items()))
        raise offline(f"none of the {len(known)} objects asked for", OSError(f"{uid}: {failure}"))
    if failures:
        notes.append(
            f"objaverse: {len(failures)} of {len(known)} objects are neither cached nor downloadable"
        )
    # Looking into files for the first time waits for the disk and for parsers that release the lock.
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        candidates = pool.map(
            lambda uid: _candidate(uid, where.get(uid), annotations.get(uid, {}), failures.get(uid)), uids
        )
        return Expanded(list(candidates), notes)


def _candidate(uid: str, path: str | None, annotation: dict, failure: str | None) -> Candidate:
    if path is None:
        return _described(uid, annotation, uid, problem=("unknown_id", "no such object in Objaverse 1.0"))
    if failure is not None:
        return _described(uid, annotation, path, problem=("download_failed", failure))
    promise = f"noted in {note_of(path)} when it was first seen"
    return _described(uid, annotation, path, sha256=first_seen_sha256(path), promise=promise)


def _for_workers(uids: Sequence[str], annotations: dict[str, dict], paths: dict[str, str]) -> list[Candidate]:
    """Candidates that name their objects by URI, with the hashes that can be had without downloading them."""
    listed = checksums(paths[uid].rpartition("/")[0] for uid in uids if uid in paths)
    found = []
    for uid in uids:
        annotation = annotations.get(uid, {})
        if uid not in paths:
            found.append(_candidate(uid, None, annotation, None))
            continue
        sha256, size = listed.get(paths[uid], ("", 0))
        local = place_of(paths[uid])
        if not sha256 and os.path.exists(local):
            sha256, size = first_seen_sha256(local), os.path.getsize(local)
        uri = object_uri(paths[uid])
        found.append(
            _described(uid, annotation, uri, sha256=sha256, bytes=size, promise="as the hub lists it")
        )
    return found


def _described(uid: str, annotation: dict, path: str, **more: Any) -> Candidate:
    """A candidate with what its annotation says; its name stands in for a caption."""
    user = annotation.get("user")
    user = user if isinstance(user, dict) else {}
    license_name = str(annotation.get("license") or "")
    return Candidate(
        clean_uid(uid),
        path,
        license=LICENSES.get(license_name, license_name),
        author=str(user.get("displayName") or user.get("username") or ""),
        source_url=str(annotation.get("viewerUrl") or annotation.get("uri") or ""),
        caption=" ".join(str(annotation.get("name") or "").split()),
        **more,
    )


def expand_objaverse_xl(source: str, workers_fetch: bool = False) -> Expanded:
    """`objaverse-xl:TABLE[?limit=N]`: a table of annotations with fileIdentifier, source, license, fileType,
    sha256 (as `objaverse.xl.get_annotations` gives them); the files come through the `objaverse` package."""
    body, _, query = source.removeprefix("objaverse-xl:").partition("?")
    limit = parse_limit(source, query)
    frame = read_table(body).to_pandas()
    needed = {"fileIdentifier", "source", "sha256"}
    if not needed <= set(frame.columns):
        raise InputError(f"{body}: Objaverse-XL annotations need the columns {', '.join(sorted(needed))}")
    strange = sorted({str(name) for name in frame["source"]} - set(XL_SOURCES))
    if strange:
        raise InputError(f"{body}: source {strange[0]!r} is none of Objaverse-XL's: {', '.join(XL_SOURCES)}")
    kinds = frame["fileType"] if "fileType" in frame.columns else frame["fileIdentifier"].map(_suffix)
    frame = frame.assign(kind=[str(kind).lower() for kind in kinds])
    frame = frame[frame["kind"].map(lambda kind: f".{kind}" in FORMATS)]
    frame = frame.head(limit) if limit is not None else frame
    if frame.empty:
        raise InputError(f"{source}: the annotations hold no file of a supported format")
    rows = frame.to_dict("records")
    if workers_fetch:
        uris = [
            xl_uri(*(str(row[key]) for key in ("source", "fileIdentifier", "sha256", "kind"))) for row in rows
        ]
        return Expanded([_xl_candidate(row, uri) for row, uri in zip(rows, uris)])
    had = {row["fileIdentifier"]: stored_xl(row["source"], row["fileIdentifier"]) for row in rows}
    lacking = frame[[had[identifier] is None for identifier in frame["fileIdentifier"]]]
    try:
        had |= download_xl(lacking.drop(columns="kind"), DOWNLOADS_AT_ONCE) if len(lacking) else {}
    except Exception as error:
        # The downloaders raise anything from OSError to subprocess errors when the network is away.
        raise InputError(
            f"{source}: Objaverse-XL cannot be reached ({' '.join(str(error).split())[:160]})"
        ) from error
    return Expanded([_xl_candidate(row, had.get(row["fileIdentifier"])) for row in rows])


def _suffix(identifier: str) -> str:
    return os.path.splitext(str(identifier))[1].lstrip(".")


def _xl_candidate(row: dict[Any, Any], path: str | None) -> Candidate:
    identifier = str(row["fileIdentifier"])
    there = bool(path) and (is_uri(str(path)) or os.path.exists(str(path)))
    return Candidate(
        clean_uid(str(row["sha256"])),
        path or identifier,
        str(row["sha256"]),
        str(row.get("license") or ""),
        source_url=identifier,
        problem=None if there else ("download_failed", identifier),
        promise="as Objaverse-XL published it",
    )


def parse_limit(source: str, query: str) -> int | None:
    """The `limit` of a source's query part, or None. Raises InputError on anything else."""
    values = parse_qs(query, keep_blank_values=True)
    unknown = set(values) - {"limit"}
    if unknown or (query and not values):
        raise InputError(f"{source}: unknown setting {sorted(unknown) or query!r}; only ?limit=N is known")
    if "limit" not in values:
        return None
    text = values["limit"][-1]
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{source}: limit must be a whole number above 0, got {text!r}")
    return int(text)
