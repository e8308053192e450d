"""Assets, and what a source comes to on the way to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orbit4d.datasets.assets.inspect import Inspection

_MAX_UID = 120


@dataclass(frozen=True)
class Asset:
    """One asset file, known by its contents."""

    uid: str
    path: str
    """Local path or fsspec URI."""
    sha256: str
    """Of the file; for a .gltf, of the file and the files it names inside its folder, in order. '' where only
    the worker that downloads it will know."""
    format: str
    """One of FORMATS' values."""
    bytes: int
    """0 where it is not known before the download."""
    license: str = ""
    author: str = ""
    source_url: str = ""
    caption: str = ""
    actions: tuple[int, ...] | None = None
    """Indices of the accepted actions; None means all of them."""
    split: str = ""
    """train, validation or test; '' leaves it to a hash of the uid."""
    version: str = ""
    """What object storage calls this version of the file (an ETag), '' where it has no name for it."""

    def described_by(self, inspection: Inspection) -> Asset:
        """Fill an empty license, author and source_url from what the file itself says."""
        return replace(
            self,
            license=self.license or inspection.license,
            author=self.author or inspection.author,
            source_url=self.source_url or inspection.source_url,
        )


@dataclass
class Resolved:
    """What an input came to."""

    assets: list[Asset] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """(path, uid of the asset with the same contents)."""
    rejected: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(uid, path, reason code, detail)."""
    notes: list[str] = field(default_factory=list)
    """Lines worth showing to the user: missing captions, being offline."""

    @property
    def n_inputs(self) -> int:
        return len(self.assets) + len(self.duplicates) + len(self.rejected)


@dataclass(frozen=True)
class Candidate:
    """A named input whose contents were not read yet."""

    uid: str
    path: str
    sha256: str = ""
    """Expected hash, where somebody promised one."""
    license: str = ""
    author: str = ""
    source_url: str = ""
    caption: str = ""
    actions: tuple[int, ...] | None = None
    problem: tuple[str, str] | None = None
    """(reason code, detail) when there is nothing to read."""
    promise: str = ""
    """Where `sha256` comes from, for the message when the file has another."""
    split: str = ""
    """As in Asset."""
    bytes: int = 0
    """Size that a listing or table tells, 0 where none does."""
    version: str = ""
    """As `Asset.version`, where a listing tells it."""


@dataclass
class Expanded:
    """What one source expands to."""

    candidates: list[Candidate]
    notes: list[str] = field(default_factory=list)


def version_of(info: Mapping[str, Any]) -> str:
    """The name of a file's version in an fsspec listing, '' where the file system has none."""
    for name in ("ETag", "etag", "md5Hash", "generation"):
        if info.get(name):
            return str(info[name]).strip('"')
    return ""


def clean_uid(text: str) -> str:
    """A uid from a file stem: only [A-Za-z0-9_-], never empty, at most 120 characters."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:_MAX_UID] or "_"
