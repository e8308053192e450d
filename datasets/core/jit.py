"""How every kernel is compiled: without the GIL, without Python's division checks, cached on disk."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit` with the settings of this package.

    `error_model="numpy"` is worth a factor of eight in a backward pass: Python's check for division by zero
    is an exit from the middle of a loop, and such a loop is not vectorised.

    The compiled code is kept where numba looks first: `NUMBA_CACHE_DIR`, else `__pycache__` beside the
    source, else the user's cache folder. Where none can be written (a read-only installation without a home)
    it goes to a folder in the system's temporary directory, so that a second process still starts warm.
    """
    if function is None:
        return lambda decorated: jit(decorated, **options)
    settings = {"nogil": True, "error_model": "numpy", "cache": True, **options}
    try:
        return numba.njit(**settings)(function)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
    setattr(config, "CACHE_DIR", str(_fallback_cache_dir()))  # noqa: B010  numba declares it at run time
    return numba.njit(**settings)(function)


def _fallback_cache_dir() -> Path:
    """A private folder for compiled code: nobody else may write what this process will execute."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    folder = Path(tempfile.gettempdir()) / f"orbit4d-numba-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat()
        trusted = not folder.is_symlink() and owner.st_uid == os.getuid() and not owner.st_mode & 0o022
    except OSError:
        trusted = False
    return folder if trusted else Path(tempfile.mkdtemp(prefix="orbit4d-numba-"))
