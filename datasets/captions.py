"""Captions, licences and authors from a CSV, joined to assets by uid or by the hash of their contents."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orbit4d.datasets.errors import InputError
from orbit4d.datasets.sources import Resolved, clean_uid


def read_captions(path: str) -> dict[str, dict[str, str]]:
    """uid or sha256 -> {"caption", "license", "author", "source_url"} of a captions CSV.

    Without a header the two columns are uid, caption (as Cap3D publishes them).
    """
    import fsspec

    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, ImportError, csv.Error) as error:
        raise InputError(f"{path}: the captions cannot be read ({error})") from error
    if not rows:
        raise InputError(f"{path}: the captions file is empty")
    header = [name.strip().lower() for name in rows[0]]
    if "caption" in header and "uid" in header:
        body = rows[1:]
        header = ["license" if name == "licence" else name for name in header]
    elif len(rows[0]) == 2:
        header, body = ["uid", "caption"], rows
    else:
        raise InputError(
            f"{path}: captions need the columns uid and caption; it has {', '.join(header)[:200]}"
        )
    keep = ("caption", "license", "author", "source_url")
    result = {}
    for row in body:
        record = dict(zip(header, row))
        if record.get("uid"):
            result[record["uid"].strip()] = {name: record.get(name, "").strip() for name in keep}
    return result


def join_captions(result: Resolved, path: str, stems: dict[str, str]) -> None:
    """Fill the captions of `result.assets` from `path`; `stems` gives each uid before any suffix."""
    captions = read_captions(path)
    clean = {clean_uid(uid): record for uid, record in captions.items()}
    joined, missing = [], 0
    for asset in result.assets:
        keys: Iterable[str] = (asset.uid, stems[asset.uid], asset.sha256)
        record = next((clean[key] for key in keys if key in clean), None)
        if record is None:
            missing += 1
            joined.append(asset)
            continue
        own: dict[str, Any] = {
            name: getattr(asset, name) or record[name] for name in ("license", "author", "source_url")
        }
        joined.append(replace(asset, caption=record["caption"] or asset.caption, **own))
    result.assets = joined
    if missing:
        result.notes.append(f"{path}: no caption for {missing} of {len(result.assets)} assets")
