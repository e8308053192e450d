"""What is known of assets in a bucket without downloading them; duplicates and changes are found anyway."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.sources import resolve as module
from orbit4d.datasets.sources.asset import Resolved
from orbit4d.render.dataset.remote_hashes import NAME, RemoteHashes

FILES = {
    "a/one.glb": b"1",
    "a/two.glb": b"22",
    "b/two.glb": b"333",  # another one of the same name
    "b/twin.glb": b"4444",
    "c/twins.glb": b"4444",
    "c/near.glb": b"5555",  # of their size, with other contents
    "c/long.glb": b"6" * 90,
}


@pytest.fixture
def place() -> Store:
    store = Store(f"memory://hashes-{uuid.uuid4().hex}")
    for name, data in FILES.items():
        store.put(f"in/{name}", data)
    return store


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were downloaded to be hashed."""
    seen: list[str] = []
    hash_asset = module.hash_asset
    monkeypatch.setattr(module, "hash_asset", lambda path: (seen.append(path), hash_asset(path))[1])
    return seen


def names(paths: list[str]) -> list[str]:
    return sorted("/".join(path.split("/")[-2:]) for path in paths)


def kept(resolved: Resolved) -> list[tuple[str, str, int]]:
    return [(asset.uid, asset.path, asset.bytes) for asset in resolved.assets]


def test_only_files_that_may_be_equal_are_downloaded(place: Store, read: list[str]) -> None:
    source = [f"{place.uri}/in"]
    whole = module.resolve(source)
    assert len(read) == len(FILES)
    read.clear()
    spared = module.resolve(source, None, RemoteHashes().spared)
    assert names(read) == ["a/two.glb", "b/twin.glb", "b/two.glb", "c/near.glb", "c/twins.glb"]
    assert kept(spared) == kept(whole) and spared.duplicates == whole.duplicates
    assert len(whole.duplicates) == 1
    known = {a.uid: a.sha256 for a in whole.assets}
    assert all(a.sha256 in (known[a.uid], "") for a in spared.assets)
    assert sum(a.sha256 == "" for a in spared.assets) == 2


def test_what_a_worker_learnt_holds_until_the_file_is_replaced(place: Store, read: list[str]) -> None:
    source, out = [f"{place.uri}/in"], Store(f"{place.uri}/out")
    hashes = RemoteHashes(out)
    known = {a.path: a.sha256 for a in module.resolve(source).assets}
    hashes.learn_all(module.resolve(source, None, hashes.spared))
    for path, sha256 in known.items():  # as the workers tell
        hashes.learn(path, sha256)
    hashes.save()
    assert out.list("")[NAME] > 0
    read.clear()
    again = RemoteHashes(out, needed=["one", "long"])
    found = {a.path: a.sha256 for a in module.resolve(source, None, again.spared).assets}
    assert found == known and read == []
    place.put("in/c/long.glb", b"7" * 90)
    read.clear()
    after = RemoteHashes(out, needed=["one", "long"])
    found = {a.path: a.sha256 for a in module.resolve(source, None, after.spared).assets}
    assert names(read) == ["c/long.glb"]
    assert names([path for path in known if found[path] != known[path]]) == ["c/long.glb"]


def test_a_table_that_names_hashes_spares_every_download(
    place: Store, read: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{place.uri}/in/{name},{'ab' * 31}{i:02d}" for i, name in enumerate(FILES)]
    table.write_text("path,asset_sha256\n" + "\n".join(rows) + "\n")
    resolved = module.resolve([str(table)], None, RemoteHashes().spared)
    assert read == [] and len(resolved.assets) == len(FILES)
    assert all(asset.sha256.startswith("abab") and asset.bytes > 0 for asset in resolved.assets)


def test_beside_local_files_all_are_read(place: Store, read: list[str], tmp_path: Path) -> None:
    (tmp_path / "here.glb").write_bytes(b"6" * 90)
    resolved = module.resolve([f"{place.uri}/in", str(tmp_path / "here.glb")], None, RemoteHashes().spared)
    assert len(read) == len(FILES) + 1 and len(resolved.duplicates) == 2
