"""Text files that people and their tools write: lists of ids or paths, one a line.

Editors and shells put a byte-order mark in front (Notepad, Excel, PowerShell), which is no part of the first
entry, or write UTF-16 altogether. One reader serves every list that a command takes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Hashable, Iterable
from typing import TypeVar

from orbit4d.datasets.core.errors import InputError

Name = TypeVar("Name", bound=Hashable)

#: Longest first: UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARK = "\ufeff"
#: A comment begins a line or follows a blank: `crate#2.glb` is a name.
_COMMENT = re.compile(r"(^|\s)#.*")


def read_text(path: str, what: str = "text") -> str:
    """The characters of a text file, local or fsspec, without byte-order mark: UTF-8, or what the mark says.

    Raises InputError for a file that is not there, cannot be read, or is no text.
    """
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give {what}") from None
    except Exception as error:
        # Object stores raise classes of their own (no credentials, no such bucket).
        raise InputError(f"{path}: cannot be read as {what} ({_line(error)})") from error
    mark, encoding = next(((m, e) for m, e in _MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as {what} ({_line(error)}); save it as UTF-8 text"
        ) from error
    if "\0" in text:
        raise InputError(f"{path}: cannot be read as {what} (it holds zero bytes); save it as UTF-8 text")
    return text


def read_list(path: str, what: str = "a text file with one entry a line") -> list[str]:
    """Entries of a list, in order, repeated ones too; `#` begins a comment.

    Raises InputError as `read_text` does, and for a list without an entry.
    """
    # A mark stands in front of every part of a list that was put together from several files.
    lines = [_COMMENT.sub("", line.strip(f"{_MARK} \t")) for line in lines_of(read_text(path, what))]
    entries = [line.strip() for line in lines if line.strip()]
    if not entries:
        raise InputError(f"{path}: the list has no entries; give {what}")
    return entries


def lines_of(text: str) -> list[str]:
    """Lines by any of the three line ends; other characters that Unicode calls a line end belong to names."""
    return re.split(r"\r\n|\n|\r", text)


def named(missing: Iterable[str], most: int = 3) -> str:
    """A few of many names for one line: `fox, hare, owl and 7 more`."""
    names = list(missing)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def absent(asked: Iterable[Name], present: Collection[Name]) -> list[Name]:
    """What was asked for and is not there, in the order it was asked for, once each."""
    return [name for name in dict.fromkeys(asked) if name not in present]


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
