"""Opening what a user names as a library: a CSV, a dataset, a folder of assets, rows, or several of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbit4d.compose.library.catalogue import UNKNOWN, Library
from orbit4d.datasets.core.errors import InputError

_read: dict[tuple[str, int, int], Library] = {}


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


def from_sources(*sources: Any) -> Library:
    """Several sources as one library; see `open_library`."""
    return Library.joined([open_library(source) for source in sources])


def _from_path(path: Path) -> Library:
    if path.is_dir():
        return _from_dataset(path) if (path / "dataset.json").is_file() else _from_folder(path)
    try:
        about = path.stat()
    except OSError:
        raise InputError(f"{path}: no such library; give a dataset, a folder of assets or a CSV") from None
    key = (os.fspath(path.resolve()), about.st_mtime_ns, about.st_size)
    if key not in _read:
        if len(_read) > 16:
            _read.clear()
        _read[key] = Library.from_csv(path)
    return _read[key]


def _from_dataset(path: Path) -> Library:
    """Every action that the index of a dataset knows."""
    from orbit4d.datasets.index.index import Index

    wanted = ["uid", "action", "caption", "license", "author", "source_url", "action_index", "asset_sha256"]
    index = Index(path)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for _, part in index.read(wanted):
        for row in part.to_pylist():
            rows.setdefault((row["uid"], row["action"]), row)
    if not rows:
        raise InputError(f"{path}: a dataset without clips; give one with assets")
    listed = [
        {**row, "licence": row["license"] or UNKNOWN, "file_sha256": row["asset_sha256"]}
        for row in rows.values()
    ]
    return Library.from_rows(listed, str(path))


def _from_folder(path: Path) -> Library:
    """Every action of the assets in a folder, read from the files without Blender."""
    from orbit4d.datasets.assets.formats import FORMATS
    from orbit4d.datasets.assets.inspect import BadFile, inspect

    captions = _captions_beside(path)
    rows: list[dict[str, Any]] = []
    for file in sorted(one for one in path.rglob("*") if one.suffix.lower() in FORMATS and one.is_file()):
        try:
            found = inspect(file)
        except BadFile:
            continue
        about = captions.get(file.stem, {})
        names = found.animation_names or ("",)
        rows += [
            {
                "uid": file.stem,
                "file": str(file),
                "action": name,
                "action_index": i,
                "caption": about.get("caption") or file.stem.replace("_", " "),
                "licence": about.get("license") or found.license or UNKNOWN,
                "author": about.get("author") or found.author,
                "source_url": about.get("source_url") or found.source_url,
                "file_sha256": found.sha256,
            }
            for i, name in enumerate(names)
        ]
    if not rows:
        raise InputError(f"{path}: a folder without assets that can be read; give .glb, .fbx or other assets")
    return Library.from_rows(rows, str(path))


def _captions_beside(path: Path) -> dict[str, dict[str, str]]:
    """Captions and licences from the one CSV that lies in the folder, where one does."""
    from orbit4d.datasets.sources.captions import read_captions

    for table in sorted(path.glob("*.csv")):
        try:
            return read_captions(str(table))
        except InputError:
            continue
    return {}
