"""Objaverse objects that workers download: what stands for them on the way, and the download itself.

On a cluster the driver's cache is no use to the workers. An object travels as `objaverse://glbs/000-023/<uid>.glb`
or `objaverse-xl://<source>/<identifier>/<sha256>.<suffix>`, and each node keeps a cache of its own, which
its workers share.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from orbit4d.datasets.core.errors import StorageFailed
from orbit4d.datasets.sources.objaverse.cache import download, place_of
from orbit4d.datasets.sources.promises import CACHE

OBJECT, XL = "objaverse://", "objaverse-xl://"
#: Seconds before each further try of a download; a random part of up to as much again is added, so that
#: workers that failed together do not come back together.
WAITS = (1.0, 5.0, 20.0)
#: What no further try fixes.
_GONE = "its publisher has it no more"
_FINAL = ("HTTP 400", "HTTP 401", "HTTP 403", "HTTP 404", "HTTP 410", _GONE)
#: Where the objects of Objaverse-XL come from.
XL_SOURCES = ("github", "sketchfab", "smithsonian", "thingiverse")


class NotFetched(Exception):
    """An object cannot be had now; another run may."""

    code = "download_failed"

    def __init__(self, detail: str) -> None:
        self.detail = " ".join(detail.split())[:300]
        super().__init__(f"{self.code} ({self.detail})")


def is_object(path: str) -> bool:
    """Whether a path stands for an Objaverse object that workers download."""
    return path.startswith((OBJECT, XL))


def object_uri(object_path: str) -> str:
    """What stands for an object of Objaverse 1.0: its published path under objaverse://."""
    return OBJECT + object_path


def portable(path: str) -> str:
    """A path into the cache of some machine as objaverse://, any other path as it is."""
    _, mark, below = path.replace("\\", "/").rpartition(f"/{CACHE}/")
    return object_uri(below) if mark and below.startswith("glbs/") and below.count("/") == 2 else path


def xl_uri(source: str, identifier: str, sha256: str, suffix: str) -> str:
    """What stands for an object of Objaverse-XL; `suffix` without its dot."""
    return f"{XL}{source}/{quote(identifier, safe='')}/{sha256}.{suffix}"


def fetch_object(path: str, again: bool = False) -> str:
    """Local path of an object, from this machine's cache or downloaded into it, by one process at a time.

    `again` drops a cached file first. Raises NotFetched.
    """
    if path.startswith(XL):
        return _fetch_xl(path.removeprefix(XL))
    name = path.removeprefix(OBJECT)
    target = place_of(name)
    if again:
        for stale in (target, f"{target}.sha256"):
            with contextlib.suppress(OSError):
                os.unlink(stale)
    if not os.path.exists(target):
        with _only_here(target):
            if not os.path.exists(target):
                _persist(lambda: download(name, target), name)
    return target


def _persist(once: Callable[[], str | None], name: str) -> None:
    """Call `once` until it returns no failure. Raises NotFetched with the last one."""
    for wait in (*WAITS, None):
        failure = once()
        if failure is None:
            return
        if os.strerror(errno.ENOSPC) in failure:
            raise StorageFailed(f"cannot download {name}: the disk of the cache is full; free space there")
        if wait is None or failure in _FINAL:
            raise NotFetched(f"{name}: {failure}")
        time.sleep(wait * (1.0 + random.random()))


@contextlib.contextmanager
def _only_here(target: str) -> Iterator[None]:
    """Lock out the other processes of this machine that want the same file."""
    lock = Path(f"{target}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotFetched(f"{lock.parent}: {error.strerror or error}; the cache cannot be written") from error
    try:
        # A network disk may know no locks; the length and the checksum are checked all the same.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def stored_xl(source: str, identifier: str) -> str | None:
    """Local path of a file of a GitHub repository that was cloned before, None for all else.

    The package clones a repository once, and names its files in that run alone.
    """
    import objaverse

    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)/blob/[^/]+/(.+)", identifier)
    if source != "github" or found is None or ".." in found[3].split("/"):
        return None
    path = os.path.join(objaverse.BASE_PATH, "github", "repos", *found.groups())
    return path if os.path.isfile(path) else None


def download_xl(frame: Any, processes: int) -> dict[str, str]:
    """fileIdentifier -> local path of what the `objaverse` package could download of a table's rows.

    It raises whatever its downloaders raise.
    """
    import objaverse
    import objaverse.xl

    return objaverse.xl.download_objects(
        frame, download_dir=objaverse.BASE_PATH, processes=processes, save_repo_format="files"
    )


def _fetch_xl(body: str) -> str:
    """Local path of an object of Objaverse-XL, through the `objaverse` package."""
    import objaverse
    import pandas as pd

    source, quoted, name = body.split("/")
    identifier = unquote(quoted)
    sha256, _, suffix = name.rpartition(".")
    row = {"source": source, "fileIdentifier": identifier, "sha256": sha256, "fileType": suffix}
    found: list[str] = []

    def once() -> str | None:
        local = stored_xl(source, identifier)
        try:
            local = local or download_xl(pd.DataFrame([row]), 1).get(identifier)
        except Exception as error:
            # The downloaders raise anything from OSError to subprocess errors when the network is away.
            return f"{type(error).__name__}: {error}"
        if not local or not os.path.exists(local):
            return _GONE
        found.append(local)
        return None

    # One repository holds many objects and is cloned as a whole: one process of a machine at a time.
    shared = "/".join(identifier.split("/")[:5]) if source == "github" else identifier
    with _only_here(os.path.join(objaverse.BASE_PATH, source, quote(shared, safe="")[-100:])):
        _persist(once, identifier)
    return found[0]
