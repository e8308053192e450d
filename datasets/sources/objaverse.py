"""`objaverse:animated[?limit=N]`, lists of Objaverse uids, and Objaverse-XL annotation tables.

The `objaverse` package owns the cache (~/.objaverse) and the published file names; a download goes to a
temporary name, is checked against the announced length, and is then renamed, so an interrupted run resumes.
Version 1.0 publishes no checksum: the SHA-256 of the first sound file is noted beside the object and held
against it ever after (promises.py). Objaverse-XL publishes one for every file, and a file that differs is
refused.
"""

from __future__ import annotations

import gzip
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.sources.asset import Candidate, Expanded, clean_uid
from orbit4d.datasets.sources.promises import first_seen_sha256, note_of
from orbit4d.datasets.sources.read_table import read_table

_HOST = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
_DOWNLOADS_AT_ONCE = 8
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


def _offline(what: str, error: Exception) -> InputError:
    import objaverse

    return InputError(
        f"objaverse: {what} is not in the cache {objaverse.BASE_PATH} and cannot be downloaded ({error}); "
        "go online once, or name local files"
    )


def _cached_json(name: str, what: str, kind: type) -> dict[str, Any]:
    """A gzipped JSON object of the cache, downloaded where it is not there, all of its values of `kind`.

    Damage raises WorkError.
    """
    import objaverse

    path = os.path.join(objaverse._VERSIONED_PATH, name)
    if not os.path.exists(path) and (failure := _download(name, path)):
        raise _offline(what, OSError(failure))
    with reading(path, mend="delete it and go online once: it is downloaded anew"):
        with gzip.open(path, "rb") as file:
            content = json.load(file)
        if not isinstance(content, dict) or not all(isinstance(value, kind) for value in content.values()):
            raise ValueError(f"not an object of {kind.__name__}")
    return content


def _object_paths() -> dict[str, str]:
    """uid -> path of every object, such as glbs/000-023/<uid>.glb."""
    paths = _cached_json("object-paths.json.gz", "the list of objects", str)
    return {uid: path for uid, path in paths.items() if path.count("/") == 2}


def _annotations(uids: Sequence[str], paths: dict[str, str]) -> dict[str, dict]:
    """uid -> annotation of those that have one, one file a folder of objects."""
    found: dict[str, dict] = {}
    for folder in sorted({paths[uid].split("/")[1] for uid in uids}):
        content = _cached_json(f"metadata/{folder}.json.gz", "the annotation file", dict)
        found |= {uid: content[uid] for uid in uids if uid in content}
    return found


def expand_objaverse(source: str) -> Expanded:
    """`objaverse:animated[?limit=N]`: the assets whose annotation counts at least one animation."""
    body, _, query = source.partition("?")
    if body != "objaverse:animated":
        raise InputError(f"{source}: unknown Objaverse set; known: objaverse:animated[?limit=N]")
    limit = parse_limit(source, query)
    paths = _object_paths()
    by_folder: dict[str, list[str]] = {}
    for uid, path in paths.items():
        by_folder.setdefault(path.split("/")[1], []).append(uid)
    chosen: dict[str, dict] = {}
    notes: list[str] = []
    # One annotation file a folder: stop as soon as the limit is reached instead of reading all 160.
    for folder in sorted(by_folder):
        try:
            annotations = _annotations(by_folder[folder], paths)
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
    expanded = fetch(list(chosen), chosen, paths)
    return Expanded(expanded.candidates, notes + expanded.notes)


def fetch(
    uids: Sequence[str], annotations: dict[str, dict] | None = None, paths: dict[str, str] | None = None
) -> Expanded:
    """Candidates of Objaverse uids, downloaded where the cache lacks them.

    An object that cannot be had becomes a rejected input (`download_failed`, `unknown_id`). When nothing at
    all can be had, InputError says so in one line.
    """
    import objaverse

    paths = _object_paths() if paths is None else paths
    known = [uid for uid in uids if uid in paths]
    notes: list[str] = []
    if annotations is None:
        try:
            annotations = _annotations(known, paths) if known else {}
        except InputError as error:
            annotations = {}
            notes.append(f"{error}; licence and author stay empty")
    where = {uid: os.path.join(objaverse._VERSIONED_PATH, paths[uid]) for uid in known}
    missing = [uid for uid in known if not os.path.exists(where[uid])]
    failures: dict[str, str] = {}
    if missing:
        with (
            Progress("download", len(missing), "object") as progress,
            ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool,
        ):
            for uid, failure in zip(missing, pool.map(lambda u: _download(paths[u], where[u]), missing)):
                progress.update()
                if failure:
                    failures[uid] = failure
    if known and len(failures) == len(known):
        uid, failure = next(iter(failures.items()))
        raise _offline(f"none of the {len(known)} objects asked for", OSError(f"{uid}: {failure}"))
    if failures:
        notes.append(
            f"objaverse: {len(failures)} of {len(known)} objects are neither cached nor downloadable"
        )
    # Looking into files for the first time waits for the disk and for parsers that release the lock.
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        candidates = pool.map(
            lambda uid: _candidate(uid, where.get(uid), annotations.get(uid, {}), failures.get(uid)), uids
        )
        return Expanded(list(candidates), notes)


