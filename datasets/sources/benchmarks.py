"""Objects of published benchmarks, which must not be trained on, and who of our assets is one of them.

The lists that ship stand in benchmark_objects.csv (benchmark, subset, key, kind, detail, source); users add
files of the same columns, or plain lists of keys. An asset is known by its uid, its address, or the hash of
its contents: that of a listed object is known where the list gives it, where a table of hashes does
(Objaverse-XL's sketchfab.parquet), and where an asset of a listed uid was seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.asset_keys import key_of
from orbit4d.datasets.sources.lists import read_list
from orbit4d.datasets.sources.read_table import read_table

#: The lists that ship.
SHIPPED = Path(__file__).with_name("benchmark_objects.csv")

Names = tuple[str, ...]


@dataclass(frozen=True)
class Benchmarks:
    """Keys of listed objects, each with the benchmarks that list it."""

    uids: Mapping[str, Names]
    hashes: Mapping[str, Names]
    """SHA-256 of contents."""
    names: Mapping[str, Names]
    hashed: frozenset[str] = frozenset()
    """Listed uids whose contents are known: renamed copies of the others are not found."""

    def of(self, uid: str, sha256: str = "", source_url: str = "") -> Names:
        """Benchmarks that hold an asset of this uid (or file stem), contents or address; sorted."""
        found: set[str] = set(self.hashes.get(sha256.lower(), ()))
        for text in (uid, source_url):
            kind, key = key_of(text)
            held = {"uid": self.uids, "sha256": self.hashes, "name": self.names}[kind]
            found.update(held.get(key, ()))
        return tuple(sorted(found))

    def knowing(self, hashes: Mapping[str, Iterable[str]]) -> Benchmarks:
        """The same with more hashes of listed objects."""
        merged = {key: tuple(sorted({*self.hashes.get(key, ()), *names})) for key, names in hashes.items()}
        return replace(self, hashes={**self.hashes, **merged})

    def seen(self, assets: Iterable[tuple[str, str, str]]) -> Benchmarks:
        """The same, knowing the contents of those of `assets`, (uid, sha256, source_url), that are listed."""
        found: dict[str, set[str]] = {}
        hashed = set(self.hashed)
        for uid, sha256, url in assets:
            names = self.of(uid, "", url)
            if sha256 and names:
                found.setdefault(sha256.lower(), set()).update(names)
                hashed.update({key_of(uid)[1], key_of(url)[1]} & set(self.uids))
        return replace(self.knowing(found), hashed=frozenset(hashed))


def load_benchmarks(lists: Sequence[str] = (), hashes: str | None = None) -> Benchmarks:
    """The shipped lists, and those in `lists`: tables with benchmark and key, or plain lists of keys, whose
    benchmark is the file's stem. `hashes` is a table with fileIdentifier (or uid) and sha256, which gives the
    contents of listed uids. Raises InputError."""
    kinds: dict[str, dict[str, set[str]]] = {"uid": {}, "sha256": {}, "name": {}}
    for path in (str(SHIPPED), *lists):
        for name, text in _entries(path):
            kind, key = key_of(text)
            kinds[kind].setdefault(key, set()).add(name)
    uids, contents, names = ({k: tuple(sorted(v)) for k, v in kinds[kind].items()} for kind in kinds)
    found = Benchmarks(uids, contents, names)
    return found if hashes is None else found.seen(_hashes(hashes, uids))


def _entries(path: str) -> list[tuple[str, str]]:
    """(benchmark, key) of one list."""
    if os.path.splitext(path)[1].lower() not in (".csv", ".parquet"):
        stem = os.path.splitext(os.path.basename(path))[0]
        return [(stem, entry) for entry in read_list(path, "a list of uids or hashes, one a line")]
    table = read_table(path)
    lacking = [name for name in ("benchmark", "key") if name not in table.column_names]
    if lacking:
        have = ", ".join(table.column_names)[:200]
        raise InputError(f"{path}: benchmark objects need the columns benchmark and key; it has {have}")
    rows = zip(table["benchmark"].to_pylist(), table["key"].to_pylist())
    return [(str(name).strip(), str(key)) for name, key in rows if name and key]


def _hashes(path: str, uids: Mapping[str, Names]) -> list[tuple[str, str, str]]:
    """(uid, sha256, "") of the listed uids that a table of hashes names."""
    table = read_table(path, ("fileIdentifier", "uid", "sha256"))
    column = next((name for name in ("fileIdentifier", "uid") if name in table.column_names), None)
    if column is None or "sha256" not in table.column_names:
        raise InputError(f"{path}: a table of hashes has the columns fileIdentifier (or uid) and sha256")
    found = []
    for text, sha256 in zip(table[column].to_pylist(), table["sha256"].to_pylist()):
        kind, key = key_of(text or "")
        if kind == "uid" and key in uids and sha256:
            found.append((key, str(sha256).strip(), ""))
    return found
