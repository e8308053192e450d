"""Temporary folders: those that do not outlive their process for long, even when it is killed, and one whose
path is short enough for sockets.

The path of a Unix socket has at most 107 bytes (103 on macOS). Ray and Python's multiprocessing put sockets
into the temporary folder, under names of their own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orbit4d.datasets.core.errors import InputError

PREFIX = "orbit4d-scratch-"
#: Longest path of a folder under which Ray's own names still fit:
#: `/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store.1` takes up to 72 bytes.
LONGEST = 35
#: Longest for multiprocessing: `/pymp-12345678/listener-12345678`, 32 bytes.
LONGEST_FOR_LISTENERS = 70


def make_scratch() -> str:
    """A new temporary folder, named after this process."""
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A temporary folder for the time of the body; that of a killed process is swept by the next one."""
    folder = make_scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(folder: str | None = None) -> None:
    """Remove scratch folders whose process was killed before it could."""
    for path in Path(folder or tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = path.name[len(PREFIX) :].split("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self"):
            shutil.rmtree(path, ignore_errors=True)


def socket_folder(longest: int = LONGEST, variable: str = "RAY_TMPDIR") -> str:
    """The temporary folder (the environment's `variable`, else TMPDIR), or another that can be written where
    its path is longer than `longest` bytes.

    Raises InputError that names TMPDIR where there is none.
    """
    usual = os.environ.get(variable) or tempfile.gettempdir()
    for folder in (usual, "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", "")):
        if folder and len(os.fsencode(folder)) <= longest and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"TMPDIR={usual}: its path is too long for sockets, and /tmp cannot be written; "
        f"set TMPDIR to a folder of at most {longest} characters"
    )


def shorten_listeners() -> None:
    """Let this process's multiprocessing make its sockets where their paths are short enough.

    PyTorch's loader workers send tensors through them.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_FOR_LISTENERS:
        return
    from multiprocessing import process, util

    if getattr(process.current_process(), "_config", {}).get("tempdir") is None:
        before = tempfile.tempdir
        tempfile.tempdir = socket_folder(LONGEST_FOR_LISTENERS, "TMPDIR")
        try:
            util.get_temp_dir()  # makes it, keeps it for this process and its children, removes it at the end
        finally:
            tempfile.tempdir = before
