"""The cache of Objaverse 1.0 on one machine: lists, annotations, checksums and objects, downloaded once.

The `objaverse` package owns the place (~/.objaverse) and the published names. A download goes to a temporary
name, is checked against the announced length, and is then renamed, so an interrupted one resumes.
HF_ENDPOINT names a mirror, as for Hugging Face's own tools.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError

_DATASET = "datasets/allenai/objaverse"
DOWNLOADS_AT_ONCE = 8


def endpoint() -> str:
    """Address of the Hugging Face hub, or of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def place_of(name: str) -> str:
    """Local path of a published file, such as glbs/000-023/<uid>.glb."""
    import objaverse

    return os.path.join(objaverse._VERSIONED_PATH, name)


def offline(what: str, error: Exception) -> InputError:
    """The error for what is neither cached nor to be had."""
    import objaverse

    return InputError(
        f"objaverse: {what} is not in the cache {objaverse.BASE_PATH} and cannot be downloaded ({error}); "
        "go online once, or name local files"
    )


def cached_json(name: str, what: str, kind: type) -> dict[str, Any]:
    """A gzipped JSON object of the cache, downloaded where it is not there, all of its values of `kind`.

    Damage raises WorkError.
    """
    path = place_of(name)
    if not os.path.exists(path) and (failure := download(name, path)):
        raise offline(what, OSError(failure))
    with reading(path, fix="delete it and go online once: it is downloaded again"):
        with gzip.open(path, "rb") as file:
            content = json.load(file)
        if not isinstance(content, dict) or not all(isinstance(value, kind) for value in content.values()):
            raise ValueError(f"not an object of {kind.__name__}")
    return content


def object_paths() -> dict[str, str]:
    """uid -> path of every object, such as glbs/000-023/<uid>.glb."""
    paths = cached_json("object-paths.json.gz", "the list of objects", str)
    return {uid: path for uid, path in paths.items() if path.count("/") == 2}


def annotations_of(uids: Sequence[str], paths: dict[str, str]) -> dict[str, dict]:
    """uid -> annotation of those that have one, one file a folder of objects."""
    found: dict[str, dict] = {}
    for folder in sorted({paths[uid].split("/")[1] for uid in uids}):
        content = cached_json(f"metadata/{folder}.json.gz", "the annotation file", dict)
        found |= {uid: content[uid] for uid in uids if uid in content}
    return found


def checksums(folders: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Object path -> (SHA-256, bytes) of the objects in some folders, as the hub lists its large files.

    The listing of a folder (glbs/000-023) is kept in the cache. A folder that cannot be listed gives nothing.
    """
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        listed = pool.map(_checksums_of_folder, sorted(set(folders)))
        return {path: entry for found in listed for path, entry in found.items()}


def _checksums_of_folder(folder: str) -> dict[str, tuple[str, int]]:
    kept = place_of(f"checksums/{folder.rpartition('/')[2]}.json.gz")
    try:
        with gzip.open(kept, "rb") as file:
            return {path: (str(sha256), int(size)) for path, (sha256, size) in json.load(file).items()}
    except (OSError, EOFError, ValueError, TypeError, AttributeError):
        pass  # none yet, or a damaged one: it is made again
    found: dict[str, tuple[str, int]] = {}
    try:
        address: str | None = f"{endpoint()}/api/{_DATASET}/tree/main/{folder}?limit=1000"
        while address:
            with urllib.request.urlopen(urllib.request.Request(address), timeout=60) as reply:
                for entry in json.load(reply):
                    sha256 = (entry.get("lfs") or {}).get("oid", "")
                    if re.fullmatch("[0-9a-f]{64}", sha256):
                        found[entry["path"]] = (sha256, int(entry["size"]))
                following = re.search(r'<([^>]+)>;\s*rel="next"', reply.headers.get("Link") or "")
                address = following[1] if following else None
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        write_bytes(kept, gzip.compress(json.dumps(found).encode()))
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError, AttributeError):
        return found  # without a network, or in a cache that cannot be written
    return found


def download(object_path: str, target: str) -> str | None:
    """Fetch one published file; None, or why not."""
    part = target + ".part"
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        have = os.path.getsize(part) if os.path.exists(part) else 0
        request = urllib.request.Request(f"{endpoint()}/{_DATASET}/resolve/main/{object_path}")
        if have:
            request.add_header("Range", f"bytes={have}-")
        with urllib.request.urlopen(request, timeout=60) as reply:
            resumed = have > 0 and reply.status == 206
            announced = reply.headers.get("Content-Length")
            expected = None if announced is None else int(announced) + (have if resumed else 0)
            with open(part, "ab" if resumed else "wb") as out:
                while block := reply.read(1 << 20):
                    out.write(block)
        if expected is not None and os.path.getsize(part) != expected:
            return f"{os.path.getsize(part)} of {expected} bytes arrived"
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The part is longer than the object: it belongs to another version of it.
            os.unlink(part)
        return f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return None
