"""A temporary folder whose path is short enough for sockets in it.

The path of a Unix socket has at most 107 bytes (103 on macOS). Ray and Python's multiprocessing put sockets
into the temporary folder, under names of their own.
"""

from __future__ import annotations

import os
import tempfile

from orbit4d.datasets.core.errors import InputError

#: Longest path of a folder under which Ray's own names still fit:
#: `/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store.1` takes up to 72 bytes.
LONGEST = 35
#: Longest for multiprocessing: `/pymp-12345678/listener-12345678`, 32 bytes.
LONGEST_FOR_LISTENERS = 70


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
