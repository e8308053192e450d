"""From what the user names to a list of assets: files, folders, globs, lists, tables, `objaverse:`, `demo:`.

The uid of an Objaverse asset is the one it was published under. The uid of a file is its stem with anything
outside [A-Za-z0-9_-] replaced by `_`; different contents that would share a uid within one input each get
`-<8 hex of sha256>`; the same contents twice are one asset and one duplicate. So
`len(assets) + len(duplicates) + len(rejected)` is the number of inputs, always.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.sources.lists import read_list

if TYPE_CHECKING:
    from orbit4d.datasets.assets.inspect import Inspection

#: File name suffix -> format name; what the render side can load.
FORMATS = {
    f".{name}": name
    for name in [
        "glb",
        "gltf",
        "fbx",
        "obj",
        "usd",
        "usda",
        "usdc",
        "usdz",
        "abc",
        "blend",
        "ply",
        "stl",
        "dae",
    ]
}
_MAX_UID = 120


@dataclass(frozen=True)
class Asset:
    """One asset file, known by its contents."""

    uid: str
    path: str
    """Local path or fsspec URI."""
    sha256: str
    """Of the file; for a .gltf, of the file and the files it names inside its folder, in order."""
    format: str
    """One of FORMATS' values."""
    bytes: int
    license: str = ""
    author: str = ""
    source_url: str = ""
    caption: str = ""
    actions: tuple[int, ...] | None = None
    """Indices of the accepted actions; None means all of them."""

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


@dataclass
class Expanded:
    """What one source expands to."""

    candidates: list[Candidate]
    notes: list[str] = field(default_factory=list)


#: `name:` -> function from the whole source text to Expanded. The app adds `demo`.
_SCHEMES: dict[str, Callable[[str], Expanded]] = {}


def register_scheme(name: str, expand: Callable[[str], Expanded]) -> None:
    """Serve sources that start with `name:` by `expand(source)`; a later registration wins."""
    _SCHEMES[name] = expand


def clean_uid(text: str) -> str:
    """A uid from a file stem: only [A-Za-z0-9_-], never empty, at most 120 characters."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:_MAX_UID] or "_"


def is_uri(path: str) -> bool:
    """Whether `path` is an fsspec URI such as s3://bucket/key."""
    return "://" in path


def resolve(sources: Sequence[str], captions: str | None = None) -> Resolved:
    """Expand `sources`, read and hash every file once, and settle uids and duplicates.

    `captions` is a CSV of uid,caption (a header is optional; with one, license, author and source_url columns
    are used too), joined by uid or sha256. Raises InputError on a missing path, an empty folder, a folder or
    glob without a supported file, an unknown scheme.
    """
    if not sources:
        raise InputError(
            "no source given; name a file, a folder, a glob, an id list, a table or objaverse:animated"
        )
    result = Resolved()
    candidates: list[Candidate] = []
    for source in sources:
        expanded = expand(str(source))
        candidates += expanded.candidates
        result.notes += expanded.notes
    # Hashing releases the interpreter lock and waits for disks and object stores, so threads help.
    with ThreadPoolExecutor(min(8, max(1, len(candidates)))) as pool:
        read = list(pool.map(_read, candidates))

    by_hash: dict[str, int] = {}
    kept: list[tuple[Candidate, str, int]] = []
    duplicates: list[tuple[str, int]] = []
    for candidate, (sha256, size, problem) in zip(candidates, read):
        if problem is not None:
            result.rejected.append((candidate.uid, candidate.path, *problem))
        elif sha256 in by_hash:
            duplicates.append((candidate.path, by_hash[sha256]))
        else:
            by_hash[sha256] = len(kept)
            kept.append((candidate, sha256, size))

    holders: dict[str, int] = {}
    for candidate, _, _ in kept:
        holders[candidate.uid] = holders.get(candidate.uid, 0) + 1
    for candidate, sha256, size in kept:
        uid = candidate.uid if holders[candidate.uid] == 1 else f"{candidate.uid}-{sha256[:8]}"
        result.assets.append(
            Asset(
                uid,
                candidate.path,
                sha256,
                FORMATS[suffix_of(candidate.path)],
                size,
                candidate.license,
                candidate.author,
                candidate.source_url,
                candidate.caption,
                candidate.actions,
            )
        )
    result.duplicates = [(path, result.assets[position].uid) for path, position in duplicates]
    if captions is not None:
        from orbit4d.datasets.sources.captions import join_captions

        join_captions(result, captions, {asset.uid: kept[i][0].uid for i, asset in enumerate(result.assets)})
    return result


