"""What a text says about which asset is meant: a uid of Objaverse, a hash of contents, or a name."""

from __future__ import annotations

import re
from typing import Literal

from orbit4d.datasets.sources.asset import clean_uid

Kind = Literal["uid", "sha256", "name"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
#: `<uid>`, `<shard>_<uid>`, `.../3d-models/<uid>`, `...-<uid>`, and behind each what tells equal uids apart.
_UID = re.compile(r"(?:.*[_/\-])?([0-9a-f]{32})(?:-[0-9a-f]{8})?/?")


def key_of(text: str) -> tuple[Kind, str]:
    """(kind, key) of a key in any spelling: trimmed, lower case; 64 hex digits are a sha256, 32 of them (also
    behind a shard, a slug or an address) a uid, anything else a name as `clean_uid` writes it."""
    found = text.strip().lower()
    if _SHA256.fullmatch(found):
        return "sha256", found
    if (match := _UID.fullmatch(found)) is not None:
        return "uid", match[1]
    return "name", clean_uid(found)
