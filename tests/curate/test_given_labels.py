"""Labels given by people: the file, its history, and their place over the rules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orbit4d.curate.cli import command
from orbit4d.curate.columns import build
from orbit4d.curate.labels import Label, LabelBook, apply_labels, read_labels
from orbit4d.curate.review.agreement import agreement, cohen_kappa
from orbit4d.curate.rules import decide
from orbit4d.curate.tables import write_table
from orbit4d.datasets.core.errors import InputError


def table(n: int = 6, **more: list[object]) -> pa.Table:
    """n clips of one action each; the even ones move enough, the odd ones do not."""
    rows = [
        {
            "uid": f"a{i}", "action": "Run", "action_index": 0, "status": "measured",
            "asset_sha256": f"{i:064x}", "window_start": 0.0, "window_end": 1.0,
            "motion_geometry": 0.001 if i % 2 else 0.1,
            "license": "CC0", **{name: values[i] for name, values in more.items()},
        }
        for i in range(n)
    ]  # fmt: skip
    return build(rows, {"measure_version": 3})


def label(i: int, word: str, who: str = "ada", sha256: str | None = None) -> Label:
    return Label(f"a{i}", "Run", 0, f"{i:064x}" if sha256 is None else sha256, who, word)


def test_people_have_the_last_word_and_it_is_said_who() -> None:
    decided = decide(table())
    labels = [
        label(0, "reject"),
        label(1, "accept"),
        label(2, "flag"),
        label(3, "accept"),
        label(3, "reject", "bob"),
    ]
    found, notes = apply_labels(decided, labels)
    assert found["verdict"].to_pylist() == [
        "rejected",
        "accepted",
        "accepted",
        "rejected",
        "accepted",
        "rejected",
    ]
    assert found["reasons"].to_pylist()[:2] == [["label"], []]
    assert found["label"].to_pylist() == ["reject", "accept", None, None, None, None]
    assert found["label_audit"][1].as_py() == "rules: rejected (low_motion); ada: accept"
    assert notes == ["1 clips on which reviewers are of two minds: the rules decide"]
    # A third voice settles it.
    more, notes = apply_labels(decided, [*labels, label(3, "accept", "cleo")])
    assert more["verdict"][3].as_py() == "accepted" and notes == []


def test_labels_of_other_clips_and_of_changed_files_are_not_heeded() -> None:
    decided = decide(table())
    found, notes = apply_labels(decided, [label(9, "reject"), label(0, "reject", sha256="f" * 64)])
    assert found["verdict"].equals(decided["verdict"])
    assert [note.split(" ")[0] for note in notes] == ["1", "1"] and "changed" in notes[1]
    # Without a hash on either side the name alone has to do.
    assert apply_labels(decided, [label(0, "reject", sha256="")])[0]["verdict"][0].as_py() == "rejected"


def test_no_look_decides_licence_benchmark_or_what_was_not_measured() -> None:
    from dataclasses import replace

    from orbit4d.curate.rule_settings import Rules

    status: list[object] = ["measured", "failed", "refused", "measured", "measured", "measured"]
    marks: list[object] = [["animate124"], [], [], [], [], []]
    decided = decide(table(status=status, benchmarks=marks), replace(Rules(), license=("CC0",)))
    found, notes = apply_labels(decided, [label(i, "accept") for i in range(4)])
    assert found["verdict"].to_pylist()[:4] == [
        "rejected",
        "failed",
        decided["verdict"][2].as_py(),
        "accepted",
    ]
    assert found["reasons"][0].as_py() == ["benchmark:animate124"]
    assert len(notes) == 2 and notes[0].startswith("1 accepted clips stay out")


def test_every_word_is_in_the_file_when_it_was_said(tmp_path: Path) -> None:
    book = LabelBook(tmp_path / "l.parquet", "table.parquet")
    for i, word in enumerate(("accept", "reject", "flag")):
        book.put(label(i, ""), word, "rejected", ["low_motion"])
        # Read by somebody else while the book is open, as after a kill.
        assert [one.label for one in read_labels(tmp_path / "l.parquet")] == ["accept", "reject", "flag"][
            : i + 1
        ]
    with pytest.raises(InputError, match="another review"):
        LabelBook(tmp_path / "l.parquet")
    with pytest.raises(InputError, match="accept, reject, flag"):
        book.put(label(0, ""), "maybe", "", [])
    book.close()
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["l.parquet"]
    audit = read_labels(tmp_path / "l.parquet")[0].audit
    assert [(event["label"], event["verdict"], event["reasons"]) for event in audit] == [
        ("accept", "rejected", ["low_motion"])
    ]


def test_undo_takes_words_back_one_by_one_and_the_history_stays(tmp_path: Path) -> None:
    book = LabelBook(tmp_path / "l.parquet")
    for i, word in ((0, "accept"), (1, "reject"), (0, "reject"), (0, "accept")):
        book.put(label(i, ""), word, "accepted", [])
    book.put(label(2, "", "bob"), "flag", "accepted", [])
    state = []
    for _ in range(5):
        undone = book.undo("ada")
        state.append((undone.uid, undone.label) if undone else None)
        if _ == 1:  # what is said in between is taken back first
            book.close()
            book = LabelBook(tmp_path / "l.parquet")
    assert state == [("a0", "reject"), ("a0", "accept"), ("a1", None), ("a0", None), None]
    assert [one.reviewer for one in book.all()] == ["bob"]
    book.close()
    audits = {one.uid: one.audit for one in read_labels(tmp_path / "l.parquet")}
    assert [event["undo"] for event in audits["a0"]] == [False, False, False, True, True, True]


def test_curate_takes_labels_and_drops_them_when_they_are_not_given(tmp_path: Path) -> None:
    write_table(decide(table()), str(tmp_path / "t.parquet"))
    book = LabelBook(tmp_path / "l.parquet")
    book.put(label(1, ""), "accept", "rejected", [])
    book.put(label(0, ""), "reject", "accepted", [])
    book.close()
    out = str(tmp_path / "o.parquet")
    done = CliRunner().invoke(
        command, [str(tmp_path / "t.parquet"), "--labels", str(tmp_path / "l.parquet"), "--out", out]
    )
    assert done.exit_code == 0, done.output
    assert pq.read_table(out)["verdict"].to_pylist() == [
        "rejected", "accepted", "accepted", "rejected", "accepted", "rejected"
    ]  # fmt: skip
    assert "label                    1" in done.output
    done = CliRunner().invoke(command, [out, "--out", str(tmp_path / "p.parquet")])
    assert "labels are not reused" in done.output
    again = pq.read_table(tmp_path / "p.parquet")
    assert "label" not in again.column_names and again["verdict"].to_pylist()[:2] == ["accepted", "rejected"]


@pytest.mark.parametrize(
    "content, said",
    [
        ("uid,action,keep\na0,Run,2\n", "line 2"),
        ("name,keep\na0,1\n", "line 2: labels have uid"),
    ],
)
def test_what_is_no_file_of_labels_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        read_labels(tmp_path / "l.csv")
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "none.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="damaged"):
        read_labels(tmp_path / "x.parquet")
    write_table(decide(table()), str(tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="no column reviewer"):
        read_labels(tmp_path / "t.parquet")


def test_kappa_is_one_for_equal_zero_for_chance_and_as_an_independent_formula(seed: int) -> None:
    assert cohen_kappa("aarr", "aarr") == 1.0 and cohen_kappa("aarr", "arar") == 0.0
    assert cohen_kappa("ar", "ra") == -1.0 and cohen_kappa("", "") is None and cohen_kappa("aa", "aa") is None
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    second[:90] = first[:90]
    matrix = np.zeros((3, 3))
    np.add.at(matrix, (first, second), 1 / 200)
    expected = matrix.sum(1) @ matrix.sum(0)
    kappa = (np.trace(matrix) - expected) / (1 - expected)
    names = np.array(["x", "y", "z"])
    assert cohen_kappa(names[first].tolist(), names[second].tolist()) == pytest.approx(kappa, abs=1e-12)


def test_agreement_is_over_what_both_judged() -> None:
    labels = [label(i, word) for i, word in enumerate(("accept", "accept", "reject", "flag", "reject"))]
    labels += [label(i, word, "bob") for i, word in enumerate(("accept", "reject", "reject", "accept"))]
    (pair,) = agreement(labels)
    assert pair == {"reviewers": ["ada", "bob"], "clips": 3, "agree": 2, "kappa": pytest.approx(0.4)}


def test_the_bench_takes_labels_as_truth(
    tmp_path: Path, repo_root: Path, count_calls: Callable[..., int]
) -> None:
    spec = importlib.util.spec_from_file_location("curate_labels", repo_root / "bench" / "curate_labels.py")
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    write_table(decide(table()), str(tmp_path / "t.parquet"))
    book = LabelBook(tmp_path / "l.parquet", str(tmp_path / "t.parquet"))
    for i, word in enumerate(("accept", "accept", "reject", "flag")):
        book.put(label(i, ""), word, "", [])
    book.close()
    rows, keep = bench.truth_of(str(tmp_path / "l.parquet"), [])
    assert rows["uid"].to_pylist() == ["a0", "a1", "a2"] and keep.tolist() == [True, True, False]
    assert rows["motion_geometry"].to_pylist() == [0.1, 0.001, 0.1]
