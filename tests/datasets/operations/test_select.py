"""select, merge and stats: views, copies, duplicates, and counts that add up."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from orbit4d.datasets import DatasetWriter, Index, InputError, OrbitDataset, Rejection, read_clip
from orbit4d.datasets.cli import merge as merge_command
from orbit4d.datasets.cli import select as select_command
from orbit4d.datasets.cli import stats as stats_command
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.operations.select import merge, select_copy, select_view
from orbit4d.datasets.operations.verify import verify

WHERE = "license = 'CC0-1.0' and rig <> 'static_orbit'"


def test_a_view_and_a_copy_hold_the_same_clips(synthetic_dataset, tmp_path):
    view, copy = str(tmp_path / "view"), str(tmp_path / "copy")
    assert (
        select_view(str(synthetic_dataset), view, WHERE)
        == select_copy(str(synthetic_dataset), copy, WHERE)
        == 8
    )
    assert verify(view).findings == verify(copy).findings == []
    assert verify(view).digest == verify(copy).digest
    assert not (tmp_path / "view/shards").exists()
    a, b = OrbitDataset(view), OrbitDataset(copy)
    assert [a[i]["uid"] for i in range(len(a))] == [b[i]["uid"] for i in range(len(b))]
    assert all((a[i]["front"] == b[i]["front"]).all() and "static" not in a[i] for i in range(len(a)))
    assert read_clip(view, "asset-002", "Jump", "front_view") == read_clip(
        copy, "asset-002", "Jump", "front_view"
    )


def test_a_view_of_a_view_points_to_the_shards_themselves(synthetic_dataset, tmp_path):
    select_view(str(synthetic_dataset), str(tmp_path / "a"), WHERE)
    select_view(str(tmp_path / "a"), str(tmp_path / "b"), "uid = 'asset-002'")
    assert Index(tmp_path / "b").manifest.shards_at == str(synthetic_dataset)
    assert read_clip(tmp_path / "b", "asset-002", "Run", "front_view").frames
    with pytest.raises(InputError, match="a view"):
        DatasetWriter(tmp_path / "b", {"frames": 8})


def test_selecting_nothing_or_onto_something_writes_nothing(synthetic_dataset, tmp_path):
    for how in ([], ["--copy"]):
        words = [str(synthetic_dataset), "--where", "uid = 'x'", "--out", str(tmp_path / "n"), *how]
        assert run(select_command, words) == 2
        assert not (tmp_path / "n").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(InputError, match="exists already"):
        select_view(str(synthetic_dataset), str(tmp_path / "full"))
    assert run(select_command, [str(tmp_path / "nowhere"), "--out", str(tmp_path / "n")]) == 2


def test_splits_select_to_disjoint_parts(synthetic_dataset, tmp_path):
    total = 0
    for split in ("train", "validation", "test"):
        try:
            total += select_view(str(synthetic_dataset), str(tmp_path / split), split=split)
        except InputError as error:
            assert "no clip matches" in str(error)
    assert total == len(Index(synthetic_dataset))


def test_merging_parts_gives_the_whole_again_and_names_duplicates(synthetic_dataset, tmp_path):
    source = str(synthetic_dataset)
    parts = [str(tmp_path / name) for name in "abc"]
    select_copy(source, parts[0], "uid <= 'asset-002'")
    select_copy(source, parts[1], "uid >= 'asset-002' and rig <> 'static_orbit'")
    select_view(source, parts[2], "uid >= 'asset-003' and rig = 'static_orbit'")
    merged = merge(parts, str(tmp_path / "m"))
    assert merged.clips == len(Index(source))
    # asset-002 has two actions; b repeats their moving orbits and front views.
    assert {key for key, _ in merged.duplicates} == {
        ("asset-002", a, rig, 0) for a in (0, 1) for rig in ("dynamic_orbit", "front_view")
    }
    assert {uri for _, uri in merged.duplicates} == {parts[1]}
    assert verify(str(tmp_path / "m")).findings == []
    assert verify(str(tmp_path / "m")).digest == verify(source).digest
    # The same command again continues from what is there.
    merge(parts, str(tmp_path / "m"))
    assert verify(str(tmp_path / "m")).digest == verify(source).digest


def test_datasets_of_other_configurations_merge_only_by_force(tmp_path, make_clips):
    for name, frames in (("a", 2), ("b", 3)):
        writer = DatasetWriter(tmp_path / name, {"frames": frames})
        writer.stage(name, make_clips(name, n_frames=frames, size=8))
        writer.reject([Rejection("lost", "", "curate", "bad_file:truncated")])
        writer.roll(final=True)
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "m")]
    result = CliRunner().invoke(merge_command, words)
    assert isinstance(result.exception, InputError) and "(frames)" in str(result.exception)
    assert not (tmp_path / "m").exists()
    result = CliRunner().invoke(merge_command, [*words, "--force"])
    assert result.exit_code == 0, result.output
    seen = verify(str(tmp_path / "m"))
    assert (seen.findings, seen.clips, seen.rejected) == ([], 6, 1)


def test_stats_add_up(synthetic_dataset):
    result = CliRunner().invoke(stats_command, [str(synthetic_dataset), "--json"])
    numbers = json.loads(result.output)
    seen = verify(str(synthetic_dataset))
    assert (
        numbers["assets"]
        == seen.assets
        == sum(numbers["splits"].values())
        == sum(numbers["licences"].values())
    )
    assert numbers["clips"] == seen.clips == sum(numbers["rigs"].values()) == sum(numbers["sizes"].values())
    assert (numbers["actions"], numbers["frames"], numbers["bytes"]) == (8, 8 * 24, seen.bytes)
    assert numbers["licences"] == {"CC-BY-4.0": 3, "CC0-1.0": 3}
    motion = numbers["motion_magnitude"]
    assert list(motion.values()) == sorted(motion.values())
    data = OrbitDataset(synthetic_dataset)
    values = [data[i]["motion_magnitude"].item() for i in range(len(data))]
    assert motion["q0"] == pytest.approx(min(values)) and motion["q1"] == pytest.approx(max(values))
    table = CliRunner().invoke(stats_command, [str(synthetic_dataset)]).output
    assert "CC-BY-4.0" in table and "dynamic_orbit" in table


def test_stats_of_an_empty_dataset(tmp_path):
    DatasetWriter(tmp_path / "d", {})
    numbers = json.loads(CliRunner().invoke(stats_command, [str(tmp_path / "d"), "--json"]).output)
    assert (numbers["clips"], numbers["motion_magnitude"]) == (0, {})
    assert verify(str(tmp_path / "d")).ok
    assert len(OrbitDataset(tmp_path / "d")) == 0


def test_accepted_actions_that_the_dataset_lacks_are_named(synthetic_dataset, tmp_path):
    rows = [("asset-001", 0), ("asset-002", 1), ("asset-002", 7), ("walrus", 0)]
    table = tmp_path / "table.csv"
    table.write_text("\ufeffuid,action_index,verdict\n" + "".join(f"{u},{i},accepted\n" for u, i in rows))
    result = CliRunner().invoke(
        select_command, [str(synthetic_dataset), "--table", str(table), "--out", str(tmp_path / "view")]
    )
    assert result.exit_code == 0 and "6 clips" in result.output
    assert "2 of 4 accepted actions are not in the dataset (asset-002 7, walrus 0)" in result.output
    table.write_text("uid,action_index,verdict\nwalrus,3,accepted\n")
    with pytest.raises(InputError, match=r"1 of 1 accepted actions are not in the dataset \(walrus 3\)"):
        select_view(str(synthetic_dataset), str(tmp_path / "none"), table=str(table), notes=[])
    table.write_text("uid,action_index,verdict\nasset-001,,accepted\n")
    with pytest.raises(InputError, match="no uid or action_index"):
        select_view(str(synthetic_dataset), str(tmp_path / "none"), table=str(table))


def test_uids_that_look_like_numbers_are_selected_by_a_table(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", {})
    for uid in ("0090", "90", "9e1"):
        writer.stage(uid, make_clips(uid, n_frames=2, size=8, rigs=("dynamic_orbit",)))
    writer.roll(final=True)
    (tmp_path / "t.csv").write_text(
        "uid,action_index,verdict\n0090,0,accepted\n9e1,0,accepted\n90,0,rejected\n"
    )
    assert select_view(str(tmp_path / "d"), str(tmp_path / "v"), table=str(tmp_path / "t.csv")) == 2
    assert Index(tmp_path / "v").keys.uids.to_pylist() == ["0090", "9e1"]


def test_a_split_that_is_empty_is_told_with_the_ones_that_are_not(tmp_path, make_clips):
    from orbit4d.datasets.store.schema import split_of

    uid = next(f"u{k}" for k in range(999) if split_of(f"u{k}") == "validation")
    writer = DatasetWriter(tmp_path / "d", {})
    writer.stage(uid, make_clips(uid, n_frames=2, size=8, rigs=("dynamic_orbit",)))
    writer.roll(final=True)
    with pytest.raises(InputError, match=f"the splits are validation {uid}"):
        select_view(str(tmp_path / "d"), str(tmp_path / "v"), split="test")
