"""Captions, licences and authors from a table, joined to assets by uid or by the hash of their contents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.asset import Resolved, clean_uid
from orbit4d.datasets.sources.asset_keys import key_of
from orbit4d.datasets.sources.joined_tables import is_key_column, json_rows
from orbit4d.datasets.sources.lists import named
from orbit4d.datasets.sources.read_table import read_rows, read_table, split_header

_KEEP = ("caption", "license", "author", "source_url")


def read_captions(path: str) -> dict[str, dict[str, str]]:
    """uid or sha256 -> {"caption", "license", "author", "source_url"} of a captions table: CSV, Parquet or
    JSON.

    A row is found under every key that it has (uid, sha256, fileIdentifier, ...). A CSV of two columns
    without a header is uid, caption (as Cap3D publishes them). Raises InputError.
    """
    if path.endswith((".json", ".jsonl")):
        header, body = _read_json(path)
    elif path.endswith(".parquet"):
        table = read_table(path)
        header, columns = table.column_names, [table.column(name).to_pylist() for name in table.column_names]
        body = [["" if value is None else str(value) for value in row] for row in zip(*columns)]
    else:
        rows = read_rows(path)
        header, body = split_header(rows, path)
        named_columns = "caption" in header and any(map(is_key_column, header))
        if not named_columns and len(rows[0]) == 2:
            header, body = ["uid", "caption"], rows
    header = ["license" if name == "licence" else name for name in header]
    keys = [name for name in header if is_key_column(name)]
    if not keys or "caption" not in header:
        raise InputError(
            f"{path}: captions need the columns uid and caption; it has {', '.join(header)[:200]}"
        )
    result: dict[str, dict[str, str]] = {}
    for row in body:
        record = dict(zip(header, row))
        about = {name: record.get(name, "").strip() for name in _KEEP}
        for name in keys:
            if record[name]:
                result[record[name]] = about
    return result


def _read_json(path: str) -> tuple[list[str], list[list[str]]]:
    header, body = json_rows(path)
    return header, [["" if value is None else str(value) for value in row] for row in body]


def join_captions(result: Resolved, path: str, stems: dict[str, str]) -> None:
    """Fill the captions of `result.assets` from `path`; `stems` gives each uid before any suffix.

    Keys are compared as `key_of` reads them. Where an asset's uid and its contents lead to different
    captions, the first counts and a note names both.
    """
    captions = read_captions(path)
    # Names in another case are other names where the table has both.
    keyed = {key_of(uid): record for uid, record in captions.items()}
    exact = {clean_uid(uid): record for uid, record in captions.items()}
    joined, missing = [], []
    for asset in result.assets:
        texts: Iterable[str] = (asset.uid, stems[asset.uid], asset.sha256, asset.source_url)
        keys = [(key_of(text), exact.get(text)) for text in dict.fromkeys(texts) if text]
        found = [(key, own or keyed[key]) for key, own in keys if own is not None or key in keyed]
        if not found:
            missing.append(asset.uid)
            joined.append(asset)
            continue
        record = found[0][1]
        other = next((key for key, also in found if also["caption"] != record["caption"]), None)
        if other is not None:
            names = " and ".join(f"{kind} {key[:12]}" for kind, key in (found[0][0], other))
            result.notes.append(f"{path}: {names} are one asset with two captions; the first counts")
        others: dict[str, Any] = {
            name: getattr(asset, name) or record[name] for name in ("license", "author", "source_url")
        }
        joined.append(replace(asset, caption=record["caption"] or asset.caption, **others))
    result.assets = joined
    if missing:
        result.notes.append(without_caption(path, missing, len(joined)))


def without_caption(path: str, missing: Sequence[str], assets: int) -> str:
    """The note on assets that a captions table does not name."""
    return f"{path}: no caption for {len(missing)} of {assets} assets ({named(missing)})"
