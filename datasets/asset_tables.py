"""Tables of assets as a source: what `curate` writes, or any CSV or Parquet with column `path` or `file`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orbit4d.datasets.errors import InputError
from orbit4d.datasets.sources import FORMATS, Candidate, Expanded, clean_uid, is_uri, stem_of, suffix_of

_TABLE_COLUMNS = (
    "uid",
    "path",
    "asset_sha256",
    "license",
    "author",
    "source_url",
    "caption",
    "verdict",
    "action",
    "action_index",
)


def read_table(source: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet or CSV file, local or fsspec, as an Arrow table; `columns` are read where present."""
    import fsspec
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        with fsspec.open(source, "rb") as file:
            if suffix_of(source) == ".csv":
                return pyarrow.csv.read_csv(file)
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            return parquet.read(columns=None if columns is None else [c for c in columns if c in names])
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{source}: cannot be read as a table ({' '.join(str(error).split())[:200]})"
        ) from error


def expand_table(source: str) -> Expanded:
    """A table of assets: made by `curate` (accepted rows are taken), or any CSV/Parquet with path or file."""
    table = read_table(
        source,
        None
        if suffix_of(source) == ".csv"
        else (*_TABLE_COLUMNS, "file", "licence", "sha256", "fileIdentifier"),
    )
    names = set(table.column_names)
    if {"fileIdentifier", "sha256"} <= names:
        from orbit4d.datasets.objaverse_source import expand_objaverse_xl

        return expand_objaverse_xl(f"objaverse-xl:{source}")
    path_name = "path" if "path" in names else "file"
    if path_name not in names:
        raise InputError(
            f"{source}: a table of assets needs a column `path`; it has {', '.join(sorted(names))}"
        )
    folder = source.rpartition("/")[0] if is_uri(source) else os.path.dirname(source)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if "verdict" in names and row["verdict"] != "accepted":
            continue
        path = str(row[path_name] or "")
        if not is_uri(path) and not os.path.isabs(path):
            path = f"{folder}/{path}" if folder else path
        uid = clean_uid(str(row.get("uid") or stem_of(path)))
        groups.setdefault((uid, path), []).append(row)
    candidates = []
    for (uid, path), rows in groups.items():
        first = {key: str(value) for key, value in rows[0].items() if value is not None}
        actions = None
        if "action_index" in names and all(row.get("action") for row in rows):
            actions = tuple(sorted({int(row["action_index"]) for row in rows}))
        problem = None
        if suffix_of(path) not in FORMATS:
            problem = ("bad_file:format", f"unsupported suffix {suffix_of(path)!r}")
        candidates.append(
            Candidate(
                uid,
                path,
                first.get("asset_sha256") or first.get("sha256", ""),
                first.get("license") or first.get("licence", ""),
                first.get("author", ""),
                first.get("source_url", ""),
                first.get("caption", ""),
                actions,
                problem,
            )
        )
    if not candidates:
        raise InputError(f"{source}: the table has no accepted asset; curate again with other thresholds")
    return Expanded(candidates)
