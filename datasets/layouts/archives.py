"""Files of a published archive, asset by asset: from a folder, or straight out of a tar or tar.gz.

Nothing is unpacked to disk. A tar is read twice: once for its names, so that it is known when an asset is
complete, and once for the content, of which only unfinished assets are held.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally

#: (asset, folder, file) of a path's parts, or None for a file that the layout does not know.
Locate = Callable[[Sequence[str]], tuple[str, str, str] | None]
#: folder -> file -> content.
Files = dict[str, dict[str, bytes]]

_ARCHIVES = (".tar", ".tar.gz", ".tgz")


def assets(sources: Sequence[str], locate: Locate) -> Iterator[tuple[str, Files]]:
    """(asset, its files) of all sources, each asset once. A source without a known file raises InputError."""
    expected: Counter[str] = Counter()
    for source in sources:
        found = Counter(place[0] for path in _names(source) if (place := locate(path.split("/"))))
        if not found:
            raise InputError(f"{source}: holds no file of this layout; check the path and --from")
        expected += found
    waiting: dict[str, Files] = {}
    left = expected.copy()
    for source in sources:
        for path, read in _contents(source):
            place = locate(path.split("/"))
            if place is None:
                continue
            asset, folder, file = place
            waiting.setdefault(asset, {}).setdefault(folder, {})[file] = read()
            left[asset] -= 1
            if left[asset] == 0:
                yield asset, waiting.pop(asset)


def count(sources: Sequence[str], locate: Locate) -> int:
    """Number of assets."""
    return len({place[0] for s in sources for path in _names(s) if (place := locate(path.split("/")))})


def _is_archive(source: str) -> bool:
    return source.endswith(_ARCHIVES)


def _names(source: str) -> Iterator[str]:
    if _is_archive(source):
        with _Tar(source) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name
    else:
        yield from (name for name, _ in _walk(source))


def _contents(source: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if not _is_archive(source):
        yield from _walk(source)
        return
    with _Tar(source) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, partial(tar.read, member)


class _Tar:
    """A tar read as a stream, local or remote, whose damage is one clear line."""

    def __init__(self, source: str) -> None:
        import fsspec

        self.source = source
        try:
            self.file = fsspec.open(source, "rb").open()
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"{source}: cannot be opened ({error}); check the path") from error

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        with self._reading():
            buffered = io.BufferedReader(self.file, 1 << 20)
            if buffered.peek(2)[:2] == b"\x1f\x8b":
                # tarfile's own way through gzip leaves its checksum out.
                stream: Any = gzip.GzipFile(fileobj=buffered)
            else:
                stream = buffered
            with tarfile.open(fileobj=stream, mode="r|*") as self.tar:
                yield from self.tar
            # Behind the tar's end stands the checksum.
            while stream.read(1 << 20):
                continue

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The contents of a member, before the next one is asked for."""
        with self._reading():
            file = self.tar.extractfile(member)
            assert file is not None
            return file.read()

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self.source, "truncated or not a tar", "fetch it again")


def _walk(source: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files under a folder in natural order, named with the folder's own name in front."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(source)
    if not fs.isdir(root):
        raise InputError(f"{source}: no such folder (or tar, tar.gz); check the path")
    base = root.rstrip("/")
    outer = base.rsplit("/", 1)[0] + "/"
    for path in naturally(fs.find(base)):
        yield path.removeprefix(outer), partial(fs.cat_file, path)
