"""Tables of others join by uid, hash and address; contradictions and gaps are told. All are made up."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orbit4d.curate import columns
from orbit4d.curate.leaks import mark_benchmarks
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import decide
from orbit4d.curate.tags import keep_mask, with_tags
from orbit4d.datasets import InputError, resolve
from orbit4d.datasets.sources.joined_tables import column_name, read_joined

UIDS = [f"{k:032x}" for k in range(0xA0, 0xA6)]
SHAS = [f"{k:064x}" for k in range(0xB0, 0xB6)]
#: Six assets: joined by uid, by sha256, by address, by shard_uid, with both keys in conflict, and absent.
ROWS = [
    {"uid": UIDS[0], "asset_sha256": "", "source_url": ""},
    {"uid": "renamed", "asset_sha256": SHAS[1], "source_url": ""},
    {"uid": "by_page", "asset_sha256": "", "source_url": f"https://sketchfab.com/3d-models/fox-{UIDS[2]}"},
    {"uid": f"000-048_{UIDS[3]}", "asset_sha256": "", "source_url": ""},
    {"uid": UIDS[4], "asset_sha256": SHAS[4], "source_url": ""},
    {"uid": UIDS[5], "asset_sha256": SHAS[5], "source_url": ""},
]
KEYS = [UIDS[0].upper(), SHAS[1].upper(), UIDS[2], UIDS[3], UIDS[4], SHAS[4]]


def table():
    base = {"action": "Run", "action_index": 0, "status": "measured", "motion_geometry": 0.3,
            "window_start": 0.0, "window_end": 1.0, "attempts": 1}  # fmt: skip
    return mark_benchmarks(columns.build([{**base, **row} for row in ROWS], {}))


def written(tmp_path, kind: str) -> str:
    """Objaverse++ as its columns are published (UID, score, style, is_scene), keyed by KEYS, in a format."""
    rows = [
        {
            "UID": key,
            "score": i % 4,
            "style": "a, b",
            "is_scene": "true" if i == 2 else "false",
            "density": i / 2,
        }
        for i, key in enumerate(KEYS)
    ]
    path = tmp_path / f"tags.{kind}"
    if kind == "csv":
        lines = ["UID,score,style,is_scene,density"]
        lines += [f'{r["UID"]},{r["score"]},"{r["style"]}",{r["is_scene"]},{r["density"]}' for r in rows]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_six_assets_join_by_whatever_key_they_have(tmp_path, kind):
    path = written(tmp_path, kind)
    joined, notes = with_tags(table(), [path])
    assert joined["tag:score"].to_pylist() == [0, 1, 2, 3, 0, None]
    assert joined["tag:is_scene"].to_pylist() == [False, False, True, False, False, None]
    assert joined["tag:density"].to_pylist() == [0, 0.5, 1, 1.5, 2, None]
    assert joined["tag:style"].to_pylist() == ["a, b"] * 5 + [None]
    assert len(notes) == 2
    assert "are one asset and two rows; the first counts" in notes[0] and UIDS[4][:12] in notes[0]
    assert f"no row for 1 of 6 assets ({UIDS[5]})" in notes[1]


def test_a_list_of_ids_says_yes_and_no(tmp_path):
    path = tmp_path / "TexVerse-Animation_id_list.txt"
    path.write_text(f"{UIDS[0].upper()}\n{UIDS[3]}\n")
    joined, notes = with_tags(table(), [str(path)])
    assert joined["tag:texverse_animation"].to_pylist() == [True, False, False, True, False, False]
    assert notes == []


def test_keep_is_a_rule_that_null_never_passes(tmp_path):
    joined, _ = with_tags(table(), [written(tmp_path, "csv")])
    mask, unknown = keep_mask(joined, "score >= 1 and not is_scene")
    assert mask.tolist() == [False, True, False, True, False, False] and unknown == 1
    decided = decide(joined, Rules(keep="score >= 1 and not is_scene and motion_geometry > 0.2"))
    assert decided["verdict"].to_pylist() == [
        "rejected", "accepted", "rejected", "accepted", "rejected", "rejected"
    ]  # fmt: skip
    assert decided["reasons"].to_pylist()[0] == ["keep"]
    # Tags stay in the table, so that it can be decided again.
    from orbit4d.curate.tables import read_table, write_table

    write_table(decided, str(tmp_path / "t.parquet"))
    again = decide(read_table(str(tmp_path / "t.parquet")), Rules(keep="style = 'a, b'"))
    assert again["verdict"].to_pylist() == ["accepted"] * 5 + ["rejected"]


@pytest.mark.parametrize(
    ("expression", "says"),
    [("scor >= 1", "tags are score, style, is_scene, density"), ("score >=", "tags are score"),
     ("true); select (1", "one expression")],
)  # fmt: skip
def test_a_broken_expression_is_one_line(tmp_path, expression, says):
    joined, _ = with_tags(table(), [written(tmp_path, "csv")])
    with pytest.raises(InputError) as caught:
        decide(joined, Rules(keep=expression))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="none: give --tags TABLE"):
        keep_mask(table(), "score > 1")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "score,style\n1,x\n", "no column names assets"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1, 2]", "a list of objects"),
        ("a.xlsx", "x", "is no table"),
        ("a.txt", "\n", "has no entries"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_joined(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_the_command_marks_tags_and_decides_without_measuring(tmp_path):
    from click.testing import CliRunner

    from orbit4d.curate.cli import command
    from orbit4d.curate.tables import read_table, write_table

    write_table(table(), str(tmp_path / "measured.parquet"))
    (tmp_path / "test-set.txt").write_text(UIDS[3])
    words = ["--tags", written(tmp_path, "json"), "--keep", "score >= 1", "--benchmark-list"]
    done = CliRunner().invoke(
        command,
        [str(tmp_path / "measured.parquet"), "--out", str(tmp_path / "t.parquet"), *words,
         str(tmp_path / "test-set.txt")],
        catch_exceptions=False,
    )  # fmt: skip
    assert "a value is missing in 1 rows, which are rejected" in done.stderr
    assert "benchmark:test-set" in done.stdout and "objects of benchmarks: test-set 1" in done.stdout
    rows = read_table(str(tmp_path / "t.parquet")).to_pylist()
    assert [row["uid"] for row in rows if row["verdict"] == "accepted"] == ["renamed", "by_page"]


def test_names_of_columns():
    assert [column_name(n) for n in ("is_multi_object", "File-Type", " Ä b ", "")] == [
        "is_multi_object", "file_type", "b", "column"
    ]  # fmt: skip


def test_captions_of_cap3d_join_by_uid_and_by_sha256(tmp_path):
    """Two columns, no header, uids and hashes in one file, quoted commas, a byte-order mark, upper case."""
    for i in range(4):
        (tmp_path / f"{UIDS[i] if i != 1 else 'renamed'}.glb").write_bytes(b"%d" % i)
    found = resolve([str(tmp_path / "*.glb")])
    by_uid = {asset.uid: asset for asset in found.assets}
    lines = [
        f'{UIDS[0].upper()},"a fox, running"',
        f"{by_uid['renamed'].sha256.upper()},an owl",
        f"{UIDS[2]},a hare",
        f"{by_uid[UIDS[2]].sha256},a rabbit",
    ]
    path = tmp_path / "Cap3D.csv"
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    result = resolve([str(tmp_path / "*.glb")], captions=str(path))
    captions = {asset.uid: asset.caption for asset in result.assets}
    assert captions == {UIDS[0]: "a fox, running", "renamed": "an owl", UIDS[2]: "a hare", UIDS[3]: ""}
    assert any("one asset with two captions" in note for note in result.notes)
    assert any(f"no caption for 1 of 4 assets ({UIDS[3]})" in note for note in result.notes)


def test_captions_as_json_and_by_a_column_of_hashes(tmp_path):
    (tmp_path / "fox.glb").write_bytes(b"fox")
    (tmp_path / "Fox.glb").write_bytes(b"another")
    sha = {asset.uid: asset.sha256 for asset in resolve([str(tmp_path)]).assets}["fox"]

    def captions(name: str, text: str) -> dict[str, str]:
        (tmp_path / name).write_text(text)
        found = resolve([str(tmp_path / "*.glb")], captions=str(tmp_path / name))
        return {asset.uid: asset.caption for asset in found.assets}

    assert captions("c.json", json.dumps({"fox": "small", "Fox": "large"})) == {
        "fox": "small",
        "Fox": "large",
    }
    assert captions("d.csv", f"sha256,caption\n{sha},known by contents\n")["fox"] == "known by contents"
    listed = [{"fileIdentifier": "x/y.glb", "sha256": sha, "caption": "by either"}]
    assert captions("e.json", json.dumps(listed))["fox"] == "by either"
