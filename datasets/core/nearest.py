"""The name that somebody may have meant, for messages about one that is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` most like `name`, None when none is like it. A dotted name may also be meant by its
    last part: `lr` is near `optim.lr`."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    last = {full.rsplit(".", 1)[-1]: full for full in reversed(known)}
    close = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.7)
    return last[close[0]] if close else None


def or_known(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest, or where none is near, all that are known."""
    known = list(known)
    found = nearest(name, known)
    return f"the nearest is {found}" if found else f"known are {', '.join(known)}"
