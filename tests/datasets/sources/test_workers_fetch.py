"""What is decided before workers download: names and duplicates as if everything had been read already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.sources import resolve as resolving
from orbit4d.datasets.sources.fetching import NotFetched, fetch_asset
from orbit4d.datasets.sources.objaverse import workers as objaverse_workers
from orbit4d.datasets.sources.objaverse.workers import fetch_object, portable, xl_uri
from orbit4d.datasets.sources.resolve import resolve

#: Contents of few sizes, so that equal sizes with equal and with other contents are common.
FILES = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]), st.sampled_from("0123456")),
    min_size=1,
    max_size=8,
    unique_by=lambda file: file[:2],
)


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@settings(max_examples=60, deadline=None)
@given(files=FILES)
def test_names_and_duplicates_are_those_of_reading_everything(files: list[tuple[str, str, str]]) -> None:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for folder, stem, kind in files:
        fs.pipe_file(f"/in/{folder}/{stem}.glb", kind.encode() * (1 + int(kind) // 2))
    eager = resolve(["memory://in"])
    lazy = resolve(["memory://in"], workers_fetch=True)
    assert [a.uid for a in lazy.assets] == [a.uid for a in eager.assets]
    assert [a.path for a in lazy.assets] == [a.path for a in eager.assets]
    assert [a.bytes for a in lazy.assets] == [a.bytes for a in eager.assets]
    assert (lazy.duplicates, lazy.rejected) == (eager.duplicates, eager.rejected)
    assert all(a.sha256 in ("", b.sha256) for a, b in zip(lazy.assets, eager.assets))


def test_what_shares_neither_name_nor_size_is_not_read(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        memory.pipe_file(f"/in/{i}.glb", b"x" * (i + 1))

    def forbidden(path: str) -> tuple[str, int]:
        raise AssertionError(f"{path} was downloaded")

    monkeypatch.setattr(resolving, "hash_asset", forbidden)
    assert [a.sha256 for a in resolve(["memory://in"], workers_fetch=True).assets] == [""] * 5
    table = "path,sha256\n0.glb,\n1.glb," + "a" * 64 + "\nnone.glb,\n"
    memory.pipe_file("/in/list.csv", table.encode())
    found = resolve(["memory://in/list.csv"], workers_fetch=True)
    # What is promised is taken; what is not there is told at once where nothing is promised.
    assert [a.sha256 for a in found.assets] == ["", "a" * 64]
    assert [row[2] for row in found.rejected] == ["bad_file:missing"]


def test_a_uri_named_twice_is_one_asset_and_a_duplicate(memory: Any) -> None:
    memory.pipe_file("/in/a.glb", b"x")
    found = resolve(["memory://in", "memory://in/a.glb"], workers_fetch=True)
    assert len(found.assets) == 1 and len(found.duplicates) == 1


def test_a_worker_takes_the_hash_or_compares_it(memory: Any, make_cube: Any, tmp_path: Path) -> None:
    data = make_cube(tmp_path / "cube.glb").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    memory.pipe_file("/in/cube.glb", data)
    local, found = fetch_asset("memory://in/cube.glb", "", str(tmp_path))
    assert found.sha256 == sha256 and Path(local).read_bytes() == data
    assert fetch_asset("memory://in/cube.glb", sha256, str(tmp_path))[1].sha256 == sha256
    assert fetch_asset(str(tmp_path / "cube.glb"), sha256, str(tmp_path))[0] == str(tmp_path / "cube.glb")
    with pytest.raises(BadFile, match="instead of the promised") as caught:
        fetch_asset("memory://in/cube.glb", "b" * 64, str(tmp_path))
    assert caught.value.code == "bad_file:changed"
    with pytest.raises(BadFile) as caught:
        fetch_asset("memory://in/none.glb", "", str(tmp_path))
    assert caught.value.code == "bad_file:missing"


# Objaverse --------------------------------------------------------------------------------------------------

OBJECT = "objaverse://glbs/000-000/cube.glb"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no pauses between tries."""
    import objaverse

    monkeypatch.setattr(objaverse, "BASE_PATH", str(tmp_path / "cache"))
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(tmp_path / "cache" / "hf-objaverse-v1"))
    monkeypatch.setattr(objaverse_workers, "WAITS", (0.0, 0.0))
    return tmp_path / "cache"


def serve(monkeypatch: pytest.MonkeyPatch, answers: list[bytes | str]) -> list[str]:
    """Downloads give these contents, or fail for these reasons, one after the other; what was asked for."""
    asked: list[str] = []

    def download(name: str, target: str) -> str | None:
        asked.append(name)
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(answer)
        return None

    monkeypatch.setattr(objaverse_workers, "download", download)
    return asked


def test_a_download_is_tried_again_and_then_shared(
    cache: Path, make_cube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_cube(tmp_path / "cube.glb").read_bytes()
    asked = serve(monkeypatch, ["HTTP 503", "reset by peer", data])
    for _ in range(2):
        local, found = fetch_asset(OBJECT, "", str(tmp_path))
        assert found.sha256 == hashlib.sha256(data).hexdigest() and str(cache) in local
    assert asked == ["glbs/000-000/cube.glb"] * 3
    assert not list(cache.rglob("*.lock"))


@pytest.mark.parametrize(("answers", "tries"), [(["HTTP 404"], 1), (["HTTP 503"] * 3, 3)])
def test_what_cannot_be_had_is_no_verdict(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Any], tries: int
) -> None:
    asked = serve(monkeypatch, list(answers))
    with pytest.raises(NotFetched, match="HTTP") as caught:
        fetch_object(OBJECT)
    assert len(asked) == tries and caught.value.code == "download_failed"


