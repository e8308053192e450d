"""Write a file or a folder at once: a reader sees all of it, or what was there before, whatever is killed.

Everything is written beside its place under a draft's name, `.tmp-<12 hex>-<name>`, and renamed when it is
whole. The digits are random, so two writers never share a draft; the last one to finish wins. A failure
leaves no draft behind; the draft of a killed process is removed by a write of the same name a day later.
Errors are those of the operating system: callers say what they mean.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: What drafts' names start with; readers never look at them, nor at other names that start with a dot.
TEMPORARY = ".tmp-"
#: Seconds without a change after which nobody can be writing a draft any more.
ABANDONED_AFTER = 86_400.0


def draft_of(path: str | os.PathLike[str]) -> Path:
    """A new draft's path for `path`, beside it and with its suffix, by which libraries choose a format."""
    target = Path(path)
    return target.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{target.name}")


def write_bytes(path: str | os.PathLike[str], data: bytes, durable: bool = False) -> None:
    """Write a file. `durable`: it survives a power cut from now on."""
    with replacing_file(path, durable) as draft:
        draft.write_bytes(data)


def create_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that must not be there: FileExistsError where it is, also when several write at once."""
    target, draft = Path(path), draft_of(path)
    try:
        draft.write_bytes(data)
        flush(draft)
        try:
            os.link(draft, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            # A file system without links: the name is reserved first and is empty for an instant.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def write_text(
    path: str | os.PathLike[str],
    text: str,
    durable: bool = False,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> None:
    """Write a text file."""
    write_bytes(path, text.encode(encoding, errors), durable)


def write_json(
    path: str | os.PathLike[str], values: Any, durable: bool = False, ascii_only: bool = True
) -> None:
    """Write a JSON file, indented by one and ended by a newline as all of ours are."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=ascii_only) + "\n", durable)


@contextmanager
def replacing_file(path: str | os.PathLike[str], durable: bool = False, sweep: bool = True) -> Iterator[Path]:
    """The draft of a file, which takes its place when the body ends well.

    `sweep=False` spares listing the folder, where another sweep knows the drafts' names.
    """
    target, draft = Path(path), draft_of(path)
    if sweep:
        _remove_abandoned(target)
    try:
        yield draft
        if durable:
            flush(draft)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        flush(target.parent)


@contextmanager
def replacing_folder(
    path: str | os.PathLike[str], durable: bool = False, alone: bool = False
) -> Iterator[Path]:
    """The draft of a folder, there and empty, which takes its place, and that of what stands there, when the
    body ends well.

    `alone`: no other process writes here (a lock is held), so every draft that is there is abandoned.
    """
    target, draft = Path(path), draft_of(path)
    _remove_abandoned(target, 0.0 if alone else ABANDONED_AFTER)
    draft.mkdir(parents=True)
    try:
        yield draft
        if durable:
            for top, _, files in os.walk(draft):
                for name in files:
                    flush(os.path.join(top, name))
                flush(top)
        _replace_folder(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if durable:
        flush(target.parent)


def _replace_folder(draft: Path, target: Path) -> None:
    """No file system replaces a folder that holds something: that one is put aside first and removed last."""
    aside: list[Path] = []
    try:
        while True:
            try:
                os.replace(draft, target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            # In a loop: another writer may have put its own there in between.
            old = draft_of(target)
            with suppress(FileNotFoundError):
                os.replace(target, old)
                aside.append(old)
    except BaseException:
        if aside and not target.exists():
            os.replace(aside.pop(), target)
        raise
    finally:
        for old in aside:
            _remove(old)


def flush(path: str | os.PathLike[str]) -> None:
    """Have the disk take a file, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_abandoned(target: Path, after: float = ABANDONED_AFTER) -> None:
    """Remove drafts of `target` whose writers were killed: those unchanged for `after` seconds."""
    try:
        with os.scandir(target.parent) as entries:
            old = [
                entry.path
                for entry in entries
                if entry.name.startswith(TEMPORARY)
                and entry.name[len(TEMPORARY) + 12 :] == f"-{target.name}"
                and time.time() - entry.stat(follow_symlinks=False).st_mtime >= after
            ]
    except OSError:
        return  # no such folder yet, or another process was faster
    for path in old:
        _remove(Path(path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
