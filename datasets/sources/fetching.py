"""In a worker: from an asset's path or URI to a local file whose contents are the promised ones."""

from __future__ import annotations

from collections.abc import Callable

from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile, Inspection
from orbit4d.datasets.core.paths import is_uri, localize
from orbit4d.datasets.sources.objaverse.workers import NotFetched, fetch_object, is_object
from orbit4d.datasets.sources.promises import first_seen_sha256
from orbit4d.datasets.sources.resolve import hash_asset

__all__ = ["NotFetched", "fetch_asset"]


def fetch_asset(
    path: str, sha256: str, scratch: str, learn: Callable[[str], object] = lambda sha256: None
) -> tuple[str, Inspection]:
    """(local path, what inspecting the file shows) of an asset; `scratch` holds what was downloaded.

    `learn` is given the hash of what was downloaded, also where it is then refused.

    `sha256` is what the driver has read or was promised, '' where nobody knows it yet: the inspection has it
    then. Raises BadFile, also for other contents than the promised ones, and NotFetched for a download that
    fails. What an object store raises is let through.
    """
    if not is_uri(path):
        # Read on a disk that this worker shares with the driver, which has hashed the files beside it too.
        return path, inspect(path, sha256 or hash_asset(path)[0])
    if not is_object(path):
        try:
            local = localize(path, scratch)
        except FileNotFoundError:
            raise BadFile("missing", "no such object") from None
        return local, _look(local, sha256, learn)
    local = fetch_object(path)
    try:
        return local, _look(local, sha256 or first_seen_sha256(local), learn)
    except BadFile:
        # A cache may hold an older or a damaged file: what is downloaded now counts.
        local = fetch_object(path, again=True)
        return local, _look(local, sha256, learn)


def _look(local: str, promised: str, learn: Callable[[str], object]) -> Inspection:
    found, _ = hash_asset(local)
    learn(found)
    if promised and found != promised:
        raise BadFile("changed", f"sha256 {found[:12]} instead of the promised {promised[:12]}")
    return inspect(local, found)
