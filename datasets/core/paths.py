"""Natural order of names: frame2 stands before frame10, as whoever numbered the files meant it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, TypeVar

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
