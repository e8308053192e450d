"""Which split assets fell into, for messages about a split that holds none of them."""

from __future__ import annotations

from collections.abc import Iterable

from orbit4d.datasets.index.index import Index
from orbit4d.datasets.sources.lists import named
from orbit4d.datasets.store.schema import SPLITS


def fallen(index: Index, uids: Iterable[str] | None = None) -> str:
    """`train fox, hare; test owl`: the assets of a dataset, or those of `uids` that it has, by split.

    '' when there is none.
    """
    wanted = None if uids is None else set(uids)
    keys = index.keys
    found: dict[str, list[str]] = {name: [] for name in SPLITS}
    for uid, split in zip(keys.uids.to_pylist(), keys.split.tolist()):
        if split < len(SPLITS) and (wanted is None or uid in wanted):
            found[SPLITS[split]].append(uid)
    return "; ".join(f"{name} {named(sorted(some))}" for name, some in found.items() if some)
