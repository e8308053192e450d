"""Rules from labels: what is found again, what is not claimed, and that the file says the same as the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from orbit4d.curate.cli import command
from orbit4d.curate.columns import build
from orbit4d.curate.fitting.model import fit_model
from orbit4d.curate.fitting.proposal import changes, propose
from orbit4d.curate.fitting.thresholds import accepted_by, fit_thresholds
from orbit4d.curate.fitting.truth import Truth, folds, read_truth, score
from orbit4d.curate.labels import Label, LabelBook
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import Columns, decide, make_rules
from orbit4d.curate.tables import write_table
from orbit4d.datasets.core.errors import InputError


def clips(n: int, seed: int, assets_of: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "uid": f"a{i // assets_of}",
            "action": f"act{i % assets_of}",
            "action_index": i % assets_of,
            "status": "measured",
            "window_start": 0.0,
            "window_end": 1.0,
            "motion_geometry": float(10 ** rng.uniform(-3, 0)),
            "coverage_fit": float(10 ** rng.uniform(-2.5, -0.5)),
            "union_growth": float(1 + rng.exponential(0.4)),
        }
        for i in range(n)
    ]
    return build(rows, {"measure_version": 3})


def truth_by(rules: Rules, n: int = 150, seed: int = 0) -> Truth:
    table = clips(n, seed)
    return Truth(table, accepted_by(Columns(table), rules), table)


def test_thresholds_are_found_again_from_any_start() -> None:
    wanted = replace(Rules(), min_motion=0.05, min_fit=0.03, max_growth=1.8)
    truth = truth_by(wanted)
    start = replace(Rules(), min_motion=0.005, min_fit=0.001, max_growth=6.0)
    found = propose(truth, start)
    assert found.fitted.wrong <= 2 and found.held_out.wrong < found.before.wrong / 3 and found.better
    assert found.rules.min_motion == pytest.approx(0.05, rel=0.15)
    assert found.rules.max_growth == pytest.approx(1.8, rel=0.15)
    # What has no measure in the table, or speaks of something else, stays as it was.
    assert found.rules.max_torn == start.max_torn and found.rules.license == start.license


def test_labels_that_agree_change_nothing() -> None:
    rules = replace(Rules(), license=("CC0*",), keep="coverage_fit > 0.01", benchmarks="test")
    truth = truth_by(Rules())
    found = propose(truth, rules)
    assert found.rules == rules and found.before.wrong == found.held_out.wrong == 0 and not found.better


def test_labels_by_chance_are_seen_through() -> None:
    table = clips(150, 1)
    keep = np.random.default_rng(2).random(150) < 0.5
    found = propose(Truth(table, keep, table), Rules())
    # On the labels themselves a fit always looks better than on others: the held-out figure does not.
    assert found.fitted.wrong < found.held_out.wrong
    assert found.held_out.wrong > 0.35 * 150


def test_no_asset_is_on_both_sides_and_each_is_held_out_once() -> None:
    truth = truth_by(Rules())
    parts = folds(truth, 5, 0)
    assert len(parts) == 5 and (np.sum(parts, axis=0) == 1).all()
    for part in parts:
        assert not set(truth.assets[part]) & set(truth.assets[~part])
    assert len(folds(truth, 500, 0)) == 50, "as many as there are assets, at most"
    assert any((a != b).any() for a, b in zip(folds(truth, 5, 0), folds(truth, 5, 1)))


def test_a_fit_is_never_worse_on_its_labels_and_does_not_see_others() -> None:
    truth = truth_by(replace(Rules(), min_motion=0.08), seed=3)
    columns = Columns(truth.table)
    some = np.arange(150) < 75
    found = fit_thresholds(columns, truth.keep, Rules(), some)
    flipped = np.where(some, truth.keep, ~truth.keep)
    assert fit_thresholds(columns, flipped, Rules(), some) == found
    before, after = ((accepted_by(columns, r) != truth.keep)[some].sum() for r in (Rules(), found))
    assert after <= before


def test_the_models_expression_decides_as_the_model(seed: int) -> None:
    from orbit4d.curate.tags import keep_mask

    table = clips(200, seed)
    holes = np.random.default_rng(seed).random(200) < 0.1
    at = table.column_names.index("coverage_fit")
    holed = pa.array(np.where(holes, np.nan, table["coverage_fit"].to_numpy()), from_pandas=True)
    table = table.set_column(at, table.schema.field("coverage_fit"), holed)
    keep = table["motion_geometry"].to_numpy() > 0.05
    model = fit_model(Columns(table), keep, np.array(table["uid"].to_pylist()))
    logit = model.logit(Columns(table))
    sure = np.abs(logit) > 1e-3  # weights are written in nine digits
    mask, unknown = keep_mask(table, model.expression())
    assert unknown == 0 and (mask == (logit >= 0))[sure].all() and sure.sum() > 190
    mask, _ = keep_mask(table, model.expression(0.9))
    assert (mask == (logit >= np.log(9.0)))[np.abs(logit - np.log(9.0)) > 1e-3].all()
    assert score(logit >= 0, keep).wrong < 20


def test_probabilities_mean_what_they_say() -> None:
    rng = np.random.default_rng(5)
    table = clips(3000, 6)
    moved = np.log(table["motion_geometry"].to_numpy())
    chance = 1 / (1 + np.exp(-1.2 * (moved + 3)))
    model = fit_model(Columns(table), rng.random(3000) < chance, np.array(table["uid"].to_pylist()))
    said = 1 / (1 + np.exp(-model.logit(Columns(table))))
    # Some 3,000 draws leave a standard error of about 0.02 around the middle.
    assert np.abs(said - chance).mean() < 0.03 and np.abs(said - chance).max() < 0.1


def test_the_command_says_what_it_would_change_and_writes_rules_that_do_it(tmp_path: Path) -> None:
    table = decide(clips(60, 7), replace(Rules(), min_motion=0.002))
    write_table(table, str(tmp_path / "t.parquet"))
    wanted = accepted_by(Columns(table), replace(Rules(), min_motion=0.06))
    book = LabelBook(tmp_path / "l.parquet", str(tmp_path / "t.parquet"))
    for i, keep in enumerate(wanted):
        if i % 4:
            label = Label(table["uid"][i].as_py(), table["action"][i].as_py(), i % 3, "", "ada")
            book.put(label, "accept" if keep else "reject", "", [])
    book.close()
    out = tmp_path / "rules.yaml"
    for more in ((), ("--model",)):
        done = CliRunner().invoke(command, ["fit", str(tmp_path / "l.parquet"), "--out", str(out), *more])
        assert done.exit_code == 0, done.output
        assert "45 labelled clips of 20 assets" in done.output and "held out" in done.output
        rules = make_rules("default", str(out))
        again = decide(table, rules)
        lost = [line for line in done.output.splitlines() if line.startswith("  - ")]
        gone = changes(table, replace(Rules(), min_motion=0.002), rules).lost
        new = {
            f"{u} {a}"
            for u, a, v, w in zip(
                *(again[n].to_pylist() for n in ("uid", "action", "verdict")), table["verdict"].to_pylist()
            )
            if (v, w) == ("rejected", "accepted")
        }
        assert lost and {line[4:] for line in lost if "more" not in line} <= new
        assert new == set(gone)


def test_too_few_labels_and_labels_of_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("uid,action,keep\na,Run,1\n")
    with pytest.raises(InputError, match="no measures"):
        read_truth(str(tmp_path / "l.csv"))
    (tmp_path / "l.csv").write_text("uid,action,keep,motion_geometry\na,Run,1,0.1\n")
    with pytest.raises(InputError, match="too few"):
        read_truth(str(tmp_path / "l.csv"))
    (tmp_path / "l.csv").write_text("uid,action,keep,motion_geometry\na,Run,1,much\n")
    with pytest.raises(InputError, match="line 2: motion_geometry is 'much'"):
        read_truth(str(tmp_path / "l.csv"))


def test_the_defaults_stand_on_the_labels_that_set_them(repo_root: Path) -> None:
    truth = read_truth(str(repo_root / "tests" / "curate" / "labels.csv"))
    found = propose(truth, Rules())
    assert found.before.wrong <= 3 and not found.better
    loose = replace(Rules(), min_motion=0.002, min_fit=0.001, min_shape=0.01)
    learned = propose(truth, loose)
    assert learned.better and learned.held_out.precision > learned.before.precision + 0.05
    assert learned.held_out.recall > 0.9
