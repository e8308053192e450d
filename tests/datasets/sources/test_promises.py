"""Hashes of cached objects: only a sound file promises anything, a broken one takes its promise back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orbit4d.curate.cli import command
from orbit4d.datasets import WorkError
from orbit4d.datasets.sources.objaverse import expanding as objaverse_source
from orbit4d.datasets.sources.promises import first_seen_sha256, forget_promise, note_of
from orbit4d.datasets.sources.resolve import resolve

UID = "5c" * 16


@pytest.fixture
def cache(tmp_path, monkeypatch, make_cube):
    """(object's place, its whole bytes, list of ids): a cache with one annotated object, and no network."""
    import objaverse

    root = tmp_path / "hf-objaverse-v1"
    monkeypatch.setattr(objaverse, "BASE_PATH", str(tmp_path))
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(root))
    monkeypatch.setattr(objaverse_source, "_download", lambda name, target: "no route to host")
    (root / "metadata").mkdir(parents=True)
    (root / "glbs/000-011").mkdir(parents=True)
    place = root / f"glbs/000-011/{UID}.glb"
    (root / "object-paths.json.gz").write_bytes(
        gzip.compress(json.dumps({UID: f"glbs/000-011/{UID}.glb"}).encode())
    )
    annotation = {"animationCount": 2, "license": "by-sa", "user": {"username": "maker"}}
    (root / "metadata/000-011.json.gz").write_bytes(gzip.compress(json.dumps({UID: annotation}).encode()))
    make_cube(place, {"hop": [(0, 0, 0), (0.3, 0.1, 0.5), (0, 0, 0)]})
    (tmp_path / "ids.txt").write_text(f"{UID}\n")
    return place, place.read_bytes(), tmp_path / "ids.txt"


def kept_or_why(ids: Path) -> list[str]:
    result = resolve([str(ids)])
    return [asset.uid for asset in result.assets] + [row[2] for row in result.rejected]


@pytest.mark.parametrize("share", [0.9, 0.3, 0.0])
def test_a_cut_file_does_not_stand_in_the_way_of_the_whole_one(cache, share):
    place, whole, ids = cache
    place.write_bytes(whole[: int(len(whole) * share)])
    kept_or_why(ids)
    place.write_bytes(whole)
    assert kept_or_why(ids) == [UID]
    assert Path(note_of(str(place))).exists()


def test_a_sound_file_is_held_to_its_hash_and_the_message_names_the_note(cache, make_cube):
    place, _, ids = cache
    assert kept_or_why(ids) == [UID]
    make_cube(place, {"turn": [(0, 0, 0), (1, 0, 0)]})
    [row] = resolve([str(ids)]).rejected
    assert row[2] == "bad_file:changed" and note_of(str(place)) in row[3]


@pytest.mark.blender
def test_what_curate_refuses_takes_its_hash_back(cache, tmp_path, pack_glb, shared_ray):
    """A file that passes the first look and that Blender refuses, then the right one in its place."""
    place, whole, ids = cache
    place.write_bytes(pack_glb({"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], "scene": 0}))
    assert first_seen_sha256(str(place)), "nothing is wrong with it before Blender looks for a surface"
    table = tmp_path / "a.parquet"
    CliRunner().invoke(command, [str(ids), "--out", str(table), "--previews", "none", "--workers", "1"])
    assert pq.read_table(table)["status"].to_pylist() != ["measured"]
    assert not Path(note_of(str(place))).exists()
    place.write_bytes(whole)
    assert kept_or_why(ids) == [UID]


def test_notes_are_read_with_care(cache):
    place, _, _ = cache
    sha = first_seen_sha256(str(place))
    Path(note_of(str(place))).write_bytes(b"\xff\xfe not a hash")
    assert first_seen_sha256(str(place)) == sha == Path(note_of(str(place))).read_text()
    forget_promise(str(place), "0" * 64)
    assert Path(note_of(str(place))).exists(), "the note is of other contents"
    forget_promise(str(place), sha)
    assert not Path(note_of(str(place))).exists()


def test_a_checksum_file_of_the_user_s_own_is_never_removed(tmp_path):
    (tmp_path / "mine.glb.sha256").write_text("1" * 64)
    forget_promise(str(tmp_path / "mine.glb"), "1" * 64)
    assert (tmp_path / "mine.glb.sha256").exists()


@pytest.mark.parametrize("name", ["object-paths.json.gz", "metadata/000-011.json.gz"])
def test_any_damage_of_the_cache_names_the_file(cache, name):
    """Cut short, one bit flipped, other contents: never a traceback, never the wrong reason."""
    place, _, ids = cache
    path = place.parents[2] / name
    content = path.read_bytes()
    worse = [content[:n] for n in range(0, len(content), 7)]
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        worse.append(bytes(flipped))
    worse += [gzip.compress(text) for text in (b"[]", b"{", b'{"a": 3}', b"\xff", b"[" * 100_000)]
    good = kept_or_why(ids)
    for bad in worse:
        path.write_bytes(bad)
        try:
            # Bits of the header that say when and on what system it was packed change nothing.
            assert kept_or_why(ids) == good
        except WorkError as error:
            assert name in str(error) and "delete it" in str(error)
