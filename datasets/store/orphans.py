"""A shard that no index part names: a rest of an interrupted run, or the only copy of something."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Container

_SAMPLE = re.compile(r"(?P<uid>[^/]+)__a\d+__\w+?__o\d+(?:__l\d+)?\..+")


def only_here(shard: bytes, known: Container[str]) -> list[str]:
    """Uids in a tar that are not `known` (committed or staged), and names of members that are no sample's.

    A run deletes staged assets only once their index part is written. So a shard whose assets are known was
    left by an interrupted run and can go; with others in it an index part is lost, or the tar is foreign.
    [] also for what is no tar at all.
    """
    found = set()
    try:
        # Damaged headers are stepped over: the others still say what lies here.
        with tarfile.open(fileobj=io.BytesIO(shard), mode="r:", ignore_zeros=True) as tar:
            for member in tar:
                match = _SAMPLE.fullmatch(member.name)
                if match is None:
                    found.add(member.name)
                elif match["uid"] not in known:
                    found.add(match["uid"])
    except tarfile.TarError:
        pass
    except Exception as error:
        # A damaged header can be anything; what lies behind it is not known, so it is not ours to remove.
        found.add(f"(an unreadable member: {type(error).__name__})")
    return sorted(found)
