"""How many assets of a dataset are objects of published benchmarks, and how many of them stand in `train`."""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.index.index import Index
from orbit4d.datasets.sources.benchmarks import load_benchmarks
from orbit4d.datasets.store.schema import SPLITS


def benchmark_counts(index: Index) -> tuple[dict[str, int], dict[str, int]]:
    """(benchmark -> assets that it holds, benchmark -> those of them in the split `train`), by the shipped
    lists: by uid, address, and contents that equal those of an asset of a listed uid."""
    assets: dict[int, tuple[str, str, str]] = {}
    for first, table in index.read(["uid", "asset_sha256", "source_url"]):
        numbers = index.keys.asset[first : first + table.num_rows]
        at = np.flatnonzero(np.diff(numbers, prepend=-1))
        columns = (table[name].take(at).to_pylist() for name in ("uid", "asset_sha256", "source_url"))
        assets.update(zip(numbers[at].tolist(), zip(*columns)))
    known = load_benchmarks().seen(assets.values())
    everywhere: dict[str, int] = {}
    in_train: dict[str, int] = {}
    for number, asset in assets.items():
        for name in known.of(*asset):
            everywhere[name] = everywhere.get(name, 0) + 1
            if SPLITS[index.keys.split[number]] == "train":
                in_train[name] = in_train.get(name, 0) + 1
    return dict(sorted(everywhere.items())), dict(sorted(in_train.items()))