def expand(source: str) -> Expanded:
    """One source to its candidates, without reading asset files. Raises InputError."""
    scheme, colon, _ = source.partition(":")
    if (
        colon
        and not is_uri(source)
        and re.fullmatch(r"[a-z][a-z0-9-]+", scheme)
        and not os.path.exists(source)
    ):
        if scheme in ("objaverse", "objaverse-xl"):
            from orbit4d.datasets.sources.objaverse import expand_objaverse, expand_objaverse_xl

            return (expand_objaverse if scheme == "objaverse" else expand_objaverse_xl)(source)
        if scheme in _SCHEMES:
            return _SCHEMES[scheme](source)
        hint = "use the `orbit4d` command for it" if scheme == "demo" else "known: objaverse:, demo:"
        raise InputError(f"{source}: unknown kind of source `{scheme}:`; {hint}")
    if is_uri(source):
        return _expand_uri(source)
    path = Path(source)
    if path.is_dir():
        if (path / "dataset.json").is_file():
            raise InputError(
                f"{source}: is a rendered dataset, not assets; `orbit4d curate` measures its images"
            )
        files = _walk(path)
        if not files:
            empty = next(path.iterdir(), None) is None
            what = "the folder is empty" if empty else "no supported file in the folder"
            raise InputError(f"{source}: {what}; supported: {' '.join(sorted(FORMATS))}")
        return Expanded([_candidate(str(file)) for file in files])
    if path.is_file():
        return _expand_file(source)
    if glob.has_magic(source):
        found = [
            f
            for f in naturally(glob.glob(source, recursive=True))
            if suffix_of(f) in FORMATS and os.path.isfile(f)
        ]
        if not found:
            raise InputError(
                f"{source}: the pattern matches no supported file; quote it, or check the folder"
            )
        return Expanded([_candidate(file) for file in found])
    raise InputError(f"{source}: no such file or folder; check the path")


def _expand_file(source: str) -> Expanded:
    suffix = suffix_of(source)
    if suffix in FORMATS:
        return Expanded([_candidate(source)])
    if suffix == ".txt":
        return _expand_list(source)
    if suffix in (".parquet", ".csv"):
        from orbit4d.datasets.sources.tables import expand_table

        return expand_table(source)
    raise InputError(
        f"{source}: not a supported asset, list (.txt) or table (.parquet, .csv); supported assets: "
        f"{' '.join(sorted(FORMATS))}"
    )


def _expand_uri(source: str) -> Expanded:
    import fsspec

    suffix = suffix_of(source)
    if suffix in (".parquet", ".csv"):
        from orbit4d.datasets.sources.tables import expand_table

        return expand_table(source)
    if suffix == ".txt" and not glob.has_magic(source):
        return _expand_list(source)
    try:
        fs, root = fsspec.core.url_to_fs(source)
        if glob.has_magic(source):
            found = fs.glob(root)
        elif suffix in FORMATS:
            found = [root] if fs.isfile(root) else []
        else:
            found = fs.find(root)
    except Exception as error:
        # Object stores raise classes of their own (no credentials, no such bucket).
        raise InputError(
            f"{source}: cannot be listed ({error}); check the URI, its credentials and extras"
        ) from error
    found = [fs.unstrip_protocol(f) for f in naturally(found) if suffix_of(f) in FORMATS]
    if not found:
        raise InputError(f"{source}: no supported file there; supported: {' '.join(sorted(FORMATS))}")
    return Expanded([_candidate(file) for file in found])


