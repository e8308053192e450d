"""What a parser raises on the bytes of a file is damage of that file, and is reported as such.

Parsers of stored bytes (Parquet's footer, JSON, image headers, tensors) raise whatever they trip over:
UnicodeDecodeError on a flipped bit in a column's name, KeyError on a column that is gone, OverflowError on a
length. A reader cannot list them all, and need not: inside `reading` the only thing at work is the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orbit4d.datasets.core.errors import OrbitError, WorkError

VERIFY = "run `orbit4d verify`"


@contextmanager
def reading(path: str, what: str = "damaged", fix: str = VERIFY) -> Iterator[None]:
    """Turn any exception inside into WorkError `<path>: <what> (<why>); <fix>`.

    WorkError keeps its text and gets the file's name where that is missing. InputError passes, and so does
    FileNotFoundError, which the caller knows better.
    """
    try:
        yield
    except WorkError as error:
        if path in str(error):
            raise
        raise WorkError(f"{path}: {error}; {fix}") from error
    except (OrbitError, FileNotFoundError):
        raise
    except Exception as error:
        raise WorkError(f"{path}: {what} ({reason(error)}); {fix}") from error


def reason(error: BaseException) -> str:
    """An exception as part of one line; its class where its text alone says nothing."""
    text = " ".join(str(error).split())[:200]
    # KeyError's text is the bare key; codecs and arithmetic speak of bytes and numbers without a context.
    plain = isinstance(error, OSError) or type(error).__name__.startswith("Arrow")
    return text if plain and text else f"{type(error).__name__}: {text}".rstrip(": ")
