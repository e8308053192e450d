"""Assets that no test has to fit or render."""

from __future__ import annotations

import csv

import pytest

from tests.compose.toy_assets import ACTIONS, ASSETS, Toys, fitted, walker


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    folder = tmp_path_factory.mktemp("toys")
    keys, rows = {}, []
    for uid, (length, caption, licence) in ASSETS.items():
        path = folder / f"{uid}.glb"
        path.write_bytes(walker(length))
        keys[uid] = fitted(path, uid, folder / "cache")
        rows += [
            {"uid": uid, "file": path.name, "action_index": i, "action": name, "caption": caption,
             "licence": licence, "author": "Ann"}
            for i, name in enumerate(ACTIONS)
        ]  # fmt: skip
    with (folder / "actions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return Toys(folder / "actions.csv", folder / "cache", keys)
