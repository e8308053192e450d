"""Labelled clips with their measures, and folds of them in which no asset is on both sides."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.curate import columns
from orbit4d.curate.labels import labels_of_table, matched, read_labels, votes
from orbit4d.curate.tables import read_table
from orbit4d.datasets.core.errors import InputError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """What is fitted to."""

    table: pa.Table
    """Measured rows, one a labelled clip."""
    keep: Mask
    """[rows] what people say of them."""
    whole: pa.Table
    """All rows of the table the labels are of; the labelled ones where there is none."""
    notes: tuple[str, ...] = ()

    @property
    def assets(self) -> npt.NDArray[np.str_]:
        """[rows] whose clip it is."""
        return np.array(self.table["uid"].to_pylist(), str)


def read_truth(labels: str, table: str | None = None) -> Truth:
    """Labels of `orbit4d review` with the measures of `table`, or of the table they were given for; or a .csv
    with uid, action, keep and, without `table`, columns of measures. Clips that were flagged, or on which
    reviewers are of two minds, are left out. Raises InputError."""
    if labels.endswith(".csv") and table is None:
        rows, keep = _with_measures(labels)
        return _checked(Truth(rows, keep, rows), labels)
    place = table or labels_of_table(labels)
    if not place:
        raise InputError(f"{labels}: does not say which table it labels; give --table")
    whole = read_table(place)
    whole = whole.drop_columns(["preview"])
    rows_of, notes = matched(whole, read_labels(labels))
    status = whole["status"].to_pylist()
    chosen, said, undecided = [], [], 0
    for row, some in sorted(rows_of.items()):
        words = {vote.label for vote in votes(some).values()} - {None}
        if status[row] != "measured":
            continue
        undecided += not words
        if words:
            chosen.append(row)
            said.append("accept" in words)
    if undecided:
        notes.append(f"{undecided} clips only flagged, or with reviewers of two minds, are left out")
    return _checked(Truth(whole.take(chosen), np.array(said, bool), whole, tuple(notes)), labels)


def _checked(truth: Truth, labels: str) -> Truth:
    kept, n = int(truth.keep.sum()), len(truth.keep)
    assets = len(set(truth.assets.tolist()))
    if min(kept, n - kept) < 3 or assets < 4:
        raise InputError(
            f"{labels}: {kept} clips to keep and {n - kept} to drop of {assets} assets "
            "are too few: label at least 3 of each, of at least 4 assets"
        )
    return truth


def _with_measures(path: str) -> tuple[pa.Table, Mask]:
    labels = read_labels(path)
    with open(path, newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    kinds = (pa.float64(), pa.int64())
    names = [name for name in records[0] if name in columns.COLUMNS and columns.COLUMNS[name][0] in kinds]
    if "motion_geometry" not in names:
        raise InputError(f"{path}: has no measures; give --table TABLE with those of its clips")
    rows = []
    for number, record in enumerate(records, 2):
        row: dict[str, object] = {"uid": record["uid"], "action": record["action"], "status": "measured"}
        for name in names:
            try:
                row[name] = float(record[name]) if record[name] else None
            except ValueError as error:
                raise InputError(f"{path}: line {number}: {name} is {record[name]!r}, no number") from error
        rows.append(row)
    return columns.build(rows, {}), np.array([label.label == "accept" for label in labels], bool)


def folds(truth: Truth, count: int, seed: int) -> list[Mask]:
    """Masks [rows] of what is held out, one a fold; every asset is held out once, with all of its clips.

    Assets that have clips to drop are dealt out first, so that no fold lacks them while others have many.
    """
    assets = truth.assets
    names = np.unique(assets)
    drops = np.array([(~truth.keep[assets == name]).any() for name in names])
    order = np.random.default_rng(seed).permutation(len(names))
    dealt = np.concatenate([order[drops[order]], order[~drops[order]]])
    fold_of = {names[i]: k % min(count, len(names)) for k, i in enumerate(dealt)}
    numbers = np.array([fold_of[name] for name in assets])
    return [numbers == k for k in range(min(count, len(names)))]


@dataclass(frozen=True)
class Score:
    """How accepting agrees with people."""

    clips: int
    accepted: int
    wrong: int
    precision: float
    """Of those accepted, the share that people keep."""
    recall: float
    """Of those people keep, the share that is accepted."""

    def __str__(self) -> str:
        return f"precision {self.precision:.3f}, recall {self.recall:.3f}, {self.wrong} of {self.clips} wrong"


def score(accepted: Mask, keep: Mask) -> Score:
    """Precision and recall; of nothing accepted the precision is 1."""
    good, said = int((accepted & keep).sum()), int(accepted.sum())
    precision = good / said if said else 1.0
    wrong = int((accepted != keep).sum())
    return Score(len(keep), said, wrong, precision, good / max(int(keep.sum()), 1))
