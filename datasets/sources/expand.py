"""From one source to candidates: schemes, files, folders, globs, lists and tables."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import below, is_dataset, is_uri, naturally, stem_of, suffix_of
from orbit4d.datasets.sources.asset import Candidate, Expanded, clean_uid, version_of
from orbit4d.datasets.sources.lists import read_list

#: `name:` -> function from the whole source text to Expanded. The app adds `demo`.
_SCHEMES: dict[str, Callable[[str], Expanded]] = {}


def register_scheme(name: str, expand: Callable[[str], Expanded]) -> None:
    """Serve sources that start with `name:` by `expand(source)`; a later registration wins."""
    _SCHEMES[name] = expand


def expand(source: str, workers_fetch: bool = False) -> Expanded:
    """One source to its candidates, without reading asset files. Raises InputError.

    With `workers_fetch`, Objaverse's objects are named by URI and not downloaded here.
    """
    scheme, colon, _ = source.partition(":")
    if (
        colon
        and not is_uri(source)
        and re.fullmatch(r"[a-z][a-z0-9-]+", scheme)
        and not os.path.exists(source)
    ):
        if scheme in ("objaverse", "objaverse-xl"):
            from orbit4d.datasets.sources.objaverse.expanding import expand_objaverse, expand_objaverse_xl

            return (expand_objaverse if scheme == "objaverse" else expand_objaverse_xl)(source, workers_fetch)
        if scheme in _SCHEMES:
            return _SCHEMES[scheme](source)
        hint = "use the `orbit4d` command for it" if scheme == "demo" else "known: objaverse:, demo:"
        raise InputError(f"{source}: unknown kind of source `{scheme}:`; {hint}")
    if is_uri(source):
        return _expand_uri(source, workers_fetch)
    path = Path(source)
    if path.is_dir():
        if is_dataset(path):
            raise InputError(
                f"{source}: is a rendered dataset, not assets; `orbit4d curate` measures its images"
            )
        files = _walk(path)
        if not files:
            empty = next(path.iterdir(), None) is None
            what = "the folder is empty" if empty else "no supported file in the folder"
            raise InputError(f"{source}: {what}; supported: {' '.join(sorted(FORMATS))}")
        return Expanded([_candidate(str(file)) for file in files])
    if path.is_file():
        return _expand_file(source, workers_fetch)
    if glob.has_magic(source):
        found = [
            f
            for f in naturally(glob.glob(source, recursive=True))
            if suffix_of(f) in FORMATS and os.path.isfile(f)
        ]
        if not found:
            raise InputError(
                f"{source}: the pattern matches no supported file; quote it, or check the folder"
            )
        return Expanded([_candidate(file) for file in found])
    raise InputError(f"{source}: no such file or folder; check the path")


def _expand_file(source: str, workers_fetch: bool) -> Expanded:
    suffix = suffix_of(source)
    if suffix in FORMATS:
        return Expanded([_candidate(source)])
    if suffix == ".txt":
        return _expand_list(source, workers_fetch)
    if suffix in (".parquet", ".csv"):
        from orbit4d.datasets.sources.tables import expand_table

        return expand_table(source, workers_fetch)
    raise InputError(
        f"{source}: not a supported asset, list (.txt) or table (.parquet, .csv); supported assets: "
        f"{' '.join(sorted(FORMATS))}"
    )


def _expand_uri(source: str, workers_fetch: bool) -> Expanded:
    import fsspec

    suffix = suffix_of(source)
    if suffix in (".parquet", ".csv"):
        from orbit4d.datasets.sources.tables import expand_table

        return expand_table(source, workers_fetch)
    if suffix == ".txt" and not glob.has_magic(source):
        return _expand_list(source, workers_fetch)
    try:
        fs, root = fsspec.core.url_to_fs(source)
        if glob.has_magic(source):
            infos = fs.glob(root, detail=True)
        elif suffix in FORMATS:
            infos = {root: fs.info(root)} if fs.isfile(root) else {}
        else:
            infos = fs.find(root, detail=True)
    except Exception as error:
        # Object stores raise classes of their own (no credentials, no such bucket).
        raise InputError(
            f"{source}: cannot be listed ({error}); check the URI, its credentials and extras"
        ) from error
    found = [name for name in naturally(infos) if suffix_of(name) in FORMATS]
    if not found:
        raise InputError(f"{source}: no supported file there; supported: {' '.join(sorted(FORMATS))}")
    return Expanded([_candidate(fs.unstrip_protocol(name), infos[name]) for name in found])


def _expand_list(source: str, workers_fetch: bool) -> Expanded:
    """A text file: an Objaverse uid or a path to an asset (relative to the list) a line; `#` comments."""
    entries = read_list(source, "a UTF-8 text file with one id or path a line")
    folder = source.rpartition("/")[0] if is_uri(source) else os.path.dirname(source)
    files = {e: e if is_uri(e) else below(folder, e) for e in entries if suffix_of(e) in FORMATS}
    ids = [entry for entry in entries if entry not in files]
    strange = [entry for entry in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", entry)]
    if strange:
        raise InputError(f"{source}: `{strange[0][:60]}` is neither an id nor a supported asset file")
    notes: list[str] = []
    by_id: dict[str, Candidate] = {}
    if ids:
        from orbit4d.datasets.sources.objaverse.expanding import fetch

        expanded = fetch(list(dict.fromkeys(ids)), workers_fetch=workers_fetch)
        by_id = {candidate.uid: candidate for candidate in expanded.candidates}
        notes = expanded.notes
    return Expanded([_candidate(files[e]) if e in files else by_id[clean_uid(e)] for e in entries], notes)


def _walk(folder: Path) -> list[Path]:
    """Supported files below `folder` in natural order; hidden entries and symlinked folders are left out."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, f) for f in files if not f.startswith(".") and suffix_of(f) in FORMATS]
    return naturally(found)


def _candidate(path: str, info: Mapping[str, Any] | None = None) -> Candidate:
    """The candidate at a path or URI, with what the listing of its folder tells."""
    info = info or {}
    size = int(info.get("size") or 0)
    return Candidate(clean_uid(stem_of(path)), path, bytes=size, version=version_of(info))
