"""Names of files and URIs: their parts, and their natural order (frame2 stands before frame10)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import DeniedInput, StorageRefused, storage_fault

_NUMBER = re.compile(r"([0-9]+)")
Name = TypeVar("Name", bound="str | os.PathLike[str]")


def natural_key(name: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Sort key of a name or path: digits compare as numbers, folder by folder.

    Names of equal numbers (`1.png`, `01.png`) keep text order, so the order is the same on every machine.
    """
    text = os.fspath(name)
    return tuple(_parts(part) for part in re.split(r"[/\\]", text)), text


def _parts(text: str) -> tuple[Any, ...]:
    # Text and numbers alternate, text first, so that only like is compared with like.
    return tuple(int(part) if i % 2 else part for i, part in enumerate(_NUMBER.split(text)))


def naturally(names: Iterable[Name]) -> list[Name]:
    """Names or paths in natural order."""
    return sorted(names, key=natural_key)


def number_of(name: str | os.PathLike[str]) -> int | None:
    """The last number in a file's name, without folder and suffix: 12 of `images/cam3_frame12.png`."""
    stem = os.path.splitext(os.path.basename(os.fspath(name)))[0]
    found = _NUMBER.findall(stem)
    return int(found[-1]) if found else None


def is_uri(path: str) -> bool:
    """Whether `path` is an fsspec URI such as s3://bucket/key."""
    return "://" in path


#: The file that makes a folder, or what lies below a URI, a dataset.
DATASET = "dataset.json"


def is_dataset(where: str | os.PathLike[str]) -> bool:
    """Whether a local folder or a URI is a rendered dataset. A URI's storage that fails raises its fault."""
    place = os.fspath(where)
    if not is_uri(place):
        return os.path.isfile(os.path.join(os.path.expanduser(place), DATASET))
    from orbit4d.datasets.core.storage import Store

    return Store(place).exists(DATASET)


def below(folder: str, path: str) -> str:
    """`path` as seen from `folder`, a path or URI."""
    return path if not folder or os.path.isabs(path) else f"{folder}/{path}"


def suffix_of(path: str) -> str:
    """Lower-case suffix of a path or URI, with its dot."""
    return os.path.splitext(path)[1].lower()


def stem_of(path: str) -> str:
    """File name of a path or URI without its suffix."""
    return os.path.splitext(path.replace("\\", "/").rpartition("/")[2])[0]


def localize(path: str, folder: str | os.PathLike[str]) -> str:
    """A local path for `path`: itself, or a copy in `folder` when it is a URI (single-file formats).

    Raises FileNotFoundError where there is no such file, StorageFault where it cannot be had now.
    """
    if not is_uri(path):
        return path
    import fsspec

    target = os.path.join(folder, hashlib.sha256(path.encode()).hexdigest()[:16] + suffix_of(path))
    if os.path.exists(target):
        return target
    try:
        with replacing_file(target) as draft, fsspec.open(path, "rb") as source, open(draft, "wb") as out:
            while block := source.read(1 << 20):
                out.write(block)
    except FileNotFoundError as error:
        if _tells_of_the_bucket(error) or place_is_gone(path):
            raise StorageRefused(f"cannot read {path}: no such place; check the address") from error
        if _is_there(path):
            # An outage that ended between both questions: the file is not to blame.
            raise StorageRefused(f"cannot read {path}: its place was gone for a time") from error
        raise
    except PermissionError as error:
        raise DeniedInput(f"cannot read {path}: {error}; check the credentials") from error
    except Exception as error:
        raise storage_fault(f"cannot read {path}", error) from error
    return target


def _tells_of_the_bucket(error: BaseException) -> bool:
    """Whether a client's "not found" speaks of the bucket itself: asked again, it may be back by then."""
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "response", None) or {}
        if code.get("Error", {}).get("Code") == "NoSuchBucket" or "bucket does not exist" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _is_there(uri: str) -> bool:
    """Whether a file that was just said to be missing is there after all, or may be."""
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(uri)
        fs.invalidate_cache()
        fs.info(path)
    except FileNotFoundError as error:
        return _tells_of_the_bucket(error)
    except Exception:
        return True
    return True


def place_is_gone(uri: str) -> bool:
    """Whether not the file alone is missing, but the bucket that it lay in."""
    from fsspec.core import url_to_fs

    if not uri.startswith(("s3://", "s3a://", "gs://", "gcs://")):
        return False
    try:
        fs, path = url_to_fs(uri)
        fs.invalidate_cache()
        fs.info(path.strip("/").partition("/")[0])
    except FileNotFoundError:
        return True
    except Exception:
        return False
    return False
