"""dataset.json: what a dataset is, with which configuration and software it was made, and its own
checksum.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.paths import DATASET
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store.schema import SCHEMA_VERSION

NAME = DATASET
_KIND = "orbit4d dataset"
_FIX = "bring it back from a copy of the dataset"


@dataclass(frozen=True)
class Manifest:
    """The content of dataset.json."""

    config: Mapping[str, Any]
    """Resolved configuration of the run that made the dataset; another one is refused."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Versions of what made it, for people."""
    schema_version: int = SCHEMA_VERSION
    """Version of the index schema."""
    shards_at: str = ""
    """Of a view (`orbit4d select`): the dataset that holds the shards; '' when they lie here."""


def dump(manifest: Manifest) -> bytes:
    """Canonical bytes: any other bytes are damage."""
    content: dict[str, Any] = {
        "kind": _KIND,
        "schema_version": manifest.schema_version,
        "config": manifest.config,
        "software": manifest.software,
    }
    if manifest.shards_at:
        content["shards_at"] = manifest.shards_at
    content["checksum"] = hashlib.sha256(_canonical(content)).hexdigest()
    return _canonical(content)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse(data: bytes, name: str) -> Manifest:
    """Read dataset.json; a foreign file or another schema version raises InputError, damage WorkError."""
    with reading(name, fix=_FIX):
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("not an object")
    if content.get("kind") != _KIND:
        raise InputError(f"{name}: not an orbit4d dataset")
    version = content.get("schema_version")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(
            f"{name}: schema version {version}, this orbit4d reads up to {SCHEMA_VERSION}; upgrade orbit4d"
        )
    manifest = Manifest(
        config=content.get("config", {}),
        software=content.get("software", {}),
        schema_version=version,
        shards_at=content.get("shards_at", ""),
    )
    with reading(name, fix=_FIX):
        if dump(manifest) != data:
            raise WorkError(f"{name}: damaged (its checksum does not fit); {_FIX}")
    return manifest


def read(store: Store) -> Manifest:
    """Manifest of a dataset; a missing one raises InputError."""
    try:
        data = store.read(NAME)
    except FileNotFoundError:
        raise InputError(f"{store.uri}: not an orbit4d dataset (no {NAME}); check the path") from None
    return parse(data, store.path(NAME))


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as JSON keeps it (tuples become lists), so that it compares equal when read back."""
    return json.loads(json.dumps(dict(config)))


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Dotted name of the first key whose value differs, None when equal."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(set(a) | set(b)):
            found = first_difference(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    return None if a == b else (path or "config")


def value_at(config: Any, path: str) -> Any:
    """Value under a dotted name."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def software_versions() -> dict[str, str]:
    """Versions of the libraries that shape the stored bytes."""
    versions = {}
    for package in ("orbit4d", "bpy", "numpy", "pillow", "pyarrow"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