def _candidate(uid: str, path: str | None, annotation: dict, failure: str | None) -> Candidate:
    problem = None
    promised = ""
    if path is None:
        problem = ("unknown_id", "no such object in Objaverse 1.0")
    elif failure is not None:
        problem = ("download_failed", failure)
    else:
        promised = first_seen_sha256(path)
    user = annotation.get("user")
    user = user if isinstance(user, dict) else {}
    license_name = str(annotation.get("license") or "")
    return Candidate(
        clean_uid(uid),
        path or uid,
        promised,
        LICENSES.get(license_name, license_name),
        str(user.get("displayName") or user.get("username") or ""),
        str(annotation.get("viewerUrl") or annotation.get("uri") or ""),
        problem=problem,
        promise=f"noted in {note_of(path)} when it was first seen" if path else "",
    )


def _download(object_path: str, target: str) -> str | None:
    """Fetch one object; None, or why not."""
    part = target + ".part"
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        have = os.path.getsize(part) if os.path.exists(part) else 0
        request = urllib.request.Request(f"{_HOST}/{object_path}")
        if have:
            request.add_header("Range", f"bytes={have}-")
        with urllib.request.urlopen(request, timeout=60) as reply:
            resumed = have > 0 and reply.status == 206
            announced = reply.headers.get("Content-Length")
            expected = None if announced is None else int(announced) + (have if resumed else 0)
            with open(part, "ab" if resumed else "wb") as out:
                while block := reply.read(1 << 20):
                    out.write(block)
        if expected is not None and os.path.getsize(part) != expected:
            return f"{os.path.getsize(part)} of {expected} bytes arrived"
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The part is longer than the object: it belongs to another version of it.
            os.unlink(part)
        return f"HTTP {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None


def expand_objaverse_xl(source: str) -> Expanded:
    """`objaverse-xl:TABLE[?limit=N]`: a table of annotations with fileIdentifier, source, license, fileType,
    sha256 (as `objaverse.xl.get_annotations` gives them); the files come through the `objaverse` package."""
    body, _, query = source.removeprefix("objaverse-xl:").partition("?")
    limit = parse_limit(source, query)
    frame = read_table(body).to_pandas()
    needed = {"fileIdentifier", "source", "sha256"}
    if not needed <= set(frame.columns):
        raise InputError(f"{body}: Objaverse-XL annotations need the columns {', '.join(sorted(needed))}")
    if "fileType" in frame.columns:
        frame = frame[frame["fileType"].map(lambda kind: f".{kind}" in FORMATS)]
    frame = frame.head(limit) if limit is not None else frame
    if frame.empty:
        raise InputError(f"{source}: the annotations hold no file of a supported format")
    try:
        import objaverse.xl

        local = objaverse.xl.download_objects(
            frame,
            download_dir=os.path.expanduser("~/.objaverse"),
            processes=_DOWNLOADS_AT_ONCE,
            save_repo_format="files",
        )
    except Exception as error:
        # The downloaders raise anything from OSError to subprocess errors when the network is away.
        raise InputError(
            f"{source}: Objaverse-XL cannot be reached ({' '.join(str(error).split())[:160]})"
        ) from error
    candidates = []
    for row in frame.to_dict("records"):
        path = local.get(row["fileIdentifier"])
        problem = None if path and os.path.exists(path) else ("download_failed", str(row["fileIdentifier"]))
        candidates.append(
            Candidate(
                clean_uid(str(row["sha256"])),
                path or str(row["fileIdentifier"]),
                str(row["sha256"]),
                str(row.get("license") or ""),
                source_url=str(row["fileIdentifier"]),
                problem=problem,
            )
        )
    return Expanded(candidates)


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
