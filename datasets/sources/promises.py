"""Hashes noted beside cached files, against which the files are held ever after.

A publisher without checksums leaves only what was seen first. Only a sound file may promise anything: the
hash of a download that was cut short would refuse the whole file for ever. So a note is written after a look
into the file, and taken back when the file turns out broken later on.
"""

from __future__ import annotations

import contextlib
import os
import re

from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.core.atomic import write_text

#: Folder of the `objaverse` package's cache. Elsewhere a `.sha256` file beside an asset is the user's.
CACHE = "hf-objaverse-v1"


def note_of(path: str) -> str:
    """Where the hash of a cached file is noted."""
    return f"{path}.sha256"


def first_seen_sha256(path: str) -> str:
    """The noted hash of a cached file; noted now where it is sound and there is none. '' where neither is."""
    try:
        with open(note_of(path), encoding="ascii") as file:
            noted = file.read().strip()
        if re.fullmatch(r"[0-9a-f]{64}", noted):
            return noted
    except (OSError, UnicodeDecodeError):
        pass
    try:
        sha256 = inspect(path).sha256
    except BadFile:
        return ""
    try:
        write_text(note_of(path), sha256)
    except OSError:
        # A read-only cache is as good as any: without a note there is nothing to hold the file against.
        return ""
    return sha256


def forget_promise(path: str, sha256: str) -> None:
    """Take back the note of a cached file that was refused, or could not be used, after all."""
    if CACHE not in path.replace("\\", "/").split("/"):
        return
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(note_of(path), encoding="ascii") as file:
            noted = file.read().strip()
        if noted == sha256:
            os.unlink(note_of(path))
