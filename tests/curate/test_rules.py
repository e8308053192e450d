"""Deciding: thresholds are monotone, every reason is named, a million rows take seconds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.curate import columns
from orbit4d.curate.cli import RULE_OPTIONS
from orbit4d.curate.rule_settings import PRESETS, Rules
from orbit4d.curate.rules import REASONS, decide, make_rules, reject_masks, rule_effects
from orbit4d.datasets.core.errors import InputError

GOOD = {
    "uid": "a",
    "action": "walk",
    "action_index": 0,
    "status": "measured",
    "license": "CC0-1.0",
    "window_start": 0.0,
    "window_end": 2.0,
    "motion_geometry": 0.2,
    "motion_nonrigid": 0.1,
    "motion_shape": 0.1,
    "union_growth": 1.2,
    "out_of_frame": 0.0,
    "coverage_mean": 0.2,
    "coverage_fit": 0.14,
    "alpha_coverage": 0.2,
    "torn_edges": 0.0,
    "n_triangles": 1000,
    "n_missing_textures": 0,
    "flat": False,
    "ssim_quarter": 0.8,
    "ssim_half": 0.7,
    "ssim_object_quarter": 0.7,
    "ssim_object_half": 0.6,
    "ssim_object_peak": 0.5,
    "ssim_quarter_raw": 0.8,
    "ssim_half_raw": 0.7,
    "phash": "0123456789abcdef-808080",
}


ALIKE = {"ssim_object_quarter": 1.0, "ssim_object_half": 0.8, "ssim_object_peak": 0.9}


def table(*rows: dict) -> pa.Table:
    return columns.build([{**GOOD, **row} for row in rows], {})


def reasons(row: dict, rules: Rules | None = None) -> list[str]:
    return decide(table(row), rules or Rules())["reasons"].to_pylist()[0]


STILL = {"window_start": None, "window_end": None, "motion_geometry": 0.0}

ALL_ON = Rules(
    max_boundary=0.9, min_seconds=0.5, max_seconds=10, max_triangles=5000, max_missing_textures=0,
    rigid="drop",
    duplicates="drop", flat="drop", license=("CC0*", "cc-by-?.0"), max_ssim=0.95, min_ssim=0.4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, []),
        ({**STILL, "motion_nonrigid": 0.0}, ["static"]),
        ({"motion_geometry": 0.01}, ["low_motion"]),
        ({"motion_geometry": 2.0}, ["drastic"]),
        ({"union_growth": 8.0}, ["flies_away"]),
        ({"out_of_frame": 0.95}, ["boundary"]),
        ({"coverage_mean": 0.001}, ["empty"]),
        ({"alpha_coverage": 0.0, "flat": True}, ["empty", "flat"]),
        ({"coverage_fit": 0.01}, ["small"]),
        ({"coverage_fit": 0.01, "union_growth": 8.0}, ["flies_away"]),
        ({"motion_shape": 0.01, **ALIKE}, ["unseen"]),
        # Alike at these moments, but its shape has changed; a patterned globe that is seen to turn.
        ({"motion_shape": 0.05, **ALIKE}, []),
        ({"motion_shape": 0.01, **ALIKE, "ssim_object_peak": 0.5}, []),
        ({"torn_edges": 0.5}, ["exploded"]),
        ({"window_end": 0.1}, ["too_short"]),
        ({"window_end": 60.0}, ["too_long"]),
        ({"n_triangles": 9999}, ["too_heavy"]),
        ({"n_missing_textures": 1}, ["missing_textures"]),
        ({"motion_nonrigid": 0.001}, ["rigid"]),
        ({"duplicate_of": "b"}, ["near_duplicate"]),
        ({"license": "CC-BY-NC-4.0"}, ["license"]),
        ({"license": ""}, ["license"]),
        ({"license": "cc-by-4.0"}, []),
        ({"ssim_quarter": 0.96, "ssim_half": 0.97}, ["ssim_still"]),
        ({"ssim_quarter": 0.96, "ssim_half": 0.94}, []),
        ({"ssim_quarter": 0.39}, ["ssim_drastic"]),
        ({"status": "refused", "failure": "bad_file:magic", "motion_geometry": None}, ["bad_file:magic"]),
        ({"status": "failed", "failure": "time_out", "motion_geometry": None}, ["time_out"]),
    ],
)  # fmt: skip
def test_each_rule_has_its_reason(row, expected):
    assert reasons(row, ALL_ON) == expected
    assert all(reason in REASONS or row.get("failure") == reason for reason in expected)
    [verdict] = decide(table(row), ALL_ON)["verdict"].to_pylist()
    assert verdict == ("failed" if row.get("status") == "failed" else "rejected" if expected else "accepted")


def test_what_was_not_measured_is_not_held_against_an_asset():
    unknown = {
        name: None for name in GOOD if name not in ("uid", "action", "status", "action_index", "license")
    }
    assert reasons({**unknown, "motion_geometry": 0.1, "window_start": 0.0, "window_end": 1.0}) == []


def test_a_preview_rule_without_previews_is_refused():
    blind = {name: None for name in GOOD if name.startswith("ssim")}
    with pytest.raises(InputError, match="--previews"):
        decide(table(blind), PRESETS["diffusion4d"])
    with pytest.raises(InputError, match="needs the measure phash"):
        decide(table({"phash": None}), Rules(duplicates="drop"))


def test_the_published_preset_is_the_papers_rules_alone():
    rules = PRESETS["diffusion4d"]
    assert set(reject_masks(table({}), rules)) == {"boundary", "ssim_still", "ssim_drastic"}
    assert reasons({"motion_geometry": 0.0001, "ssim_quarter": 0.99, "ssim_half": 0.99}, rules) == []
    assert reasons({"ssim_quarter_raw": 0.96, "ssim_half_raw": 0.96, "out_of_frame": 0.01}, rules) == [
        "boundary",
        "ssim_still",
    ]


_LOOSER = {  # name -> does a larger value reject fewer rows?
    "min_motion": False, "max_motion": True, "max_growth": True, "max_boundary": True, "max_touch": True,
    "min_coverage": False, "max_torn": True, "min_fit": False, "min_shape": False, "max_alike": True,
    "min_seconds": False, "max_seconds": True,
    "max_triangles": True, "max_missing_textures": True, "min_nonrigid": False, "max_ssim": True,
    "min_ssim": False,
}  # fmt: skip


def test_every_threshold_is_covered_by_the_monotonicity_test():
    words = {"rigid", "flat", "duplicates", "license", "ssim_frames", "still", "benchmarks", "keep"}
    assert {entry.name for entry in fields(Rules)} == set(_LOOSER) | words


def random_table(seed: int, n: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    data = {}
    for name in columns.COLUMNS:
        kind = columns.SCHEMA.field(name).type
        if kind == pa.float64():
            values = 10.0 ** rng.uniform(-4, 1.5, n)
            data[name] = pa.array(values, mask=rng.random(n) < 0.1)
        elif kind == pa.int64():
            data[name] = pa.array(rng.integers(0, 100_000, n))
        elif kind == pa.bool_():
            data[name] = pa.array(rng.random(n) < 0.05)
        elif name == "status":
            data[name] = pa.array(rng.choice(["measured", "refused", "failed"], n, p=[0.9, 0.05, 0.05]))
        elif name == "phash":
            data[name] = pa.array(["0123456789abcdef-808080"] * n)
        elif name == "license":
            data[name] = pa.array(rng.choice(["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", ""], n))
        else:
            data[name] = pa.nulls(n, kind)
    failed = np.array(data["status"].to_pylist()) != "measured"
    data["failure"] = pa.array(np.where(failed, "time_out", None))
    return pa.table(data, schema=columns.SCHEMA)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(_LOOSER)),
    low=st.floats(1e-4, 30.0),
    high=st.floats(1e-4, 30.0),
    seed=st.integers(0, 20),
)
def test_verdicts_are_monotone_in_every_threshold(name, low, high, seed):
    low, high = sorted((low, high))
    data = random_table(seed, 300)
    accepted = []
    for value in (low, high) if _LOOSER[name] else (high, low):
        rules = replace(ALL_ON, **{name: value})
        accepted.append(np.array(decide(data, rules)["verdict"].to_pylist()) == "accepted")
    assert not (accepted[0] & ~accepted[1]).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_counts_are_conserved(seed):
    data = random_table(seed, 200)
    decided = decide(data, ALL_ON)
    verdicts, lists = decided["verdict"].to_pylist(), decided["reasons"].to_pylist()
    assert all((verdict == "accepted") == (not found) for verdict, found in zip(verdicts, lists))
    effects = rule_effects(data, ALL_ON)
    for effect in effects:
        assert effect["rows"] == sum(effect["reason"] in found for found in lists)
        assert effect["alone"] == sum(found == [effect["reason"]] for found in lists)


def test_deciding_again_changes_nothing_and_keeps_the_rules_with_the_table():
    once = decide(random_table(0, 500), ALL_ON)
    twice = decide(once, ALL_ON)
    assert once.equals(twice)
    assert columns.info_of(once)["rules"]["min_motion"] == ALL_ON.min_motion
    assert columns.info_of(once)["rules"]["license"] == list(ALL_ON.license)


def test_an_empty_table_is_decided():
    assert decide(columns.build([], {}), ALL_ON).num_rows == 0


def test_rows_are_decided_by_the_column(count_calls):
    """The promise, a million rows in 5 s (bench-curate), holds as long as nothing is called for each row."""
    few, many = (random_table(0, n) for n in (1_000, 100_000))
    decide(few, ALL_ON)  # what is imported or compiled on first use is no part of the count
    assert count_calls(lambda: decide(many, ALL_ON)) < count_calls(lambda: decide(few, ALL_ON)) + 100


def test_rules_come_from_preset_file_and_options_in_that_order(tmp_path):
    (tmp_path / "rules.yaml").write_text("min_motion: 0.5\nmax_growth: null\nlicense: [CC0*]\nrigid: drop\n")
    rules = make_rules("default", str(tmp_path / "rules.yaml"), {"min_motion": 0.7})
    assert (rules.min_motion, rules.max_growth, rules.license, rules.rigid) == (0.7, None, ("CC0*",), "drop")
    assert rules.max_motion == PRESETS["default"].max_motion


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min_motoin: 1", "no rule named 'min_motoin'"),
        ("min_motion: much", "must be a number"),
        ("min_motion: .nan", "must be a number"),
        ("rigid: maybe", "one of keep, drop"),
        ("license: CC0", "list of patterns"),
        ("- 1", "name: value"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_bad_rules_get_one_line(tmp_path, text, says):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        make_rules("default", str(tmp_path / "rules.yaml"))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_has_an_option_for_every_rule():
    assert set(RULE_OPTIONS) == {entry.name for entry in fields(Rules)}


def test_every_column_is_described():
    assert all(field.metadata[b"description"] for field in columns.SCHEMA)
