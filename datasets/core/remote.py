"""Local stand-ins for URIs, for commands whose work needs a path.

What is read is copied into a scratch folder first. What is written is made there and uploaded file by file,
each at once, those that mark a folder as complete last; a run, whose folder grows, also at its checkpoints
(`publish`). Messages, output and stored settings name the URI and not its stand-in (`named`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from orbit4d.datasets.core.atomic import TEMPORARY
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.scratch import make_scratch, scratch_folder
from orbit4d.datasets.core.storage import Store

T = TypeVar("T")

#: Files whose presence says that the files beside and below them are complete.
MARKERS = ("state.json", "scene.json", "model_index.json", "transforms.json", "results.json", "index.html")
#: Local folder -> the stand-in that it is, of this process.
_STAND_INS: dict[str, StandIn] = {}
#: Local path -> the URI that messages name.
_NAMES: dict[str, str] = {}


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is an fsspec URI other than file://, also one that `pathlib` has taken a slash from."""
    text = os.fspath(place)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)", text)
    if match is None or match[1].lower() == "file":
        return False
    if isinstance(place, PurePath):
        from fsspec.registry import known_implementations

        return match[1].lower() in known_implementations and not os.path.exists(text)
    return len(match[2]) > 1


def local_path(place: str | os.PathLike[str]) -> Path:
    """`place` as a local path. Raises InputError for a URI, which `Path` would turn into a local folder."""
    if is_remote(place):
        raise InputError(f"{os.fspath(place)}: is a URI where a local path is needed; give a path")
    return Path(os.fspath(place).removeprefix("file://"))


