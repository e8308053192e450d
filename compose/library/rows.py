"""The rows of a library in what a user has: a dataset's index, or a folder of assets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError


def dataset_rows(path: Path) -> list[dict[str, Any]]:
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
    return [{**row, "licence": row["license"], "file_sha256": row["asset_sha256"]} for row in rows.values()]


def folder_rows(path: Path) -> list[dict[str, Any]]:
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
                "licence": about.get("license") or found.license,
                "author": about.get("author") or found.author,
                "source_url": about.get("source_url") or found.source_url,
                "file_sha256": found.sha256,
            }
            for i, name in enumerate(names)
        ]
    if not rows:
        raise InputError(f"{path}: a folder without assets that can be read; give .glb, .fbx or other assets")
    return rows


def _captions_beside(path: Path) -> dict[str, dict[str, str]]:
    """Captions and licences from the one CSV that lies in the folder, where one does."""
    from orbit4d.datasets.sources.captions import read_captions

    for table in sorted(path.glob("*.csv")):
        try:
            return read_captions(str(table))
        except InputError:
            continue
    return {}
