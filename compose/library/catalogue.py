"""A library of animated assets: every action of every asset, with what it is called and who owns it."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from orbit4d.compose.library.rows import dataset_rows, folder_rows
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_dataset

#: What the licence of an asset is called where nobody names it.
UNKNOWN = "unknown"
_MAX_ROWS = 2_000_000


@dataclass(frozen=True)
class Entry:
    """One action of one asset; `seconds` is its length, `duplicate_of` the index of the same action."""

    uid: str
    action: str
    action_index: int = 0
    caption: str = ""
    file: str = ""
    licence: str = UNKNOWN
    author: str = ""
    source_url: str = ""
    seconds: float | None = None
    duplicate_of: int | None = None
    file_sha256: str = ""


@dataclass(frozen=True)
class Library:
    """Actions to choose from; `dropped` counts assets that `keep_licences` left out, by licence."""

    entries: tuple[Entry, ...]
    name: str = "library"
    dropped: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""

    @property
    def uids(self) -> list[str]:
        """Uids of the assets, each once, in order."""
        return list(dict.fromkeys(entry.uid for entry in self.entries))

    def entry(self, uid: str, action: str) -> Entry:
        """The entry of an action. Raises InputError where there is none."""
        for entry in self.entries:
            if entry.uid == uid and entry.action == action:
                return entry
        raise InputError(f"{printable(uid)}: has no action {printable(action, 80)!r} in {self.name}")

    def keep_licences(self, patterns: Sequence[str]) -> Library:
        """Only what is under one of these licences (patterns such as `CC0*`, in any case).

        Without patterns everything is kept but what forbids commercial use or derivatives.
        """
        kept: list[Entry] = []
        dropped: dict[str, int] = {}
        uids: set[tuple[str, str]] = set()
        for entry in self.entries:
            if _allowed(entry.licence, patterns):
                kept.append(entry)
            elif (entry.uid, entry.licence) not in uids:
                uids.add((entry.uid, entry.licence))
                dropped[entry.licence] = dropped.get(entry.licence, 0) + 1
        return Library(tuple(kept), self.name, dropped, _digest(kept))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], name: str = "library") -> Library:
        """A library from mappings with the columns of actions.csv; `uid` and `action` are needed."""
        entries = [_entry(row, i, name) for i, row in enumerate(rows)]
        return cls(_once(entries, name), name, {}, _digest(entries))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> Library:
        """A library from a CSV file with the columns of actions.csv.

        Raises:
            InputError: no such file, no UTF-8, no columns uid and action, one uid with two files.
        """
        text = _read(Path(path))
        reader = csv.DictReader(io.StringIO(text))
        columns = [name.strip() for name in reader.fieldnames or []]
        if missing := {"uid", "action"} - set(columns):
            raise InputError(
                f"{path}: a library needs the columns uid and action; {', '.join(sorted(missing))} is missing"
            )
        reader.fieldnames = columns
        try:
            found = cls.from_rows(reader, str(path))
        except csv.Error as error:
            raise InputError(f"{path}: no CSV: {error}") from None
        if not found.entries:
            raise InputError(f"{path}: a library without rows; give one with assets")
        folder = Path(path).parent
        entries = tuple(
            entry
            if not entry.file or os.path.isabs(entry.file) or "://" in entry.file
            else _beside(entry, folder)
            for entry in found.entries
        )
        return cls(entries, str(path), {}, hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def from_sources(cls, *sources: Any) -> Library:
        """One library from datasets, folders of assets, CSV files, rows or libraries. Raises InputError."""
        return cls.joined([open_library(source) for source in sources])

    @classmethod
    def joined(cls, libraries: Sequence[Library]) -> Library:
        """Several libraries as one. Raises InputError where one uid has two files."""
        if len(libraries) == 1:
            return libraries[0]
        entries = [entry for library in libraries for entry in library.entries]
        name = ", ".join(library.name for library in libraries)
        return cls(_once(entries, name), name, {}, _digest(entries))


def _beside(entry: Entry, folder: Path) -> Entry:
    values = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
    return Entry(**{**values, "file": os.path.normpath(folder / entry.file)})


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such library; give a dataset, a folder of assets or a CSV") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None


def _entry(row: Mapping[str, Any], number: int, name: str) -> Entry:
    def text(*keys: str) -> str:
        return next((str(row[key]).strip() for key in keys if row.get(key) not in (None, "")), "")

    uid, action = text("uid"), text("action")
    if not uid or "action" not in row:
        lacks = "action" if uid else "uid"
        raise InputError(
            f"{name}: row {number + 1} has no {lacks}; a library needs the columns uid and action"
        )
    try:
        index = int(text("action_index") or 0)
        same = int(text("duplicate_of")) if text("duplicate_of") else None
        seconds = float(text("seconds")) if text("seconds") else None
    except ValueError as error:
        raise InputError(f"{name}: row {number + 1}: {printable(error)}; fix the number") from None
    licence = text("licence", "license") or UNKNOWN
    about = {key: text(key) for key in ("caption", "file", "author", "source_url")}
    sha = text("file_sha256", "sha256")
    return Entry(
        uid, action, index, **about, licence=licence, seconds=seconds, duplicate_of=same, file_sha256=sha
    )


def _once(entries: Sequence[Entry], name: str) -> tuple[Entry, ...]:
    """Every (uid, action) once; one uid with two files is refused."""
    files: dict[str, str] = {}
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if files.setdefault(entry.uid, entry.file) != entry.file:
            raise InputError(
                f"{name}: {printable(entry.uid, 80)} has two files, {printable(files[entry.uid], 60)} and "
                f"{printable(entry.file, 60)}; give one"
            )
        found.setdefault((entry.uid, entry.action), entry)
    if len(found) > _MAX_ROWS:
        raise InputError(f"{name}: {len(found)} actions, more than {_MAX_ROWS}; give a smaller library")
    return tuple(found.values())


def _digest(entries: Sequence[Entry]) -> str:
    text = "\n".join(f"{e.uid}\t{e.action}\t{e.action_index}\t{e.caption}\t{e.duplicate_of}" for e in entries)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _allowed(licence: str, patterns: Sequence[str]) -> bool:
    """Whether a licence is named; non-commercial and no-derivatives ones only when named themselves."""
    plain = licence.lower()
    limited = any(
        part in ("nc", "nd", "noncommercial", "noderivatives", "noderivs") for part in plain.split("-")
    )
    for pattern in patterns:
        wanted = pattern.strip().lower()
        # "cc-by" is CC-BY-4.0 and not CC-BY-NC-4.0; "cc0" is CC0-1.0.
        version = any(fnmatchcase(plain, f"{wanted}{tail}") for tail in ("", "-[0-9]*"))
        if version or (not limited and fnmatchcase(plain, wanted)):
            return True
    return not patterns and not limited


_opened: dict[tuple[str, int, int], Library] = {}


def open_library(source: Any) -> Library:
    """The library that a path, rows, a `Library` or a list of these stands for. Raises InputError."""
    if isinstance(source, Library):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    if isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        if not source:
            raise InputError("library: is empty; give one with assets")
        return Library.from_rows(source)
    if isinstance(source, Sequence):
        return Library.joined([open_library(one) for one in source])
    raise InputError(f"library: {type(source).__name__} is no library; give a path, rows or a Library")


def _from_path(path: Path) -> Library:
    if path.is_dir():
        rows = dataset_rows(path) if is_dataset(path) else folder_rows(path)
        return Library.from_rows(rows, str(path))
    try:
        about = path.stat()
    except OSError:
        raise InputError(f"{path}: no such library; give a dataset, a folder of assets or a CSV") from None
    key = (os.fspath(path.resolve()), about.st_mtime_ns, about.st_size)
    if key not in _opened:
        if len(_opened) > 16:
            _opened.clear()
        _opened[key] = Library.from_csv(path)
    return _opened[key]
