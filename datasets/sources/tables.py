"""Tables of assets as a source: what `curate` writes, or any CSV or Parquet with column `path` or `file`."""

from __future__ import annotations

import os
from typing import Any

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import below, is_uri, stem_of, suffix_of
from orbit4d.datasets.sources.asset import Candidate, Expanded, clean_uid
from orbit4d.datasets.sources.objaverse.workers import portable
from orbit4d.datasets.sources.read_table import read_table

_TABLE_COLUMNS = (
    "uid",
    "path",
    "asset_sha256",
    "license",
    "author",
    "source_url",
    "caption",
    "verdict",
    "status",
    "action",
    "action_index",
    "split",
    "bytes",
)
_VERDICTS = ("accepted", "rejected", "failed")


def expand_table(source: str, workers_fetch: bool = False) -> Expanded:
    """A table of assets: made by `curate` (accepted rows are taken), or any CSV/Parquet with path or file."""
    table = read_table(source, (*_TABLE_COLUMNS, "file", "licence", "sha256", "fileIdentifier"))
    names = set(table.column_names)
    if {"fileIdentifier", "sha256"} <= names:
        from orbit4d.datasets.sources.objaverse.expanding import expand_objaverse_xl

        return expand_objaverse_xl(f"objaverse-xl:{source}", workers_fetch)
    path_name = "path" if "path" in names else "file"
    if path_name not in names:
        found = sorted(read_table(source).column_names)
        raise InputError(f"{source}: a table of assets needs a column `path`; it has {', '.join(found)}")
    folder = source.rpartition("/")[0] if is_uri(source) else os.path.dirname(source)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    strange: list[str] = []
    for row in table.to_pylist():
        if "verdict" in names and row["verdict"] != "accepted":
            if row["verdict"] not in _VERDICTS:
                strange.append(str(row["verdict"]))
            continue
        path = row[path_name] or ""
        path = path if is_uri(path) else below(folder, path)
        # A table that was curated on one machine names the cache of that machine.
        path = portable(path) if workers_fetch else path
        uid = clean_uid(row.get("uid") or stem_of(path))
        groups.setdefault((uid, path), []).append(row)
    candidates = [_candidate(source, uid, path, rows) for (uid, path), rows in groups.items()]
    notes = []
    if strange:
        notes.append(
            f"{source}: {len(strange)} rows are left out, their verdict is none of {', '.join(_VERDICTS)} "
            f"(first: {strange[0]})"
        )
    if not candidates:
        why = f" ({notes[0].partition(': ')[2]})" if notes else ""
        raise InputError(
            f"{source}: the table has no accepted asset{why}; curate again with other thresholds"
        )
    return Expanded(candidates, notes)


def _candidate(source: str, uid: str, path: str, rows: list[dict[str, Any]]) -> Candidate:
    """The asset that some rows of a table name, one row an action."""
    first = {key: value for key, value in rows[0].items() if value is not None}
    actions = None
    if "action_index" in rows[0] and all(row.get("action") for row in rows):
        if any(row["action_index"] is None for row in rows):
            raise InputError(f"{source}: a row of {uid} names an action without its action_index")
        actions = tuple(sorted({row["action_index"] for row in rows}))
    problem = None
    if suffix_of(path) not in FORMATS:
        problem = ("bad_file:format", f"unsupported suffix {suffix_of(path)!r}")
    # What was not measured promises nothing: the file may have been broken when its hash was taken.
    sound = first.get("status") not in ("refused", "failed")
    return Candidate(
        uid,
        path,
        (first.get("asset_sha256") or first.get("sha256", "")) if sound else "",
        first.get("license") or first.get("licence", ""),
        first.get("author", ""),
        first.get("source_url", ""),
        first.get("caption", ""),
        actions,
        problem,
        split=_split(source, uid, first.get("split", "")),
        bytes=_size(first.get("bytes")),
    )


def _split(source: str, uid: str, split: str) -> str:
    if split not in ("", "train", "validation", "test"):
        raise InputError(f"{source}: {uid} is in the split {split!r}; known are train, validation, test")
    return split


def _size(value: Any) -> int:
    """A size in bytes as a table holds it, 0 where it holds none."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return 0
