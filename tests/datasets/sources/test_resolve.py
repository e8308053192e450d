"""Sources become assets: every input is counted once, uids are stable, bad requests get one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import urllib.error
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import localize
from orbit4d.datasets.sources import expand
from orbit4d.datasets.sources.asset import Candidate, Expanded, clean_uid
from orbit4d.datasets.sources.objaverse import expanding as objaverse_source
from orbit4d.datasets.sources.resolve import resolve


def uids(*names, **options) -> list[str]:
    return [asset.uid for asset in resolve([str(name) for name in names], **options).assets]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a b.glb").write_bytes(b"one")
    (tmp_path / "in" / "deep" / "C.FBX").write_bytes(b"two")
    (tmp_path / "in" / ".hidden.glb").write_bytes(b"three")
    (tmp_path / "in" / "readme.md").write_text("x")
    return tmp_path / "in"


def test_a_folder_is_walked_and_names_become_uids(folder):
    assert uids(folder) == ["a_b", "C"]
    assert [asset.format for asset in resolve([str(folder)]).assets] == ["glb", "fbx"]


def test_a_glob_a_file_and_a_list_name_the_same(folder):
    assert uids(folder / "**" / "*.[gF][lB]*") == ["a_b", "C"]
    assert uids(folder / "a b.glb") == ["a_b"]
    (folder / "list.txt").write_text("# two\na b.glb\n\ndeep/C.FBX  # the other\n")
    assert uids(folder / "list.txt") == ["a_b", "C"]


def test_same_stem_with_other_contents_gets_the_hash_and_same_contents_are_one(folder):
    (folder / "deep" / "a_b.glb").write_bytes(b"other")
    (folder / "deep" / "copy.glb").write_bytes(b"one")
    result = resolve([str(folder)])
    names = [asset.uid for asset in result.assets]
    assert len(names) == 3 and "C" in names
    for asset in result.assets:
        if asset.uid != "C":
            assert asset.uid == f"a_b-{asset.sha256[:8]}"
    [(path, original)] = result.duplicates
    assert path.endswith("copy.glb") and original in names
    assert result.n_inputs == 4


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(
        st.tuples(
            st.text("ab .é-/_", min_size=1, max_size=4).map(lambda s: s.replace("/", "_")), st.integers(0, 2)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_every_input_is_counted_and_uids_are_unique_and_clean(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("counted")
    for i, (stem, content) in enumerate(files):
        (folder / str(i)).mkdir()
        (folder / str(i) / f"x{stem}.glb").write_bytes(bytes([content]))
    result = resolve([str(folder)])
    names = [asset.uid for asset in result.assets]
    assert result.n_inputs == len(files)
    assert len(set(names)) == len(names) == len({content for _, content in files})
    assert all(clean_uid(name) == name for name in names)
    assert names == uids(folder)


def test_a_gltf_is_hashed_with_its_companions(cube_document, tmp_path):
    doc, binary = cube_document()
    doc["buffers"][0]["uri"] = "own.bin"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scene.gltf").write_text(json.dumps(doc))
        (tmp_path / name / "own.bin").write_bytes(binary if name == "one" else binary[::-1])
    result = resolve([str(tmp_path)])
    assert len(result.assets) == 2 and not result.duplicates
    assert result.assets[0].bytes > len(binary)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere", "no such file or folder"),
        ("empty", "the folder is empty"),
        ("texts", "no supported file"),
        ("texts/*.glb", "matches no supported file"),
        ("texts/a.md", "not a supported asset"),
        ("blank.txt", "no entries"),
        ("odd.txt", "neither an id nor"),
        ("odd.csv", "column `path`"),
        ("fake.parquet", "cannot be read as a table"),
        ("moon:shot", "unknown kind of source"),
        ("objaverse:everything", "unknown Objaverse set"),
        ("objaverse:animated?limit=0", "limit must be"),
        ("objaverse:animated?count=3", "unknown setting"),
    ],
)
def test_bad_requests_get_one_line(tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_text("x")
    (tmp_path / "blank.txt").write_text("# nothing\n\n")
    (tmp_path / "odd.txt").write_text("what is this?\n")
    (tmp_path / "odd.csv").write_text("name,size\na,1\n")
    (tmp_path / "fake.parquet").write_text("not a table")
    with pytest.raises(InputError) as caught:
        resolve([source])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_curated_table_gives_its_accepted_actions(folder):
    path, sha = str(folder / "a b.glb"), resolve([str(folder / "a b.glb")]).assets[0].sha256
    rows = [
        {"uid": "mine", "path": path, "asset_sha256": sha, "action": f"n{i}", "action_index": i, "verdict": v}
        for i, v in enumerate(["rejected", "accepted", "accepted"])
    ]
    rows.append({**rows[0], "uid": "other", "path": str(folder / "deep" / "C.FBX"), "verdict": "failed"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")
    [asset] = resolve([str(folder / "table.parquet")]).assets
    assert (asset.uid, asset.actions) == ("mine", (1, 2))
    (folder / "a b.glb").write_bytes(b"changed since")
    result = resolve([str(folder / "table.parquet")])
    assert [row[2] for row in result.rejected] == ["bad_file:changed"]
    (folder / "a b.glb").unlink()
    assert [row[2] for row in resolve([str(folder / "table.parquet")]).rejected] == ["bad_file:missing"]


def test_an_unreadable_file_is_rejected_and_not_the_end(folder):
    (folder / "broken.glb").symlink_to(folder / "gone")
    result = resolve([str(folder)])
    assert [(row[0], row[2]) for row in result.rejected] == [("broken", "bad_file:missing")]
    assert result.n_inputs == 3


@pytest.mark.parametrize("text", ["uid,caption,licence\na_b,a thing,CC0-1.0\n", "a_b,a thing\n"])
def test_captions_join_by_uid(folder, text):
    (folder / "captions.csv").write_text(text)
    result = resolve([str(folder / "a b.glb"), str(folder / "deep")], str(folder / "captions.csv"))
    assert [asset.caption for asset in result.assets] == ["a thing", ""]
    assert result.assets[0].license == ("CC0-1.0" if "licence" in text else "")
    assert "1 of 2" in result.notes[0]


def test_captions_join_by_hash(folder):
    sha = resolve([str(folder / "a b.glb")]).assets[0].sha256
    (folder / "captions.csv").write_text(f"uid,caption\n{sha},by hash\n")
    assert resolve([str(folder)], str(folder / "captions.csv")).assets[0].caption == "by hash"


def test_a_registered_scheme_is_served(folder, monkeypatch):
    monkeypatch.setattr(expand, "_SCHEMES", {})
    expand.register_scheme("demo", lambda source: Expanded([Candidate("made", str(folder / "a b.glb"))]))
    assert uids("demo:") == ["made"]


def test_files_behind_a_uri_are_resolved_and_fetched(tmp_path):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/x/one.glb", b"one")
    fs.pipe_file("/bucket/x/two.txt", b"two")
    [asset] = resolve(["memory://bucket/x"]).assets
    assert (asset.uid, asset.bytes) == ("one", 3)
    copy = localize(asset.path, tmp_path)
    assert Path(copy).read_bytes() == b"one" and copy.endswith(".glb")
    with pytest.raises(InputError):
        resolve(["memory://bucket/none"])


@pytest.fixture
def objaverse_cache(tmp_path, monkeypatch, make_cube):
    """A cache with three objects, two animated, one of those not downloaded; and no network."""
    import objaverse

    root = tmp_path / "hf-objaverse-v1"
    monkeypatch.setattr(objaverse, "BASE_PATH", str(tmp_path))
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(root))

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlretrieve", offline)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    ids = {name: f"{name}" * 32 for name in "abc"}
    (root / "metadata").mkdir(parents=True)
    (root / "glbs" / "000-000").mkdir(parents=True)
    paths = {uid: f"glbs/000-000/{uid}.glb" for uid in ids.values()}
    with gzip.open(root / "object-paths.json.gz", "wt") as file:
        json.dump(paths, file)
    annotations = {
        uid: {
            "animationCount": int(name != "a"),
            "license": "by",
            "user": {"displayName": "Somebody"},
            "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
        }
        for name, uid in ids.items()
    }
    with gzip.open(root / "metadata" / "000-000.json.gz", "wt") as file:
        json.dump(annotations, file)
    make_cube(root / paths[ids["b"]])
    return root, ids, paths


def test_objaverse_works_from_its_cache_offline(objaverse_cache):
    _, ids, _ = objaverse_cache
    result = resolve(["objaverse:animated"])
    [asset] = result.assets
    assert (asset.uid, asset.license, asset.author) == (ids["b"], "CC-BY-4.0", "Somebody")
    assert asset.source_url.endswith(ids["b"])
    assert [(row[0], row[2]) for row in result.rejected] == [(ids["c"], "download_failed")]
    assert result.notes and "1 of 2" in result.notes[0]
    assert len(resolve(["objaverse:animated?limit=1"]).assets) == 1


def test_objaverse_offline_without_a_cache_says_so_in_one_line(objaverse_cache):
    root, ids, paths = objaverse_cache
    os.unlink(root / paths[ids["b"]])
    with pytest.raises(InputError, match="cannot be downloaded"):
        resolve(["objaverse:animated"])
    os.unlink(root / "object-paths.json.gz")
    with pytest.raises(InputError, match="not in the cache") as caught:
        resolve(["objaverse:animated"])
    assert "\n" not in str(caught.value)


def test_an_id_list_names_unknown_ids(objaverse_cache, tmp_path):
    _, ids, _ = objaverse_cache
    (tmp_path / "ids.txt").write_text(f"{ids['b']}\n{'f' * 32}\n")
    result = resolve([str(tmp_path / "ids.txt")])
    assert [asset.uid for asset in result.assets] == [ids["b"]]
    assert [row[2] for row in result.rejected] == ["unknown_id"]


def test_a_cached_object_that_changed_is_refused(objaverse_cache):
    root, ids, paths = objaverse_cache
    resolve(["objaverse:animated"])
    (root / paths[ids["b"]]).write_bytes(b"tampered")
    assert "bad_file:changed" in [row[2] for row in resolve(["objaverse:animated"]).rejected]


class _Reply:
    def __init__(self, data: bytes, status: int, announced: int | None = None) -> None:
        self.data, self.status = data, status
        self.headers = {"Content-Length": str(len(data) if announced is None else announced)}

    def read(self, size: int) -> bytes:
        head, self.data = self.data[:size], self.data[size:]
        return head

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        return None


def test_a_download_resumes_and_a_short_one_is_no_object(objaverse_cache, monkeypatch):
    root, ids, paths = objaverse_cache
    target = root / paths[ids["c"]]
    asked = []

    def cut_short(request, timeout):
        asked.append(request.get_header("Range"))
        return _Reply(b"animated", 200, announced=16)

    monkeypatch.setattr("urllib.request.urlopen", cut_short)
    assert "8 of 16 bytes" in (objaverse_source._download(paths[ids["c"]], str(target)) or "")
    assert not target.exists()

    def rest(request, timeout):
        asked.append(request.get_header("Range"))
        return _Reply(b" object!", 206)

    monkeypatch.setattr("urllib.request.urlopen", rest)
    assert objaverse_source._download(paths[ids["c"]], str(target)) is None
    assert target.read_bytes() == b"animated object!"
    assert asked == [None, "bytes=8-"]


def test_objaverse_xl_annotations_are_a_source(tmp_path, monkeypatch):
    xl = pytest.importorskip("objaverse.xl")
    (tmp_path / "a.glb").write_bytes(b"one")
    sha = hashlib.sha256(b"one").hexdigest()
    rows = [
        {"fileIdentifier": "https://github.com/o/r/blob/c/a.glb", "sha256": sha, "fileType": "glb"},
        {"fileIdentifier": "https://github.com/o/r/blob/c/b.glb", "sha256": "b" * 64, "fileType": "glb"},
        {"fileIdentifier": "https://github.com/o/r/blob/c/c.dwg", "sha256": "c" * 64, "fileType": "dwg"},
    ]
    table = pa.Table.from_pylist([{**row, "source": "github", "license": "MIT License"} for row in rows])
    pq.write_table(table, tmp_path / "annotations.parquet")
    monkeypatch.setattr(
        xl,
        "download_objects",
        lambda frame, **kwargs: {frame.fileIdentifier.iloc[0]: str(tmp_path / "a.glb")},
    )
    result = resolve([str(tmp_path / "annotations.parquet")])
    [asset] = result.assets
    assert (asset.uid, asset.license) == (sha, "MIT License") and asset.source_url.endswith("a.glb")
    assert [(row[0], row[2]) for row in result.rejected] == [("b" * 64, "download_failed")]
    assert resolve([f"objaverse-xl:{tmp_path}/annotations.parquet?limit=1"]).n_inputs == 1

    def offline(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(xl, "download_objects", offline)
    with pytest.raises(InputError, match="cannot be reached") as caught:
        resolve([str(tmp_path / "annotations.parquet")])
    assert "\n" not in str(caught.value)