def named(value: T) -> T:
    """`value` (a text, or lists and dicts of them) with the URI for every stand-in's path."""
    if isinstance(value, str):
        text: str = value
        for local, uri in _NAMES.items():
            text = text.replace(local, uri)
        return text  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: named(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(named(item) for item in value)  # type: ignore[call-arg,return-value]
    return value


def parent_and_name(uri: str) -> tuple[str, str]:
    """(URI of the folder, last part) of a URI."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    return parent, name


# Reading ----------------------------------------------------------------------------------------------------


@contextmanager
def fetched(uri: str, leave_out: Collection[str] = ()) -> Iterator[Path]:
    """A local copy of the file or folder at `uri`, under its own name, for the time of the body.

    Folders named in `leave_out` directly under it are not copied. Raises InputError where there is nothing.
    """
    parent, name = parent_and_name(uri)
    with scratch_folder() as scratch:
        local = Path(scratch) / (unquote(urlsplit(name).path) or "copy")
        if Store(parent).exists(name):
            Store(parent).download(name, local)
        else:
            store = Store(uri)
            names = [n for n in store.tree() if n.split("/")[0] not in leave_out]
            if not names:
                raise InputError(f"{uri}: no such file or folder; check the address")
            _copy_down(store, names, local)
        _NAMES[str(local)] = uri
        try:
            yield local
        finally:
            _NAMES.pop(str(local), None)


def _copy_down(store: Store, names: Collection[str], local: Path) -> None:
    with Progress(f"download {store.uri}", len(names), "file") as progress:
        for name in names:
            store.download(name, local / name)
            progress.update()


# Writing ----------------------------------------------------------------------------------------------------


class StandIn:
    """A local folder whose files belong under a URI."""

    def __init__(self, uri: str, local: Path) -> None:
        self.store, self.local = Store(uri), local
        self._known: dict[str, tuple[int, int]] = {}
        """name -> (bytes, ns of the last change) of what is the same on both sides"""
        self._pushed = time.monotonic()

    def pull(self, leave_out: Collection[str]) -> None:
        """Copy what the URI holds already, without the folders named in `leave_out`."""
        names = [name for name in self.store.tree() if name.split("/")[0] not in leave_out]
        if names:
            _copy_down(self.store, names, self.local)
        self._known = self._here()

    def push(self) -> None:
        """Upload what is new or changed, markers last; then delete what is gone here."""
        now = self._here()
        changed = [name for name in now if self._known.get(name) != now[name]]
        for name in sorted(changed, key=lambda name: (name.rpartition("/")[2] in MARKERS, name)):
            self.store.upload(name, self.local / name)
            self._known[name] = now[name]
        gone = [name for name in self._known if name not in now]
        # A folder stops being complete before it loses its first file.
        for marked in (True, False):
            self.store.delete([name for name in gone if (name.rpartition("/")[2] in MARKERS) is marked])
        for name in gone:
            del self._known[name]
        self._pushed = time.monotonic()

    def push_if_due(self, every: float) -> None:
        """`push` unless the last one is less than `every` seconds ago; a failure waits for the next one."""
        if time.monotonic() - self._pushed < every:
            return
        try:
            self.push()
        except OrbitError as error:
            self._pushed = time.monotonic()
            print(f"note: {named(str(error))}; tried again later", file=sys.stderr)

    def _here(self) -> dict[str, tuple[int, int]]:
        """Files that are whole: what is written under a name that starts with a dot is not."""
        found: dict[str, tuple[int, int]] = {}
        for top, folders, files in os.walk(self.local):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in files:
                if not file.startswith(".") and not file.endswith((".partial", ".part", ".lock")):
                    path = Path(top, file)
                    status = path.stat()
                    found[path.relative_to(self.local).as_posix()] = status.st_size, status.st_mtime_ns
        return found


@contextmanager
def stand_in(
    uri: str, file: bool = False, pull: bool = False, leave_out: Collection[str] = ()
) -> Iterator[Path]:
    """A local path to write in the place of `uri`; what was written is uploaded when the body ends.

    For a `file` that is the path of a file, whose neighbours are uploaded too (`orbit.mp4` brings `orbit/`),
    and nothing is uploaded when the body raises. A folder is uploaded then as well, so that a stopped run can
    be resumed; with `pull` it starts with what the URI holds. Of several processes of one launch the first
    uploads. Raises WorkError when the upload fails, naming the folder in which the files are kept.
    """
    where, name = parent_and_name(uri)
    scratch = make_scratch()
    local = Path(scratch) / name
    standing = StandIn(where, Path(scratch)) if file else StandIn(uri, local)
    try:
        _check_writable(standing.store)
        if pull:
            standing.pull(leave_out)
        _STAND_INS[str(standing.local)] = standing
        _NAMES[str(standing.local)] = standing.store.uri
        try:
            yield local
        except BaseException:
            if not file:
                _finish(standing, scratch)
            raise
        _finish(standing, scratch)
    finally:
        _STAND_INS.pop(str(standing.local), None)
        _NAMES.pop(str(standing.local), None)
        shutil.rmtree(scratch, ignore_errors=True)


def _check_writable(store: Store) -> None:
    """Refuse a place that cannot be written before the work, by a file that is deleted at once."""
    probe = f"{TEMPORARY}{secrets.token_hex(6)}-probe"
    try:
        store.put(probe, b"probe")
    except OrbitError as error:
        error.args = (str(error).replace(f"/{probe}", ""),)
        raise
    store.delete([probe])


def _finish(standing: StandIn, scratch: str) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        standing.push()
    except OrbitError as error:
        kept = tempfile.mkdtemp(prefix="orbit4d-kept-")
        shutil.move(scratch, kept)
        text = named(str(error))
        _NAMES.pop(str(standing.local), None)
        raise WorkError(f"{text}; what was made is kept in {kept}") from error


def publish(folder: str | os.PathLike[str], every: float = 0.0) -> None:
    """Upload a folder that stands for a URI, at most once in `every` seconds; nothing for any other folder.

    Called where a long run has something worth keeping (a checkpoint). An upload that fails is noted and
    tried again at the next call.
    """
    standing = _STAND_INS.get(os.fspath(folder))
    if standing is not None and os.environ.get("RANK", "0") == "0":
        standing.push_if_due(every)


def taken(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder is at `path`, or at the URI that it stands for."""
    if os.path.lexists(path):
        return True
    for folder in (Path(path), Path(path).parent):
        if (standing := _STAND_INS.get(str(folder))) is not None:
            if folder == Path(path):
                return bool(standing.store.tree())
            name = Path(path).name
            return standing.store.exists(name) or bool(Store(standing.store.path(name)).tree())
    return False


def stands_in(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, or the folder that it is in, stands for a URI."""
    return any(str(folder) in _STAND_INS for folder in (Path(path), Path(path).parent))


def refuse_taken(path: str | os.PathLike[str], overwrite: bool | None = None) -> None:
    """Raise InputError where something is at `path` (or at the URI that it stands for) already.

    `overwrite` None: there is no option --overwrite to name.
    """
    if not overwrite and taken(path):
        fix = ", or --overwrite" if overwrite is not None else ""
        raise InputError(f"{os.fspath(path)}: is there already; give another --out{fix}")


class NamedStream:
    """A text stream that writes URIs for their stand-ins."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `named(text)`."""
        self._stream.write(named(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
