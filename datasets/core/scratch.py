"""Temporary folders that do not outlive their process for long, even when it is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "orbit4d-scratch-"


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
