"""A folder on a local disk or under an fsspec URI (s3://, gs://, memory://): atomic puts, ranged reads,
listings.
"""

from __future__ import annotations

import builtins
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from orbit4d.datasets.core.atomic import TEMPORARY, create_file, replacing_file
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, OrbitError, StorageRefused, WorkError, storage_fault
from orbit4d.datasets.core.scratch import scratch_folder

#: Reads of a URI store that are on their way at a time.
CONCURRENT_READS = 32
#: Files that one request deletes, in stores that have such a request.
BATCH = 1000
_BATCHES = frozenset({"s3", "s3a", "gs", "gcs"})


class Store:
    """Files under one root. Names are relative and use `/`.

    A missing file raises FileNotFoundError; anything else that goes wrong raises a StorageFault that names
    the file: an InputError (no permission, no such bucket, no credentials) or a WorkError (disk full,
    connection lost).
    Picklable and safe to use after a fork: file systems are opened per process.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = os.fspath(uri).rstrip("/") or "/"
        if "://" not in self.uri or self.uri.startswith("file://"):
            self.uri = os.path.abspath(os.path.expanduser(self.uri.removeprefix("file://")))
            self.local: Path | None = Path(self.uri)
        else:
            self.local = None
        self._fs: tuple[int, fsspec.AbstractFileSystem, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "local": self.local, "_fs": None}

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def path(self, name: str) -> str:
        """Full path or URI of a file, for messages."""
        return f"{self.uri}/{name}"

    def remote(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """(file system, root) of a URI store.

        Opened once per process, since connections do not survive a fork.
        """
        if self._fs is None or self._fs[0] != os.getpid():
            try:
                fs, root = url_to_fs(self.uri, **_options(self.uri))
            except (ImportError, ValueError) as error:
                raise InputError(f"{self.uri}: {error}") from error
            self._fs = (os.getpid(), fs, root.rstrip("/"))
        return self._fs[1], self._fs[2]

    # Reading ----------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """The whole file."""
        with self._faults("read", name):
            if self.local is not None:
                return (self.local / name).read_bytes()
            fs, root = self.remote()
            return fs.cat_file(f"{root}/{name}")

    def read_small(self, name: str) -> bytes:
        """`read` in one request; S3's client first asks for the size, to read large files in pieces."""
        if self.local is not None or not self.uri.startswith(("s3://", "s3a://")):
            return self.read(name)
        with self._faults("read", name):
            fs, root = self.remote()
            return fs.cat_file(f"{root}/{name}", max_concurrency=1)

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, in one read; a shorter file raises WorkError."""
        with self._faults("read", name):
            if self.local is not None:
                handle = os.open(self.local / name, os.O_RDONLY)
                try:
                    data = os.pread(handle, length, start)
                finally:
                    os.close(handle)
            else:
                fs, root = self.remote()
                data = fs.cat_file(f"{root}/{name}", start=start, end=start + length)
        if len(data) != length:
            raise WorkError(
                f"{self.path(name)}: {len(data)} of {length} bytes at offset {start}; the file is truncated, "
                "run `orbit4d verify`"
            )
        return data

    def read_many(self, names: Sequence[str], missing: bool = False) -> Iterator[Any]:
        """Whole files in the order of `names`; of a URI several at a time, since each waits for the store.

        With `missing` None stands for a file that is not there.
        """

        def read(name: str) -> bytes | None:
            try:
                return self.read_small(name)
            except FileNotFoundError:
                if missing:
                    return None
                raise

        if self.local is not None or len(names) < 2:
            yield from map(read, names)
            return
        ahead: deque[Future[bytes | None]] = deque()
        with ThreadPoolExecutor(min(CONCURRENT_READS, len(names))) as pool:
            try:
                for name in names:
                    ahead.append(pool.submit(read, name))
                    if len(ahead) >= CONCURRENT_READS:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def chunks(self, name: str, size: int = 1 << 22) -> Iterator[bytes]:
        """The file in pieces, for hashing without holding it."""
        with self._faults("read", name):
            if self.local is not None:
                with open(self.local / name, "rb") as file:
                    while piece := file.read(size):
                        yield piece
            else:
                fs, root = self.remote()
                with fs.open(f"{root}/{name}", "rb", block_size=size) as file:
                    while piece := file.read(size):
                        yield piece

    def open(self, name: str) -> Any:
        """A seekable binary file (or a local path, which Parquet reads best)."""
        if self.local is not None:
            return str(self.local / name)
        with self._faults("open", name):
            fs, root = self.remote()
            return fs.open(f"{root}/{name}", "rb")

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        with self._faults("look for", name):
            if self.local is not None:
                return (self.local / name).is_file()
            fs, root = self.remote()
            fs.invalidate_cache()
            try:
                # Not `isfile`, which takes any failure for a file that is not there.
                return bool(fs.info(f"{root}/{name}")["type"] == "file")
            except FileNotFoundError:
                return False

    def list(self, folder: str, suffix: str = "", temporary: bool = False) -> dict[str, int]:
        """`{name: bytes}` of the files directly in `folder`, sorted; {} where there is no such folder.

        Unfinished puts are left out; `temporary=True` lists only those.
        """
        found: dict[str, int] = {}
        with self._faults("list", folder):
            if self.local is not None:
                try:
                    with os.scandir(self.local / folder) as entries:
                        found = {e.name: e.stat().st_size for e in entries if e.is_file()}
                except FileNotFoundError:
                    return {}
            else:
                fs, root = self.remote()
                fs.invalidate_cache()
                try:
                    infos = fs.ls(f"{root}/{folder}".rstrip("/"), detail=True)
                except FileNotFoundError:
                    return {}
                found = {i["name"].rsplit("/", 1)[-1]: i["size"] for i in infos if i["type"] == "file"}
        prefix = f"{folder}/" if folder else ""
        return {
            prefix + name: found[name]
            for name in sorted(found)
            if name and name.endswith(suffix) and name.startswith(TEMPORARY) == temporary
        }

    def entries(self) -> builtins.list[str]:
        """Names of files and folders directly under the root, without hidden ones.

        [] where there is no root.
        """
        with self._faults("list", ""):
            try:
                if self.local is not None:
                    names = os.listdir(self.local)
                else:
                    fs, root = self.remote()
                    names = [name.rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(root, detail=False)]
            except FileNotFoundError:
                return []
        return sorted(name for name in names if name and not name.startswith("."))

    def tree(self) -> dict[str, int]:
        """`{name: bytes}` of all files below the root, sorted; {} where there is no such folder."""
        with self._faults("list", ""):
            if self.local is not None:
                files = (Path(top, file) for top, _, names in os.walk(self.local) for file in names)
                return {f.relative_to(self.local).as_posix(): f.stat().st_size for f in sorted(files)}
            fs, root = self.remote()
            fs.invalidate_cache()
            try:
                infos = fs.find(root, detail=True)
            except FileNotFoundError:
                return {}
        below = {name[len(root) :].lstrip("/"): info["size"] for name, info in infos.items()}
        return {name: below[name] for name in sorted(below) if name}

    def download(self, name: str, path: str | os.PathLike[str]) -> None:
        """Copy a file to a local path, making its folder."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._faults("read", name):
            if self.local is not None:
                shutil.copyfile(self.local / name, target)
                return
            # Not by `open`, which goes by a listing that may be older than the file.
            fs, root = self.remote()
            fs.get_file(f"{root}/{name}", os.fspath(target))

    # Writing ----------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """Write one file at once: a reader sees all of it or nothing (of the new content)."""
        with self._faults("write", name):
            if self.local is not None:
                self._put_local(name, [data])
            else:
                fs, root = self.remote()
                fs.pipe_file(f"{root}/{name}", data)

    def put_new(self, name: str, data: bytes) -> None:
        """`put` that raises FileExistsError where the file is there already: of several at once one succeeds.

        Object stores decide it by a conditional write (AWS, Google, R2, MinIO). One that ignores the
        condition overwrites, so who must know reads the file back.
        """
        with self._faults("write", name):
            if self.local is not None:
                target = self.local / name
                target.parent.mkdir(parents=True, exist_ok=True)
                create_file(target, data)
                return
            fs, root = self.remote()
            try:
                fs.pipe_file(f"{root}/{name}", data, mode="create")
            except FileNotFoundError:
                raise
            except Exception as error:
                if not _is_there_already(error):
                    raise
                # A repeated request may have met the file that its first try wrote.
                if fs.cat_file(f"{root}/{name}") == data:
                    return
                raise FileExistsError(self.path(name)) from error

    def put_stream(self, name: str, pieces: Iterable[bytes]) -> None:
        """Like `put`, for content too large to hold."""
        if self.local is not None:
            with self._faults("write", name):
                self._put_local(name, pieces)
            return
        # Closing an unfinished remote upload would commit half of it, so the file is completed here first.
        with scratch_folder() as folder:
            draft = Path(folder) / "draft"
            with open(draft, "wb") as file:
                file.writelines(pieces)
            self.upload(name, draft)

    def upload(self, name: str, path: str | os.PathLike[str]) -> None:
        """Like `put`, from a complete local file."""
        if self.local is not None:
            with open(path, "rb") as file:
                self.put_stream(name, iter(lambda: file.read(1 << 22), b""))
            return
        with self._faults("write", name):
            fs, root = self.remote()
            fs.put_file(os.fspath(path), f"{root}/{name}")

    def _put_local(self, name: str, pieces: Iterable[bytes]) -> None:
        assert self.local is not None
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # The dataset's writer sweeps drafts itself; a listing for each of many thousand files would be dear.
        with replacing_file(target, durable=True, sweep=False) as draft:
            with open(draft, "wb") as file:
                file.writelines(pieces)
            crash_point("put_before_rename")

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; those already gone are fine."""
        names = list(names)
        if not names:
            return
        with self._faults("delete", names[0]):
            if self.local is not None:
                for name in names:
                    (self.local / name).unlink(missing_ok=True)
                return
            fs, root = self.remote()
            if len(names) > 1 and self.uri.partition("://")[0] in _BATCHES:
                with suppress(FileNotFoundError):
                    for start in range(0, len(names), BATCH):
                        fs.rm([f"{root}/{name}" for name in names[start : start + BATCH]])
                    return
            for name in names:
                try:
                    fs.rm_file(f"{root}/{name}")
                except FileNotFoundError:
                    continue

    @contextmanager
    def _faults(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (OrbitError, FileExistsError):
            raise
        except FileNotFoundError as error:
            if verb != "write":
                raise
            raise StorageRefused(
                f"cannot write {self.path(name)}: no such place; choose one that can be written"
            ) from error
        except Exception as error:
            if self.local is not None and not isinstance(error, OSError):
                raise
            where = f"cannot {verb} {self.path(name)}"
            raise storage_fault(where, error, remote=self.local is None) from error


def _options(uri: str) -> dict[str, Any]:
    """Options of the file system of a URI: S3's client alone keeps few connections, and the others wait."""
    if not uri.startswith(("s3://", "s3a://")):
        return {}
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"max_pool_connections": 2 * CONCURRENT_READS, **given}}


def _is_there_already(error: Exception) -> bool:
    """Whether a conditional write was refused: FileExistsError, or HTTP's 412 as clients tell it."""
    if isinstance(error, FileExistsError) or str(getattr(error, "code", "")) == "412":
        return True
    return "PreconditionFailed" in repr(error.__cause__)
