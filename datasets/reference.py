"""`DATASET:uid[:action]`: how commands name one asset of a dataset."""

from __future__ import annotations

import re

from orbit4d.datasets.errors import InputError

# A dataset may be a URI (s3://bucket/data), whose own colon is not a separator..
_REFERENCE = re.compile(
    r"(?P<dataset>(?:[A-Za-z][A-Za-z0-9+.-]*://)?[^:]+):(?P<uid>[A-Za-z0-9_-]+)(?::(?P<action>.*))?",
    re.DOTALL,
)


def open_reference(text: str) -> tuple[str, str, str]:
    """Split `DATASET:uid[:action]` into (dataset, uid, action); action is '' when left out.

    An action's name may itself hold colons. Anything else raises InputError.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r}: write DATASET:uid or DATASET:uid:action, e.g. out/dataset:fox:Run")
    return match["dataset"], match["uid"], match["action"] or ""


def is_reference(text: str) -> bool:
    """Whether the text has the form of a reference (a plain path or URI has not)."""
    return _REFERENCE.fullmatch(text) is not None
