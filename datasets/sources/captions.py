"""Captions, licences and authors from a table, joined to assets by uid or by the hash of their contents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.asset import Resolved, clean_uid
from orbit4d.datasets.sources.lists import named
from orbit4d.datasets.sources.read_table import read_rows, read_table, split_header

_KEEP = ("caption", "license", "author", "source_url")


def read_captions(path: str) -> dict[str, dict[str, str]]:
    """uid or sha256 -> {"caption", "license", "author", "source_url"} of a captions table, CSV or Parquet.

    A CSV of two columns without a header is uid, caption (as Cap3D publishes them). Raises InputError.
    """
    if path.endswith(".parquet"):
        table = read_table(path)
        header, columns = table.column_names, [table.column(name).to_pylist() for name in table.column_names]
        body = [["" if value is None else str(value) for value in row] for row in zip(*columns)]
    else:
        rows = read_rows(path)
        header, body = split_header(rows, path)
        if not {"uid", "caption"} <= set(header) and len(rows[0]) == 2:
            header, body = ["uid", "caption"], rows
    header = ["license" if name == "licence" else name for name in header]
    if not {"uid", "caption"} <= set(header):
        raise InputError(
            f"{path}: captions need the columns uid and caption; it has {', '.join(header)[:200]}"
        )
    result = {}
    for row in body:
        record = dict(zip(header, row))
        if record["uid"]:
            result[record["uid"]] = {name: record.get(name, "").strip() for name in _KEEP}
    return result


def join_captions(result: Resolved, path: str, stems: dict[str, str]) -> None:
    """Fill the captions of `result.assets` from `path`; `stems` gives each uid before any suffix."""
    captions = read_captions(path)
    clean = {clean_uid(uid): record for uid, record in captions.items()}
    joined, missing = [], []
    for asset in result.assets:
        keys: Iterable[str] = (asset.uid, stems[asset.uid], asset.sha256)
        record = next((clean[key] for key in keys if key in clean), None)
        if record is None:
            missing.append(asset.uid)
            joined.append(asset)
            continue
        own: dict[str, Any] = {
            name: getattr(asset, name) or record[name] for name in ("license", "author", "source_url")
        }
        joined.append(replace(asset, caption=record["caption"] or asset.caption, **own))
    result.assets = joined
    if missing:
        result.notes.append(without_caption(path, missing, len(joined)))


def without_caption(path: str, missing: Sequence[str], assets: int) -> str:
    """The note on assets that a captions table does not name."""
    return f"{path}: no caption for {len(missing)} of {assets} assets ({named(missing)})"
