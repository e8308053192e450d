"""make bench-curate_labels: curation rules against labels given by eye; tables, then one line of JSON.

tests/curate/labels.csv holds clips of two folders of real assets with the verdict after looking at contact
sheets (six frames at the scale of the render, and the largest difference to the first): keep is 1 when
motion can be seen and the object stays in view at a useful size. Set 1 came first. Set 2 was drawn later, by
hash, from other clips of 63 of the assets, and labelled without a number in sight: 14 that move little, 10 on
which the defaults of then and the published rule disagreed, 8 of any kind. The measures in the file are those
of the commit that wrote it; name tables made by `orbit4d curate --previews both` to take theirs instead
(--write puts them into the file). With --labels FILE the labels of an `orbit4d review` are the truth instead,
on the tables given or on the one that they were given for.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.curate import columns
from orbit4d.curate.rule_settings import PRESETS, Rules
from orbit4d.curate.rules import reject_masks
from orbit4d.curate.tables import read_table
from orbit4d.datasets.sources.lists import named

SCHEMA_NAMES = [name for name in columns.COLUMNS if name != "preview"]
LABELS = Path(__file__).resolve().parent.parent / "tests" / "curate" / "labels.csv"


def load_labels(tables: list[str] = ()) -> tuple[pa.Table, np.ndarray]:
    """(measured rows, keep [rows]) of the labelled clips, measures from `tables` where they have them."""
    measured = _measured(tables)
    rows, keep = [], []
    for record in _records():
        keep.append(record["keep"] == "1")
        row: dict[str, Any] = {name: record[name] for name in ("uid", "action")}
        row |= {name: float(record[name]) if record[name] else None for name in _measures(record)}
        rows.append({"status": "measured", **measured.get((row["uid"], row["action"]), row)})
    return columns.build(rows, {}), np.array(keep)


def truth_of(labels: str, tables: list[str]) -> tuple[pa.Table, np.ndarray]:
    """(measured rows, keep [rows]) of a file of `orbit4d review`: the clips that most reviewers accept or
    reject, with the measures of `tables`, or of the table that the labels were given for."""
    from orbit4d.curate.labels import labels_of_table, matched, read_labels, votes

    names = tables or [labels_of_table(labels)]
    table = pa.concat_tables([read_table(name).drop(["preview"]).select(SCHEMA_NAMES) for name in names])
    rows, notes = matched(table, read_labels(labels))
    for note in notes:
        print(f"note: {note}")
    chosen, keep = [], []
    for row, some in sorted(rows.items()):
        (vote,) = {one.label for one in votes(some).values()} or {None}
        if vote is not None and table["status"][row].as_py() == "measured":
            chosen.append(row)
            keep.append(vote == "accept")
    return table.take(chosen), np.array(keep, bool)


def label_sets() -> np.ndarray:
    """[rows]: 1 for the clips that the first thresholds were set on, 2 for those drawn later."""
    return np.array([int(record["set"]) for record in _records()])


def _records() -> list[dict[str, str]]:
    with open(LABELS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _measures(record: dict[str, str]) -> list[str]:
    return [name for name in record if name not in ("uid", "action", "keep", "set", "why")]


def _measured(tables: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in tables:
        for row in read_table(name).drop(["preview"]).to_pylist():
            known = {key: value for key, value in row.items() if value is not None}
            # A later table adds to an earlier one, say raw frames to the moving window.
            found.setdefault((row["uid"], row["action"]), {}).update(known)
    return found


def write_measures(tables: list[str]) -> None:
    """Put the measures of `tables` into the file of labels."""
    measured, records = _measured(tables), _records()
    for record in records:
        row = measured[record["uid"], record["action"]]
        for name in _measures(record):
            record[name] = "" if row.get(name) is None else f"{row[name]:.5g}"
    with open(LABELS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def score(accepted: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    """Precision and recall of accepting, and how many verdicts are wrong."""
    good = int((accepted & keep).sum())
    return {
        "accepted": int(accepted.sum()),
        "precision": good / max(int(accepted.sum()), 1),
        "recall": good / max(int(keep.sum()), 1),
        "wrong": int((accepted != keep).sum()),
    }


def verdicts(table: pa.Table, rules: Rules) -> np.ndarray:
    """[rows]: accepted by `rules`."""
    return ~np.logical_or.reduce([*reject_masks(table, rules).values(), np.zeros(table.num_rows, bool)])


def candidates() -> dict[str, Rules]:
    """What is compared: the defaults, each of their rules alone, and the published rule in two readings."""
    off = Rules(
        **{
            entry.name: None
            for entry in fields(Rules)
            if entry.name.startswith(("min_", "max_")) and entry.name != "min_nonrigid"
        },
        still="keep",
    )
    default = PRESETS["default"]
    found = {"default": default, "static alone": replace(off, still="drop")}
    for name in (
        "min_motion",
        "max_motion",
        "max_growth",
        "max_boundary",
        "min_coverage",
        "min_fit",
        "max_torn",
    ):
        found[f"{name} alone"] = replace(off, **{name: getattr(default, name)})
    found["unseen alone"] = replace(off, min_shape=default.min_shape, max_alike=default.max_alike)
    found["default without unseen"] = replace(default, min_shape=None)
    found["default without small"] = replace(default, min_fit=None)
    published = PRESETS["diffusion4d"]
    found["published, raw frames"] = replace(published, max_boundary=None, max_touch=None)
    found["published, window"] = replace(published, max_boundary=None, max_touch=None, ssim_frames="window")
    found["published with boundary"] = published
    return found


#: Thresholds of the default rules that are chosen again when an asset is left out.
GRID = {
    "min_motion": np.geomspace(0.004, 0.06, 28),
    "min_fit": np.geomspace(0.003, 0.06, 28),
    "min_shape": np.geomspace(0.01, 0.5, 28),
}


def leave_one_out(table: pa.Table, keep: np.ndarray) -> np.ndarray:
    """[rows]: accepted by the default rules whose GRID thresholds were chosen on all other assets' clips.

    Each threshold in turn is the geometric middle of those with the fewest wrong verdicts on the others.
    """
    uids = np.array(table["uid"].to_pylist())
    by_threshold = {
        name: [verdicts(table, replace(PRESETS["default"], **{name: float(value)})) for value in values]
        for name, values in GRID.items()
    }
    accepted = np.zeros(len(keep), bool)
    for uid in np.unique(uids):
        out = uids == uid
        rules = PRESETS["default"]
        for name, values in GRID.items():
            wrong = [int((found != keep)[~out].sum()) for found in by_threshold[name]]
            best = values[np.array(wrong) == min(wrong)]
            rules = replace(rules, **{name: float(np.exp(np.log(best).mean()))})
        accepted[out] = verdicts(table, rules)[out]
    return accepted


def _line(name: str, found: dict[str, float]) -> str:
    return (
        f"{name:<26} {found['accepted']:8d} {found['precision']:10.3f} {found['recall']:7.3f} "
        f"{found['wrong']:6d}"
    )


def compare(table: pa.Table, keep: np.ndarray) -> None:
    """Every candidate against the labels of a review."""
    print(f"{len(keep)} labelled clips, {int(keep.sum())} to keep")
    print(f"{'rules':<26} accepted  precision  recall  wrong")
    result: dict[str, Any] = {"bench": "curate_labels", "clips": len(keep)}
    found = {name: verdicts(table, rules) for name, rules in candidates().items() if "raw" not in name}
    if len(set(table["uid"].to_pylist())) > 1:
        found["leave one asset out"] = leave_one_out(table, keep)
    for name, accepted in found.items():
        result[name] = score(accepted, keep)
        print(_line(name, result[name]))
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--write", action="store_true", help="put the tables' measures into the labels")
    parser.add_argument("--labels", default=None, help="labels of `orbit4d review` as truth")
    args = parser.parse_args()
    if args.labels:
        compare(*truth_of(args.labels, args.tables))
        return
    if args.tables:
        have = _measured(args.tables)
        lacking = [f"{r['uid']} {r['action']}" for r in _records() if (r["uid"], r["action"]) not in have]
        if lacking and args.write:
            parser.error(f"--write: the tables lack {len(lacking)} labelled clips: {named(lacking)}")
        if lacking:
            print(f"note: {len(lacking)} labelled clips are not in the tables ({named(lacking)}), their old "
                  "measures are taken")  # fmt: skip
    if args.write:
        write_measures(args.tables)
    table, keep = load_labels(args.tables)
    result: dict[str, Any] = {"bench": "curate_labels", "clips": len(keep)}
    every, later = np.ones(len(keep), bool), label_sets() == 2
    for title, some in (("all", every), ("set 1", ~later), ("set 2", later)):
        print(f"{title}: {int(some.sum())} labelled clips, {int(keep[some].sum())} to keep")
        print(f"{'rules':<26} accepted  precision  recall  wrong")
        for name, rules in candidates().items():
            if title == "all" or not name.endswith("alone"):
                found = score(verdicts(table, rules)[some], keep[some])
                result[name if title == "all" else f"{name}, {title}"] = found
                print(_line(name, found))
        if title == "all":
            result["leave one asset out"] = score(leave_one_out(table, keep), keep)
            print(_line("leave one asset out", result["leave one asset out"]))
    for rule, values in (
        ("min_motion", (0.005, 0.01, 0.012, 0.014, 0.016, 0.018, 0.02, 0.03, 0.05)),
        ("min_shape", (0.02, 0.05, 0.1, 0.13, 0.16, 0.2, 0.24, 0.3, 0.5)),
        ("min_fit", (0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)),
    ):
        print(f"{rule:<11} precision  recall")
        for threshold in values:
            found = score(verdicts(table, replace(PRESETS["default"], **{rule: threshold})), keep)
            print(f"{threshold:11.3f} {found['precision']:9.3f} {found['recall']:7.3f}")
    accepted = verdicts(table, PRESETS["default"])
    for row, wanted, got in zip(table.to_pylist(), keep, accepted):
        if wanted != got:
            print(f"{'lost' if wanted else 'let through'}: {row['uid']} {row['action']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
