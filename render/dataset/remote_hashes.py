"""Hashes of assets in object stores, without downloading them to learn the hash.

A table that `curate` made names them. Of the others a listing tells size and tag (ETag). Equal contents have
equal sizes, so only files that share a size, or a uid, are downloaded to compare them. The rest is hashed by
the worker that downloads it to render it. What was learnt is kept beside the dataset, under the size and tag
that it holds for: a file that was replaced has another tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.sources.asset import Candidate, Resolved
from orbit4d.datasets.sources.objaverse.workers import is_object
from orbit4d.datasets.store import sealed

NAME = ".hashes.parquet"
#: More folders than this are not listed: files that lie one by one are asked for one by one, when hashed.
MOST_FOLDERS = 2000
#: Stores whose listings tell size and tag; elsewhere files are read by the driver.
LISTED = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "tag", "sha256")] + [("size", pa.int64())])


class RemoteHashes:
    """What is known of the contents of URIs, before and after a run."""

    def __init__(self, store: Store | None = None, needed: Container[str] = ()) -> None:
        """`store` is the dataset that keeps what was learnt. The hashes of `needed` uids must be known before
        the run, since the dataset holds something about their contents."""
        self.store, self.needed = store, needed
        self._kept: dict[str, tuple[int, str, str]] = {}
        self._seen: dict[str, tuple[int, str]] = {}
        self._changed = False
        if store is not None and store.exists(NAME):
            table = sealed.load(store.read(NAME), store.path(NAME))
            columns = [table[name].to_pylist() for name in ("path", "size", "tag", "sha256")]
            self._kept = {path: (size, tag, sha) for path, size, tag, sha in zip(*columns)}

    def spared(self, candidates: Sequence[Candidate]) -> dict[int, tuple[str, int]]:
        """Position -> (sha256 or '', bytes) of the candidates that need not be downloaded now."""
        remote = [i for i, c in enumerate(candidates) if c.problem is None and is_uri(c.path)]
        for c in (candidates[i] for i in remote if is_object(candidates[i].path)):
            # Published once, under a name of its own, which tells no size before its download.
            self._seen[c.path] = c.bytes, "published"
        self._list({p.rpartition("/")[0] for p in (candidates[i].path for i in remote) if not is_object(p)})
        sizes = Counter(self._seen[p][0] for p in {candidates[i].path for i in remote} if p in self._seen)
        uids = Counter(candidate.uid for candidate in candidates)
        # A local file of the same size is read anyway; then this one must be, to be compared.
        local = any(not is_uri(candidate.path) for candidate in candidates)
        found: dict[int, tuple[str, int]] = {}
        for i in remote:
            candidate = candidates[i]
            size, tag = self._seen.get(candidate.path, (0, ""))
            if candidate.sha256:
                found[i] = candidate.sha256, size
                continue
            kept = self._kept.get(candidate.path)
            if kept is not None and tag and kept[:2] == (size, tag):
                found[i] = kept[2], size
                continue
            untold = not size and is_object(candidate.path)
            alone = (sizes[size] == 1 or untold) and uids[candidate.uid] == 1 and not local
            if tag and alone and candidate.uid not in self.needed:
                found[i] = "", size
        if any(candidates[i].sha256 and candidates[i].path not in self._seen for i in found):
            # A file of a table whose size is unknown may equal any other.
            found = {i: known for i, known in found.items() if known[0]}
        return found

    def learn(self, path: str, sha256: str) -> None:
        """Note the hash of a file, as it was listed when the run began."""
        size, tag = self._seen.get(path, (0, ""))
        if tag and sha256 and self._kept.get(path) != (size, tag, sha256):
            self._kept[path] = size, tag, sha256
            self._changed = True

    def learn_all(self, resolved: Resolved) -> None:
        """Note what `resolve` found out."""
        known = {asset.uid: asset.sha256 for asset in resolved.assets}
        for asset in resolved.assets:
            self.learn(asset.path, asset.sha256)
        for path, uid in resolved.duplicates:
            self.learn(path, known[uid])

    def save(self) -> None:
        """Keep what was learnt beside the dataset."""
        if self.store is None or not self._changed:
            return
        rows = [
            {"path": path, "size": size, "tag": tag, "sha256": sha}
            for path, (size, tag, sha) in sorted(self._kept.items())
        ]
        self.store.put(NAME, sealed.dump(pa.Table.from_pylist(rows, schema=_SCHEMA), rows_per_group=1 << 16))
        self._changed = False

    def _list(self, folders: set[str]) -> None:
        if len(folders) > MOST_FOLDERS:
            return
        with ThreadPoolExecutor(16) as pool:
            for found in pool.map(_listing, sorted(folders)):
                self._seen.update(found)


def _listing(folder: str) -> dict[str, tuple[int, str]]:
    """path -> (bytes, tag) of the files directly in a folder; {} where it cannot be listed."""
    if folder.partition("://")[0] not in LISTED:
        return {}
    store = Store(folder)
    try:
        fs, root = store.remote()
        infos: list[dict[str, Any]] = fs.ls(root, detail=True, refresh=True)
    except (InputError, FileNotFoundError, PermissionError):
        return {}
    except OrbitError:
        raise
    except Exception:
        return {}  # each file is then asked for itself, and tells what is wrong
    found = {}
    for info in infos:
        if info["type"] == "file":
            tag = next((info[k] for k in ("ETag", "md5Hash", "etag", "mtime", "created") if info.get(k)), "")
            found[f"{folder}/{info['name'].rsplit('/', 1)[-1]}"] = int(info["size"]), str(tag)
    return found