def _expand_list(source: str) -> Expanded:
    """A text file: an Objaverse uid or a path to an asset (relative to the list) a line; `#` comments."""
    entries = read_list(source, "a UTF-8 text file with one id or path a line")
    folder = source.rpartition("/")[0] if is_uri(source) else os.path.dirname(source)
    files = {e: e if is_uri(e) else below(folder, e) for e in entries if suffix_of(e) in FORMATS}
    ids = [entry for entry in entries if entry not in files]
    strange = [entry for entry in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", entry)]
    if strange:
        raise InputError(f"{source}: `{strange[0][:60]}` is neither an id nor a supported asset file")
    notes: list[str] = []
    by_id: dict[str, Candidate] = {}
    if ids:
        from orbit4d.datasets.sources.objaverse import fetch

        expanded = fetch(list(dict.fromkeys(ids)))
        by_id = {candidate.uid: candidate for candidate in expanded.candidates}
        notes = expanded.notes
    return Expanded([_candidate(files[e]) if e in files else by_id[clean_uid(e)] for e in entries], notes)


def below(folder: str, path: str) -> str:
    """`path` as seen from `folder`, a path or URI."""
    return path if not folder or os.path.isabs(path) else f"{folder}/{path}"


def _walk(folder: Path) -> list[Path]:
    """Supported files below `folder` in natural order; hidden entries and symlinked folders are left out."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, f) for f in files if not f.startswith(".") and suffix_of(f) in FORMATS]
    return naturally(found)


def suffix_of(path: str) -> str:
    """Lower-case suffix of a path or URI, with its dot."""
    return os.path.splitext(path)[1].lower()


def stem_of(path: str) -> str:
    """File name of a path or URI without its suffix."""
    return os.path.splitext(path.replace("\\", "/").rpartition("/")[2])[0]


def _candidate(path: str) -> Candidate:
    return Candidate(clean_uid(stem_of(path)), path)


def _read(candidate: Candidate) -> tuple[str, int, tuple[str, str] | None]:
    """(sha256, bytes, problem) of one candidate."""
    if candidate.problem is not None:
        return "", 0, candidate.problem
    try:
        sha256, size = hash_asset(candidate.path)
    except FileNotFoundError:
        return "", 0, ("bad_file:missing", "the file is not there any more")
    except OSError as error:
        return "", 0, ("bad_file:unreadable", error.strerror or str(error))
    # A table or a publisher that promised other contents describes another asset than the one on disk.
    if candidate.sha256 and candidate.sha256 != sha256:
        detail = f"sha256 {sha256[:12]} instead of the promised {candidate.sha256[:12]}"
        promise = f" ({candidate.promise})" if candidate.promise else ""
        return "", 0, ("bad_file:changed", detail + promise)
    return sha256, size, None


def hash_asset(path: str) -> tuple[str, int]:
    """(sha256, bytes) of an asset file; a .gltf counts with the files it names inside its own folder."""
    if is_uri(path):
        import fsspec

        digest, size = hashlib.sha256(), 0
        with fsspec.open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size
    with open(path, "rb") as file:
        own = hashlib.file_digest(file, "sha256")
    size = os.path.getsize(path)
    if suffix_of(path) != ".gltf":
        return own.hexdigest(), size
    from orbit4d.datasets.assets.inspect import companion_files

    companions = companion_files(path)
    if not companions:
        return own.hexdigest(), size
    for companion in companions:
        with open(companion, "rb") as file:
            own.update(hashlib.file_digest(file, "sha256").digest())
        size += os.path.getsize(companion)
    return own.hexdigest(), size


def localize(path: str, folder: str | os.PathLike[str]) -> str:
    """A local path for `path`: itself, or a copy in `folder` when it is a URI (single-file formats)."""
    if not is_uri(path):
        return path
    import fsspec

    target = os.path.join(folder, hashlib.sha256(path.encode()).hexdigest()[:16] + suffix_of(path))
    if not os.path.exists(target):
        part = f"{target}.{os.getpid()}.part"
        with fsspec.open(path, "rb") as source, open(part, "wb") as out:
            while block := source.read(1 << 20):
                out.write(block)
        os.replace(part, target)
    return target


def parse_limit(source: str, query: str) -> int | None:
    """The `limit` of a source's query part, or None. Raises InputError on anything else."""
    values = parse_qs(query, keep_blank_values=True)
    unknown = set(values) - {"limit"}
    if unknown or (query and not values):
        raise InputError(f"{source}: unknown setting {sorted(unknown) or query!r}; only ?limit=N is known")
    if "limit" not in values:
        return None
    text = values["limit"][-1]
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{source}: limit must be a whole number above 0, got {text!r}")
    return int(text)
