"""`DATASET:uid[:action]`: how commands name one asset of a dataset.

Paths, URIs and names of actions may hold colons themselves. Of the colons that may end the dataset's name the
last one counts before which something exists; where nothing does, the first one.
"""

from __future__ import annotations

import os
import re

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_dataset

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AFTER = re.compile(r":(?P<uid>[A-Za-z0-9_-]+)(?::(?P<action>.*))?", re.DOTALL)


def open_reference(text: str) -> tuple[str, str, str]:
    """Split `DATASET:uid[:action]` into (dataset, uid, action); action is '' when left out.

    An action's name may itself hold colons, and so may the path of a dataset that exists. Anything else
    raises InputError.
    """
    splits = _splits(text)
    if not splits:
        raise InputError(f"{text!r}: write DATASET:uid or DATASET:uid:action, e.g. out/dataset:fox:Run")
    if len(splits) > 1:
        for split in reversed(splits):
            if _exists(split[0]):
                return split
    return splits[0]


def is_reference(text: str) -> bool:
    """Whether the text has the form of a reference (a plain path or URI has not)."""
    return bool(_splits(text))


def split_reference(text: str) -> tuple[str, str | None, str]:
    """(where, uid or None, action) of WHERE[:uid[:action]]; what exists as it stands has no uid."""
    if os.path.exists(text) or not is_reference(text):
        return text, None, ""
    return open_reference(text)


def _splits(text: str) -> list[tuple[str, str, str]]:
    """Every (dataset, uid, action) that the text may be read as, shortest dataset first."""
    scheme = _SCHEME.match(text)
    start = scheme.end() if scheme else 0
    found = []
    for place in (i for i, letter in enumerate(text) if letter == ":" and i > start):
        match = _AFTER.fullmatch(text, place)
        if match is not None:
            found.append((text[:place], match["uid"], match["action"] or ""))
    return found


def _exists(where: str) -> bool:
    """Whether a local path is there, or a dataset under a URI."""
    if _SCHEME.match(where) is None:
        return os.path.exists(where)
    try:
        return is_dataset(where)
    except InputError:
        return False