def test_a_full_disk_is_the_runs_fault(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orbit4d.datasets.core.errors import StorageFault

    serve(monkeypatch, ["[Errno 28] No space left on device"])
    with pytest.raises(StorageFault, match="full"):
        fetch_object(OBJECT)


def test_a_damaged_cache_is_downloaded_again(
    cache: Path, make_cube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_cube(tmp_path / "cube.glb").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    asked = serve(monkeypatch, [data[:100], data, data])
    # The first is cut short and the second is not: the cache ends with what was promised.
    assert fetch_asset(OBJECT, sha256, str(tmp_path))[1].sha256 == sha256 and len(asked) == 2
    # Contents that are sound and not the promised ones are refused, after one look at the hub.
    with pytest.raises(BadFile, match="promised"):
        fetch_asset(OBJECT, "b" * 64, str(tmp_path))
    assert len(asked) == 3
    # What is not sound is refused too.
    serve(monkeypatch, [data[:100], data[:100]])
    with pytest.raises(BadFile):
        fetch_asset("objaverse://glbs/000-000/other.glb", "", str(tmp_path))


def test_a_table_of_another_machine_names_objects_by_uri(tmp_path: Path) -> None:
    inside = "/home/me/.objaverse/hf-objaverse-v1/glbs/000-023/abc.glb"
    assert portable(inside) == "objaverse://glbs/000-023/abc.glb"
    assert portable("/data/hf-objaverse-v1/readme.glb") == "/data/hf-objaverse-v1/readme.glb"
    (tmp_path / "table.csv").write_text(f"path,sha256\n{inside},{'a' * 64}\n")
    [asset] = resolve([str(tmp_path / "table.csv")], workers_fetch=True).assets
    assert (asset.path, asset.uid, asset.sha256) == ("objaverse://glbs/000-023/abc.glb", "abc", "a" * 64)


def test_a_table_of_a_cluster_serves_one_machine(
    cache: Path, make_cube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_cube(tmp_path / "cube.glb").read_bytes()
    (tmp_path / "table.csv").write_text(f"path\n{OBJECT}\nobjaverse://glbs/000-000/gone.glb\n")
    serve(monkeypatch, [data, "HTTP 404"])
    monkeypatch.setattr(resolving, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(1))
    found = resolve([str(tmp_path / "table.csv")])
    assert [(a.uid, a.sha256) for a in found.assets] == [("cube", hashlib.sha256(data).hexdigest())]
    assert [row[2] for row in found.rejected] == ["download_failed"]


# Objaverse-XL -----------------------------------------------------------------------------------------------


def test_objects_of_xl_travel_by_uri_and_repositories_are_cloned_once(
    cache: Path, make_cube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xl = pytest.importorskip("objaverse.xl")
    data = make_cube(tmp_path / "cube.glb").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    names = [f"https://github.com/o/r/blob/c0ffee/deep folder/{name}.glb" for name in "ab"]
    (tmp_path / "xl.csv").write_text(
        "fileIdentifier,source,sha256,license\n" + "".join(f"{n},github,{sha256},MIT\n" for n in names)
        + f"https://www.thingiverse.com/download:1,thingiverse,{'c' * 64},MIT\n"
    )  # fmt: skip
    found = resolve([f"objaverse-xl:{tmp_path}/xl.csv"], workers_fetch=True)
    [asset] = found.assets
    assert asset.path == xl_uri("github", names[0], sha256, "glb") and asset.license == "MIT"
    assert (asset.uid, asset.sha256, asset.source_url) == (sha256, sha256, names[0])
    assert len(found.duplicates) == 1
    cloned: list[str] = []

    def clone(frame: Any, **how: Any) -> dict[str, str]:
        [row] = frame.to_dict("records")
        cloned.append(row["fileIdentifier"])
        folder = Path(how["download_dir"]) / "github" / "repos" / "o" / "r" / "deep folder"
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / f"{name}.glb").write_bytes(data)
        return {row["fileIdentifier"]: str(folder / f"{row['fileIdentifier'][-5]}.glb")}

    monkeypatch.setattr(xl, "download_objects", clone)
    for name in names:
        local, inspected = fetch_asset(xl_uri("github", name, sha256, "glb"), sha256, str(tmp_path))
        assert inspected.sha256 == sha256 and local.endswith(name[-5:])
    assert cloned == names[:1]
    # On one machine too, a repository that was cloned before is found again.
    assert resolve([f"objaverse-xl:{tmp_path}/xl.csv?limit=2"]).n_inputs == 2 and cloned == names[:1]


def test_an_xl_object_that_its_publisher_removed_is_asked_for_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xl = pytest.importorskip("objaverse.xl")
    asked: list[int] = []
    monkeypatch.setattr(xl, "download_objects", lambda frame, **how: asked.append(len(frame)) or {})
    with pytest.raises(NotFetched, match="no more"):
        fetch_object(xl_uri("smithsonian", "https://3d.si.edu/x.glb", "d" * 64, "glb"))
    assert asked == [1]
