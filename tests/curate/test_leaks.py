"""Leak guard: objects of published benchmarks are marked, and kept out of training, whatever their names."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from orbit4d.curate import columns
from orbit4d.curate.leaks import HASHES, UNHASHED, counted, mark_benchmarks
from orbit4d.curate.rule_settings import PRESETS, Rules
from orbit4d.curate.rules import decide, meaning_of
from orbit4d.datasets import Clip, DatasetWriter, InputError, export_dataset, resolve, statistics, verify
from orbit4d.datasets.sources.asset_keys import key_of
from orbit4d.datasets.sources.benchmarks import SHIPPED, load_benchmarks
from orbit4d.datasets.sources.tables import expand_table
from orbit4d.datasets.store.schema import split_of

with SHIPPED.open(encoding="utf-8") as _file:
    LISTED = list(csv.DictReader(_file))
ONE = LISTED[0]["key"]
OTHER = "0123456789abcdef0123456789abcdef"
SHA = "a" * 64


def table(*rows: dict):
    base = {"action": "Run", "action_index": 0, "status": "measured", "motion_geometry": 0.3,
            "window_start": 0.0, "window_end": 1.0, "attempts": 1}  # fmt: skip
    return columns.build([{**base, "asset_sha256": "", **row} for row in rows], {})


def verdicts(marked, rules: Rules = PRESETS["default"]) -> list[tuple[str, list[str]]]:
    rows = decide(marked, rules).to_pylist()
    return [(row["verdict"], row["reasons"]) for row in rows]


def test_the_shipped_lists_are_the_published_ones(shared):
    assert SHIPPED.read_bytes() == (shared / "fixtures/benchmarks/benchmark_objects.csv").read_bytes()


def test_the_shipped_lists_hold_what_they_say():
    names = [row["benchmark"] for row in LISTED]
    assert {name: names.count(name) for name in names} == {
        "objaversedy": 20,
        "motion80": 80,
        "actionbench": 1,
    }
    assert len({row["key"] for row in LISTED}) == len(LISTED)
    assert len(load_benchmarks().uids) == 101


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"  {ONE.upper()} ", ("uid", ONE)),
        (f"000-048_{ONE}", ("uid", ONE)),
        (f"https://sketchfab.com/3d-models/{ONE}", ("uid", ONE)),
        (f"https://sketchfab.com/3d-models/a-red-fox-{ONE}", ("uid", ONE)),
        (f"{ONE}-deadbeef", ("uid", ONE)),
        (SHA.upper(), ("sha256", SHA)),
        ("my fox", ("name", "my_fox")),
        (ONE[:31], ("name", ONE[:31])),
        (f"x{ONE}", ("name", f"x{ONE}")),
    ],
)
def test_keys_in_every_spelling(text, key):
    assert key_of(text) == key


def test_a_listed_uid_is_marked_and_rejected_by_every_preset():
    marked = mark_benchmarks(table({"uid": ONE}, {"uid": OTHER}))
    assert marked["benchmarks"].to_pylist() == [["objaversedy"], []]
    for rules in PRESETS.values():
        loose = replace(rules, max_ssim=None, min_ssim=None)
        assert verdicts(marked, loose) == [("rejected", ["benchmark:objaversedy"]), ("accepted", [])]
    assert counted(marked) == {"objaversedy": 1}
    assert "objaversedy" in meaning_of("benchmark:objaversedy")


def test_a_renamed_copy_is_caught_by_its_contents_in_this_run_and_a_later_one():
    first = mark_benchmarks(table({"uid": "copy", "asset_sha256": SHA}, {"uid": ONE, "asset_sha256": SHA}))
    assert first["benchmarks"].to_pylist() == [["objaversedy"]] * 2
    assert columns.info_of(first)[HASHES] == {SHA: ["objaversedy"]}
    assert columns.info_of(first)[UNHASHED] == [100, 101]
    later = load_benchmarks().knowing(columns.info_of(first)[HASHES])
    assert mark_benchmarks(table({"uid": "copy", "asset_sha256": SHA}), later)["benchmarks"].to_pylist() == [
        ["objaversedy"]
    ]
    # Without a source of hashes nobody can know it.
    assert mark_benchmarks(table({"uid": "copy", "asset_sha256": SHA}))["benchmarks"].to_pylist() == [[]]


def test_an_exact_duplicate_shares_the_mark_whichever_name_comes_first(tmp_path, make_cube):
    make_cube(tmp_path / "a_copy.glb")
    (tmp_path / f"{ONE}.glb").write_bytes((tmp_path / "a_copy.glb").read_bytes())
    # Natural order puts digits first; the copy is named first here.
    found = resolve([str(tmp_path / "a_copy.glb"), str(tmp_path / f"{ONE}.glb")])
    assert [asset.uid for asset in found.assets] == ["a_copy"] and len(found.duplicates) == 1
    rows = table({"uid": "a_copy", "asset_sha256": found.assets[0].sha256})
    assert mark_benchmarks(rows, None, found.duplicates)["benchmarks"].to_pylist() == [["objaversedy"]]


def test_an_address_and_a_table_of_hashes_know_renamed_objects(tmp_path):
    page = f"https://sketchfab.com/3d-models/fox-{ONE}"
    assert mark_benchmarks(table({"uid": "fox", "source_url": page}))["benchmarks"].to_pylist() == [
        ["objaversedy"]
    ]
    hashes = tmp_path / "sketchfab.csv"
    hashes.write_text(f"fileIdentifier,sha256\n{page},{SHA}\nhttps://x/y,{'b' * 64}\n")
    known = load_benchmarks(hashes=str(hashes))
    rows = table({"uid": "fox", "asset_sha256": SHA}, {"uid": "owl", "asset_sha256": "b" * 64})
    marked = mark_benchmarks(rows, known)
    assert marked["benchmarks"].to_pylist() == [["objaversedy"], []]
    assert columns.info_of(marked)[UNHASHED] == [100, 101]


def test_lists_of_ones_own(tmp_path):
    plain = tmp_path / "gvfd-test.txt"
    plain.write_text(f"# ours\n{SHA.upper()}\nred fox\n")
    listed = tmp_path / "more.csv"
    listed.write_text(f"benchmark,subset,key,kind\nmine,,000-001_{OTHER},uid\n")
    known = load_benchmarks([str(plain), str(listed)])
    rows = table({"uid": "a", "asset_sha256": SHA}, {"uid": OTHER}, {"uid": "red_fox"}, {"uid": "b"})
    assert mark_benchmarks(rows, known)["benchmarks"].to_pylist() == [
        ["gvfd-test"], ["mine"], ["gvfd-test"], []
    ]  # fmt: skip
    listed.write_text("name,uid\na,b\n")
    with pytest.raises(InputError, match="columns benchmark and key; it has name, uid"):
        load_benchmarks([str(listed)])
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        load_benchmarks(["none.txt"])
    with pytest.raises(InputError, match=r"more\.csv: a table of hashes"):
        load_benchmarks(hashes=str(listed))


def test_kept_for_testing_they_stand_in_the_split_test_alone(tmp_path, make_clips, make_cube):
    marked = mark_benchmarks(
        table({"uid": ONE, "path": f"{ONE}.glb"}, {"uid": OTHER, "path": f"{OTHER}.glb"})
    )
    assert [v for v, _ in verdicts(marked, Rules(benchmarks="keep"))] == ["accepted"] * 2
    kept = decide(marked, Rules(benchmarks="test"))
    assert kept["verdict"].to_pylist() == ["accepted"] * 2
    assert kept["split"].to_pylist() == ["test", None]
    # Decided again by other rules it is dropped again: marks stay, the split does not.
    again = decide(kept, Rules())
    assert again["verdict"].to_pylist() == ["rejected", "accepted"] and again["split"].null_count == 2
    path = tmp_path / "table.csv"
    path.write_text(f"uid,path,split\n{ONE},{ONE}.glb,test\n{OTHER},{OTHER}.glb,\n")
    for uid in (ONE, OTHER):
        make_cube(tmp_path / f"{uid}.glb", {uid: [(0, 0, 0), (0, 0, 1)]})
    assert [asset.split for asset in resolve([str(path)]).assets] == ["test", ""]
    path.write_text(f"uid,path,split\n{ONE},{ONE}.glb,tset\n")
    with pytest.raises(InputError, match="split 'tset'"):
        expand_table(str(path))

    def clips(uid: str, split: str) -> list[Clip]:
        return [replace(clip, split=split) for clip in make_clips(uid, n_frames=2, size=8)]

    writer = DatasetWriter(tmp_path / "d", {})
    for uid, split in ((ONE, "test"), ("fox", "validation")):
        writer.stage(uid, clips(uid, split))
    writer.roll(final=True)
    numbers = statistics(str(tmp_path / "d"))
    assert numbers["splits"] == {"train": 0, "validation": 1, "test": 1}
    assert (numbers["benchmarks"], numbers["benchmarks_in_train"]) == ({"objaversedy": 1}, {})
    export_dataset(str(tmp_path / "d"), str(tmp_path / "card"), "hf-card")
    assert "1 of objaversedy (0 in train)" in (tmp_path / "card/README.md").read_text()


@pytest.mark.parametrize("copied", [False, True])
def test_a_rendered_dataset_is_split_again_by_its_table(tmp_path, make_clips, copied):
    """What was rendered before the list was known: `curate DATASET --benchmarks test`, then `select`."""
    from orbit4d.curate.rendered import measure_rendered
    from orbit4d.curate.tables import write_table
    from orbit4d.datasets.operations.select import select_copy, select_view

    train = next(row["key"] for row in LISTED if split_of(row["key"]) == "train")
    writer = DatasetWriter(tmp_path / "d", {})
    for uid in (train, "fox"):
        writer.stage(uid, make_clips(uid, n_frames=2, size=16))
    writer.roll(final=True)
    loose = Rules(benchmarks="test", max_touch=None, min_coverage=None, still="keep", min_motion=None)
    write_table(decide(measure_rendered(str(tmp_path / "d")), loose), str(tmp_path / "t.parquet"))
    select = select_copy if copied else select_view
    assert select(str(tmp_path / "d"), str(tmp_path / "e"), table=str(tmp_path / "t.parquet")) == 6
    numbers = statistics(str(tmp_path / "e"))
    assert statistics(str(tmp_path / "d"))["benchmarks_in_train"] and not numbers["benchmarks_in_train"]
    assert verify(str(tmp_path / "e")).findings == []
    for split, count in (("test", 3), ("train", 3 if split_of("fox") == "train" else 0)):
        if count:
            out = str(tmp_path / split)
            assert select(str(tmp_path / "d"), out, split=split, table=str(tmp_path / "t.parquet")) == count


def test_the_report_says_what_was_found_and_what_cannot_be(tmp_path):
    from orbit4d.curate.report.page import write_report

    decided = decide(mark_benchmarks(table({"uid": ONE, "asset_sha256": SHA}, {"uid": "fox"})), Rules())
    write_report(decided, tmp_path, Rules())
    page = (tmp_path / "index.html").read_text()
    assert "Objects of published benchmarks: objaversedy 1." in page
    assert "Renamed copies of 100 of 101 listed uids" in page
    assert "benchmark:objaversedy" in page and "not to be trained on" in page


def test_marks_survive_a_table_on_disk(tmp_path):
    from orbit4d.curate.tables import read_table, write_table

    path = str(tmp_path / "t.parquet")
    write_table(decide(mark_benchmarks(table({"uid": ONE})), Rules()), path)
    assert read_table(path)["benchmarks"].to_pylist() == [["objaversedy"]]
    # A table of an earlier version has no such columns, and is marked when it is read.
    import pyarrow.parquet as pq

    old = pq.read_table(path).drop_columns(["benchmarks", "split"])
    pq.write_table(old, path)
    assert mark_benchmarks(read_table(path))["benchmarks"].to_pylist() == [["objaversedy"]]
