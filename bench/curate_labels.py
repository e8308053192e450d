"""make bench-curate_labels: curation rules against labels given by eye; a table, then one line of JSON.

tests/curate/labels.csv holds clips of two folders of real assets with the verdict after looking at contact
sheets (six moments at the scale of the render, and the largest difference to the first): keep is 1 when
motion can be seen and the object stays in view at a useful size. The measures in the file are those of the
commit that wrote it; name tables made by `orbit4d curate --previews both` to take theirs instead.
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
from orbit4d.curate.rules import PRESETS, Rules, reject_masks
from orbit4d.curate.tables import read_table

LABELS = Path(__file__).resolve().parent.parent / "tests" / "curate" / "labels.csv"


def load_labels(tables: list[str] = ()) -> tuple[pa.Table, np.ndarray]:
    """(measured rows, keep [rows]) of the labelled clips, measures from `tables` where they have them."""
    measured = {}
    for name in tables:
        for row in read_table(name).drop(["preview"]).to_pylist():
            measured[row["uid"], row["action"]] = row
    rows, keep = [], []
    with open(LABELS, newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            keep.append(record.pop("keep") == "1")
            row: dict[str, Any] = {"uid": record.pop("uid"), "action": record.pop("action")}
            record.pop("why")
            row |= {name: float(value) if value else None for name, value in record.items()}
            rows.append({"status": "measured", **measured.get((row["uid"], row["action"]), row)})
    return columns.build(rows, {}), np.array(keep)


def score(accepted: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    """Precision and recall of accepting, and how many verdicts are wrong."""
    good = int((accepted & keep).sum())
    return {
        "accepted": int(accepted.sum()),
        "precision": good / max(int(accepted.sum()), 1),
        "recall": good / int(keep.sum()),
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
    for name in ("min_motion", "max_motion", "max_growth", "max_boundary", "min_coverage", "max_torn"):
        found[f"{name} alone"] = replace(off, **{name: getattr(default, name)})
    published = PRESETS["diffusion4d"]
    found["published, raw frames"] = replace(published, max_boundary=None, max_touch=None)
    found["published, window"] = replace(published, max_boundary=None, max_touch=None, ssim_frames="window")
    found["published with boundary"] = published
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*")
    table, keep = load_labels(parser.parse_args().tables)
    print(f"{len(keep)} labelled clips, {int(keep.sum())} to keep")
    print(f"{'rules':<26} accepted  precision  recall  wrong")
    result = {}
    for name, rules in candidates().items():
        found = score(verdicts(table, rules), keep)
        result[name] = found
        print(
            f"{name:<26} {found['accepted']:8d} {found['precision']:10.3f} {found['recall']:7.3f} "
            f"{found['wrong']:6d}"
        )
    print("min_motion  precision  recall")
    for threshold in (0.005, 0.008, 0.01, 0.012, 0.014, 0.016, 0.018, 0.02, 0.03, 0.05):
        found = score(verdicts(table, replace(PRESETS["default"], min_motion=threshold)), keep)
        print(f"{threshold:10.3f} {found['precision']:10.3f} {found['recall']:7.3f}")
    print(json.dumps({"bench": "curate_labels", "clips": len(keep), **result}))


if __name__ == "__main__":
    main()
