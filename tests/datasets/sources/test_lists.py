"""Lists and tables that users bring: every name stays what it is, whichever program wrote the file."""

from __future__ import annotations

import codecs
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orbit4d.datasets import InputError
from orbit4d.datasets.sources.captions import read_captions
from orbit4d.datasets.sources.expand import expand
from orbit4d.datasets.sources.lists import absent, named, read_list, read_text
from orbit4d.datasets.sources.read_table import read_table

#: Names that a reader of types would make numbers, dates, truths or nothing of.
NAMES = [
    "0042",
    "7e5",
    "1.50",
    "-0",
    "+12",
    "0x1f",
    "1_000",
    "true",
    "NA",
    "null",
    "nan",
    "inf",
    "2024-05-06",
]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_mark_and_line_ends_are_no_part_of_an_entry(tmp_path, mark, encoding, end):
    lines = ["otter", "# a comment", "", "  gnu  # the second", "crate#2.glb", "wasp\xe9"]
    (tmp_path / "list.txt").write_bytes(mark + end.join(lines).encode(encoding))
    assert read_list(str(tmp_path / "list.txt")) == ["otter", "gnu", "crate#2.glb", "wasp\xe9"]


def test_lists_put_together_from_marked_ones(tmp_path):
    """`cat one.txt two.txt` leaves the second one's mark inside."""
    part = codecs.BOM_UTF8 + b"stoat\n"
    (tmp_path / "both.txt").write_bytes(part + codecs.BOM_UTF8 + b"shrew\n")
    assert read_list(str(tmp_path / "both.txt")) == ["stoat", "shrew"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9\n", "save it as UTF-8 text"),
        (b"a\0b\0\n\0", "zero bytes"),
        (b"\xff\xfea", "save it as UTF-8 text"),
        (b"\n# nothing\n", "no entries"),
        (codecs.BOM_UTF8, "no entries"),
    ],
)
def test_what_is_no_list_gets_one_line_with_its_name(tmp_path, content, says):
    (tmp_path / "odd.txt").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_list(str(tmp_path / "odd.txt"))
    assert "odd.txt" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_text(str(tmp_path / "none.txt"))


def test_a_list_may_lie_in_a_bucket():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/lists/some.txt", codecs.BOM_UTF8 + b"one.glb\nsub/two.glb\nmemory://far/three.glb\n")
    paths = [candidate.path for candidate in expand("memory://lists/some.txt").candidates]
    assert paths == ["memory://lists/one.glb", "memory://lists/sub/two.glb", "memory://far/three.glb"]


def test_names_of_what_is_not_there():
    assert absent(["c", "a", "c", "x"], {"a"}) == ["c", "x"]
    assert named(["a", "b"]) == "a, b"
    assert named("abcdef") == "a, b, c and 3 more"


# Tables -----------------------------------------------------------------------------------------------------


def _written(folder: Path, how: str) -> str:
    paths = [f"f{i}.glb" for i in range(len(NAMES))]
    frame = pd.DataFrame({"uid": NAMES, "path": paths, "sha256": NAMES, "caption": NAMES, "action": NAMES})
    target = folder / ("table.csv" if "csv" in how else "table.parquet")
    if how == "csv":
        frame.to_csv(target)
    elif how == "csv of Excel":
        frame.to_csv(target, index=False, sep=";", encoding="utf-8-sig", lineterminator="\r\n")
        target.write_bytes(codecs.BOM_UTF8 + b"sep=;\r\n" + target.read_bytes()[3:])
    elif how == "csv with tabs":
        frame.to_csv(target, index=False, sep="\t")
    elif how == "pandas":
        frame.to_parquet(target)
    elif how == "pandas categories":
        frame.astype("category").to_parquet(target)
    elif how == "polars":
        pl.from_pandas(frame).write_parquet(target)
    elif how == "bytes":
        columns = {name: pa.array([v.encode() for v in frame[name]], pa.binary()) for name in frame}
        pq.write_table(pa.table(columns), target)
    else:
        import duckdb

        duckdb.connect().register("frame", frame).execute(f"COPY frame TO '{target}' (FORMAT parquet)")
    return str(target)


