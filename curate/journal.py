"""Rows of assets that are measured already, kept during a run, so that the next one resumes it.

A local journal is one file, to which lines are appended. Object storage cannot append: there it is a folder
of small files, one for each few seconds of work.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.atomic import write_text
from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.storage import Store

Rows = list[dict[str, Any]]
#: Seconds between two files of a journal in object storage, and entries after which one is written at once.
PUT_EVERY_S, PUT_EVERY = 5.0, 256


class Journal:
    """Entries (uid, contents) -> rows, one JSON line each, readable after any kind of end.

    `contents` is what tells one version of a file from another. Entries that were made under another `about`
    are worthless and are dropped.
    """

    def __init__(self, place: str, about: Mapping[str, Any]) -> None:
        """Open the journal at a path or URI; raises InputError where it cannot be written."""
        self.head = json.dumps(dict(about), sort_keys=True)
        self.rows: dict[tuple[str, str], Rows] = {}
        self._pages = _Folder(place) if is_uri(place) else _File(place)
        for text in self._pages.read():
            self._take(text)
        # Rewritten whole, so that a torn last line never gets anything appended to it.
        lines = [_line(*key, rows) for key, rows in self.rows.items()]
        self._pages.start("\n".join([self.head, *lines]) + "\n", self.head)

    def _take(self, text: str) -> None:
        lines = text.splitlines()
        if not lines or lines[0] != self.head:
            return
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                key = str(entry["uid"]), str(entry["sha256"])
                self.rows[key] = [dict(row) for row in entry["rows"]]
            except (ValueError, KeyError, TypeError):
                # The last line of a killed run, or a damaged one; its asset is measured again.
                continue

    def add(self, uid: str, contents: str, rows: Rows) -> None:
        """Note the rows of an asset whose contents are known."""
        self._pages.add(_line(uid, contents, rows))

    def flush(self) -> None:
        """Write what has not been written yet."""
        self._pages.flush()


def remove_journal(place: str) -> None:
    """Delete the journal at a path or URI, if there is one."""
    (_Folder(place) if is_uri(place) else _File(place)).remove()


def _line(uid: str, contents: str, rows: Rows) -> str:
    return json.dumps({"uid": uid, "sha256": contents, "rows": rows})


class _File:
    """A journal on a disk."""

    def __init__(self, place: str) -> None:
        self.path = Path(place)

    def read(self) -> list[str]:
        if not self.path.exists():
            return []
        return [self.path.read_text(encoding="utf-8", errors="replace")]

    def start(self, text: str, head: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, text)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --out"
            ) from error

    def add(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def flush(self) -> None:
        """Every line is written at once."""

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class _Folder:
    """A journal in object storage."""

    def __init__(self, place: str) -> None:
        self.store = Store(place)
        self._head = ""
        self._waiting: list[str] = []
        self._put_at = 0.0

    def read(self) -> list[str]:
        texts = []
        for name in self.store.list("", ".jsonl"):
            with contextlib.suppress(FileNotFoundError):
                texts.append(self.store.read(name).decode(errors="replace"))
        return texts

    def start(self, text: str, head: str) -> None:
        before = list(self.store.list("", ".jsonl"))
        self._head = head
        self.store.put(f"000000-{secrets.token_hex(4)}.jsonl", text.encode())
        self.store.delete(before)

    def add(self, line: str) -> None:
        self._waiting.append(line)
        if len(self._waiting) >= PUT_EVERY or time.monotonic() - self._put_at > PUT_EVERY_S:
            try:
                self.flush()
            except OrbitError as error:
                # Nothing is lost but the journal's advantage: the rows are in memory, and put with the next.
                print(f"note: {error}; tried again later", file=sys.stderr)

    def flush(self) -> None:
        if not self._waiting:
            return
        self._put_at = time.monotonic()
        # Named by the clock of this run: a reader takes all of them, in any order.
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.jsonl"
        self.store.put(name, ("\n".join([self._head, *self._waiting]) + "\n").encode())
        self._waiting.clear()

    def remove(self) -> None:
        self.store.delete(self.store.list("", ".jsonl"))
