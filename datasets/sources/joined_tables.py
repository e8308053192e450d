"""Tables about assets that others publish: quality tags, captions, lists of ids, joined by any key they have.

A key is Objaverse's uid, the hash of the contents, an address that ends in the uid, or a name. Read are CSV
(with a header, or Cap3D's two columns without one), Parquet, JSON (a list of objects, or uid -> object or
text), JSON lines, and text files with an id a line, which say of each asset whether it is listed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.asset_keys import key_of
from orbit4d.datasets.sources.lists import lines_of, read_list, read_text
from orbit4d.datasets.sources.read_table import read_rows, read_table

#: Columns that name the asset, without case, `_` and `-`.
KEYS = ("uid", "uuid", "sha256", "assetsha256", "fileidentifier", "id", "objectid", "modelid")

Key = tuple[str, str]


@dataclass(frozen=True)
class JoinedTable:
    """Rows of a table, found by their keys."""

    path: str
    columns: tuple[str, ...]
    """Names of the columns that are no keys, as `column_name` writes them."""
    rows: tuple[Mapping[str, Any], ...]
    """Values by those names; numbers and truth values as what they are."""
    places: Mapping[Key, int]
    """Key -> row; the first row of a key counts."""
    complete: bool = False
    """Whether an asset without a row is one of which the table says no (a list of ids)."""

    def find(self, texts: Iterable[str]) -> tuple[Mapping[str, Any] | None, str]:
        """(row of the asset that all of `texts` name, '') or (row by the first of them, warning) where two of
        them lead to different rows; (None, '') for an asset without a row."""
        found: dict[int, Key] = {}
        for text in texts:
            key = key_of(text) if text else None
            if key is not None and key in self.places:
                found.setdefault(self.places[key], key)
        if not found:
            return None, ""
        first, *others = found
        different = [at for at in others if self.rows[at] != self.rows[first]]
        if not different:
            return self.rows[first], ""
        names = " and ".join(f"{kind} {key[:12]}" for kind, key in (found[first], found[different[0]]))
        return self.rows[first], f"{self.path}: {names} are one asset and two rows; the first counts"


def column_name(text: str) -> str:
    """A column as an expression can name it: lower case, only [a-z0-9_]."""
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_") or "column"


def is_key_column(name: str) -> bool:
    """Whether a column of this name says which asset a row is about."""
    return re.sub("[_-]", "", name.lower()) in KEYS


def read_joined(path: str) -> JoinedTable:
    """Read a table. InputError for a file that is none, or has no column that names assets."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".txt":
        return _list_of_ids(path)
    if suffix in (".json", ".jsonl"):
        header, body = json_rows(path)
    elif suffix == ".csv":
        header, body = _csv_rows(path)
    elif suffix == ".parquet":
        table = read_table(path)
        header = table.column_names
        body = [list(row) for row in zip(*(table.column(name).to_pylist() for name in header))]
    else:
        raise InputError(f"{path}: is no table (.csv, .parquet, .json, .jsonl) and no list of ids (.txt)")
    return _joined(path, header, body)


def _joined(path: str, header: Sequence[str], body: Sequence[Sequence[Any]]) -> JoinedTable:
    keys = [i for i, name in enumerate(header) if is_key_column(name)]
    if not keys:
        have = ", ".join(header)[:200]
        raise InputError(f"{path}: no column names assets (uid, sha256, fileIdentifier); it has {have}")
    others = [i for i in range(len(header)) if i not in keys]
    names = [column_name(header[i]) for i in others]
    values = [_typed([row[i] for row in body]) for i in others]
    rows = tuple(dict(zip(names, row)) for row in zip(*values)) if values else tuple({} for _ in body)
    places: dict[Key, int] = {}
    for number, row in enumerate(body):
        for i in keys:
            if row[i] not in (None, ""):
                places.setdefault(key_of(str(row[i])), number)
    return JoinedTable(path, tuple(names), rows, places)


def _csv_rows(path: str) -> tuple[list[str], list[list[str]]]:
    """A CSV of two columns, the first row's first a key, has no header: id, caption (Cap3D)."""
    rows = read_rows(path)
    if len(rows[0]) == 2 and key_of(rows[0][0])[0] != "name":
        return ["id", "caption"], rows
    return rows[0], rows[1:]


def json_rows(path: str) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of a list of objects, of an object by id, or of JSON lines. Raises InputError."""
    text = read_text(path, "a JSON table")
    try:
        if path.endswith(".jsonl"):
            content: Any = [json.loads(line) for line in lines_of(text) if line.strip()]
        else:
            content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if isinstance(content, dict):
        content = [
            {"uid": key, **(value if isinstance(value, dict) else {"caption": value})}
            for key, value in content.items()
        ]
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise InputError(f"{path}: a JSON table is a list of objects, or an object of ids")
    header = list(dict.fromkeys(str(name) for row in content for name in row))
    return header, [[_flat(row.get(name)) for name in header] for row in content]


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _list_of_ids(path: str) -> JoinedTable:
    name = column_name(os.path.splitext(os.path.basename(path))[0]).removesuffix("_list").removesuffix("_id")
    entries = read_list(path, "a list of ids, one a line")
    places: dict[Key, int] = {key_of(entry): 0 for entry in entries}
    return JoinedTable(path, (name,), ({name: True},), places, complete=True)


def _typed(values: Sequence[Any]) -> list[Any]:
    """Values of a column as truth values or numbers where all of them are; '' is null."""
    given = [None if isinstance(value, str) and not value.strip() else value for value in values]
    texts = {value.strip().lower() for value in given if isinstance(value, str)}
    rest = [value for value in given if value is not None and not isinstance(value, str)]
    if texts and texts <= {"true", "false"} and all(isinstance(value, bool) for value in rest):
        return [v.strip().lower() == "true" if isinstance(v, str) else v for v in given]
    if texts and not rest:
        try:
            numbers = [None if value is None else float(value) for value in given]
        except ValueError:
            return given
        whole = all(n is None or (n.is_integer() and abs(n) < 1e15) for n in numbers)
        return [None if n is None else int(n) for n in numbers] if whole else list(numbers)
    kinds = {type(value) for value in rest} | ({str} if texts else set())
    if len(kinds) <= 1 or kinds <= {int, float}:
        return given
    return [None if value is None else str(value) for value in given]