@pytest.mark.parametrize(
    "how",
    ["csv", "csv of Excel", "csv with tabs", "pandas", "pandas categories", "polars", "duckdb", "bytes"],
)
def test_names_are_text_whoever_wrote_the_table(tmp_path, how):
    table = read_table(_written(tmp_path, how))
    for name in ("uid", "sha256", "caption", "action"):
        assert table.column(name).to_pylist() == NAMES, name
    candidates = expand(_written(tmp_path, how)).candidates
    assert [candidate.sha256 for candidate in candidates] == NAMES
    assert [candidate.uid for candidate in candidates][:2] == ["0042", "7e5"]


def test_action_indices_are_whole_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("UID,Path,Action,Action_Index\n007,a.glb,Run,3\n007,a.glb,Hop,12\n")
    [asset] = expand(str(tmp_path / "t.csv")).candidates
    assert (asset.uid, asset.actions) == ("007", (3, 12))
    # pandas makes floats of whole numbers beside a gap.
    frame = pd.DataFrame({"uid": ["u", "v"], "action_index": [4.0, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(str(tmp_path / "t.parquet"))["action_index"].to_pylist() == [4, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uid,path\na,b.glb\nc,d, e.glb\n", "line 3 has 3 fields instead of 2"),
        ("uid,path\na\n", "line 2 has 1 fields instead of 2"),
        ('uid,path\na,"b.glb\nc,d.glb\n', "cannot be read as CSV"),
        ("uid,uid,path\na,b,c.glb\n", "two columns uid"),
        ("uid,path,action,action_index\na,b.glb,Run,1.5\n", "action_index"),
        ("uid,path,action,action_index\na,b.glb,Run,\n", "without its action_index"),
        ("uid,path,verdict\na,b.glb,keep\n", "verdict is none of"),
        ("\n\n", "empty"),
    ],
)
def test_a_table_that_would_lose_something_is_refused(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        expand(str(tmp_path / "t.csv"))
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_with_a_fraction_are_no_names(tmp_path):
    pq.write_table(pa.table({"uid": [12.0, 7.5], "path": ["a.glb", "b.glb"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column uid holds double"):
        expand(str(tmp_path / "t.parquet"))


def test_verdicts_that_are_none_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("uid,path,verdict\na,a.glb,accepted\nb,b.glb,maybe\nc,c.glb,rejected\n")
    expanded = expand(str(tmp_path / "t.csv"))
    assert [candidate.uid for candidate in expanded.candidates] == ["a"]
    assert "1 rows" in expanded.notes[0] and "maybe" in expanded.notes[0]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("header", [True, False])
def test_captions_keep_their_commas_lines_and_ids(tmp_path, mark, header):
    body = '0012,"a fox, running"\n1e10,"two\nlines"\n' + "NA,plain\n"
    (tmp_path / "c.csv").write_bytes(mark + (("uid,caption\n" if header else "") + body).encode())
    found = read_captions(str(tmp_path / "c.csv"))
    assert {uid: record["caption"] for uid, record in found.items()} == {
        "0012": "a fox, running",
        "1e10": "two\nlines",
        "NA": "plain",
    }


def test_captions_with_an_unquoted_comma_are_refused_not_cut(tmp_path):
    (tmp_path / "c.csv").write_text("hare,a hare\nfox,a fox, running\n")
    with pytest.raises(InputError, match="line 2 has 3 fields"):
        read_captions(str(tmp_path / "c.csv"))


def test_captions_may_be_a_parquet_table(tmp_path):
    pd.DataFrame({"uid": ["9", "010"], "caption": ["nine", None]}).to_parquet(tmp_path / "c.parquet")
    found = read_captions(str(tmp_path / "c.parquet"))
    assert [found["9"]["caption"], found["010"]["caption"]] == ["nine", ""]
