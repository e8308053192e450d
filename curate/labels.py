"""Labels that people gave to clips: one Parquet file, a row per clip and reviewer, with all that was said.

A label speaks of one action of one asset's file: a file that has changed since is another clip. What was
taken back stays in the file as a row without a label, so that the history (`audit`) is whole.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from orbit4d.curate.columns import METADATA_KEY, with_info
from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.damage import reason
from orbit4d.datasets.core.errors import InputError, WorkError

#: What a reviewer can say. A flag asks for a second look and decides nothing.
LABELS = ("accept", "reject", "flag")
#: Reason code of a clip that people rejected.
REASON = "label"
#: Reasons that a look at the clip does not speak about: an accepted label leaves them standing.
GUARDS = ("license", "benchmark:")
COLUMNS = ("label", "label_audit")

_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
_EVENT = pa.struct(
    [("at", _TIME), ("label", _TEXT), ("undo", pa.bool_()), ("verdict", _TEXT), ("reasons", pa.list_(_TEXT))]
)
#: name -> (type, description). Order is the file's.
FIELDS: dict[str, tuple[pa.DataType, str]] = {
    "uid": (_TEXT, "asset id"),
    "action": (_TEXT, "name of the action"),
    "action_index": (pa.int64(), "order of the action in the file, from 0"),
    "asset_sha256": (_TEXT, "SHA-256 of the asset file that was inspected; '' where nobody knows it"),
    "reviewer": (_TEXT, "who looked"),
    "label": (_TEXT, "accept, reject or flag; null: taken back"),
    "labelled_at": (_TIME, "when it was said"),
    "verdict": (_TEXT, "what the rules had said of the clip then"),
    "reasons": (pa.list_(_TEXT), "and why"),
    "audit": (pa.list_(_EVENT), "all that the reviewer said of the clip and took back, the first first"),
}
SCHEMA = pa.schema([pa.field(n, kind, metadata={"description": text}) for n, (kind, text) in FIELDS.items()])

#: (uid, action_index): which clip.
Clip = tuple[str, int]


@dataclass
class Label:
    """What one reviewer said of one clip."""

    uid: str
    action: str
    action_index: int
    asset_sha256: str
    reviewer: str
    label: str | None = None
    labelled_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    audit: tuple[dict[str, Any], ...] = ()

    @property
    def clip(self) -> Clip:
        """Which clip it speaks of."""
        return self.uid, self.action_index

    def said(self, label: str | None, verdict: str, reasons: Sequence[str], undo: bool = False) -> Label:
        """The same reviewer's next word on the clip, behind all earlier ones."""
        now = datetime.now(UTC)
        event = {"at": now, "label": label, "undo": undo, "verdict": verdict, "reasons": list(reasons)}
        who = (self.uid, self.action, self.action_index, self.asset_sha256, self.reviewer)
        return Label(*who, label, now, verdict, tuple(reasons), (*self.audit, event))


class LabelBook:
    """The labels of a file that is being written: every change is on the disk before it returns.

    One process writes a file at a time. Safe for many threads.
    """

    def __init__(self, path: str | os.PathLike[str], about: str = "") -> None:
        """Open or begin the file; `about` names the table the labels are for. Raises InputError."""
        self.path, self._about = Path(path), about
        self._mutex = threading.Lock()
        if self.path.suffix != ".parquet":
            raise InputError(f"{path}: labels are a Parquet file; end its name in .parquet")
        self._held: TextIO | None = _lock(self.path)
        try:
            found = read_labels(self.path) if self.path.exists() else []
        except BaseException:
            self.close()
            raise
        self._rows = {(*label.clip, label.reviewer): label for label in found}

    def close(self) -> None:
        """Let another process write the file."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def all(self) -> list[Label]:
        """Every label that stands, the earliest first."""
        with self._mutex:
            rows = [label for label in self._rows.values() if label.label is not None]
        return sorted(rows, key=lambda label: label.labelled_at)

    def put(self, blank: Label, label: str | None, verdict: str, reasons: Sequence[str]) -> Label:
        """Note what `blank.reviewer` says of its clip now; None takes it back. Raises WorkError on a full or
        broken disk, and then nothing has changed."""
        if label is not None and label not in LABELS:
            raise InputError(f"label {label!r}: say {', '.join(LABELS)}")
        with self._mutex:
            key = (*blank.clip, blank.reviewer)
            before = self._rows.get(key)
            # Of another file under the same name nothing that was said before holds.
            if before is None or before.asset_sha256 != blank.asset_sha256:
                before = blank
            return self._replace(key, before.said(label, verdict, reasons))

    def undo(self, reviewer: str) -> Label | None:
        """Take back the reviewer's latest word: what was said before it stands again. None: nothing is left
        to take back. The undoing is an event of the audit as well."""
        with self._mutex:
            stacks = {key: _standing(row.audit) for key, row in self._rows.items() if key[2] == reviewer}
            mine = [key for key, stack in stacks.items() if stack]
            if not mine:
                return None
            key = max(mine, key=lambda key: stacks[key][-1]["at"])
            last, stack = self._rows[key], stacks[key]
            before = stack[-2]["label"] if len(stack) > 1 else None
            return self._replace(key, last.said(before, last.verdict, last.reasons, undo=True))

    def _replace(self, key: tuple[str, int, str], label: Label) -> Label:
        before = self._rows.get(key)
        self._rows[key] = label
        try:
            self._write()
        except BaseException:
            if before is None:
                del self._rows[key]
            else:
                self._rows[key] = before
            raise
        return label

    def _write(self) -> None:
        if self._held is None:
            raise WorkError(f"{self.path}: is closed; no label can be written any more")
        rows = self._rows.values()
        arrays = [
            pa.array([list(v) if isinstance(v := getattr(r, name), tuple) else v for r in rows], kind)
            for name, (kind, _) in FIELDS.items()
        ]
        table = with_info(pa.Table.from_arrays(arrays, schema=SCHEMA), {"labels_of": self._about})
        try:
            with replacing_file(self.path, durable=True) as draft:
                pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise WorkError(f"{self.path}: the label was not written ({error.strerror})") from error


def _standing(audit: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The words of a history that were not taken back."""
    stack: list[dict[str, Any]] = []
    for event in audit:
        if not event["undo"]:
            stack.append(event)
        elif stack:
            stack.pop()
    return stack


def _lock(path: Path) -> TextIO:
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = open(lock, "a", encoding="utf-8")  # noqa: SIM115 (held until the book is closed)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --labels") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        raise InputError(
            f"{path}: another review is writing it; open that one's page, or choose another --labels"
        ) from None
    return held


def read_labels(path: str | os.PathLike[str]) -> list[Label]:
    """The labels of a file that `orbit4d review` wrote, those taken back among them (label None); or of a
    .csv with uid, action and keep (1 or 0). Raises InputError."""
    name = os.fspath(path)
    try:
        if name.endswith(".csv"):
            return _from_csv(name)
        table = pq.read_table(name)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file of labels; check the path") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: is no file of labels, or damaged ({reason(error)})") from error
    missing = [
        column for column in ("uid", "action_index", "reviewer", "label") if column not in table.column_names
    ]
    if missing:
        raise InputError(f"{name}: is no file of labels: it has no column {missing[0]}")
    rows = table.select([n for n in FIELDS if n in table.column_names]).to_pylist()
    return [_label_of(row, name) for row in rows]


def _label_of(row: dict[str, Any], where: str) -> Label:
    if any(row[name] is None for name in ("uid", "action_index", "reviewer")):
        raise InputError(f"{where}: a label without uid, action_index or reviewer; every label has them")
    if row["label"] is not None and row["label"] not in LABELS:
        raise InputError(f"{where}: label {row['label']!r} of {row['uid']}; a label is {', '.join(LABELS)}")
    return Label(
        row["uid"],
        row.get("action") or "",
        row["action_index"],
        row.get("asset_sha256") or "",
        row["reviewer"],
        row["label"],
        row.get("labelled_at") or datetime.fromtimestamp(0, UTC),
        row.get("verdict") or "",
        tuple(row.get("reasons") or ()),
        tuple(row.get("audit") or ()),
    )


def _from_csv(path: str) -> list[Label]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows, 2):
        if row.get("keep") not in ("0", "1") or not row.get("uid") or row.get("action") is None:
            raise InputError(f"{path}: line {number}: labels have uid, action and keep, which is 1 or 0")
        label = "accept" if row["keep"] == "1" else "reject"
        index = int(row.get("action_index") or -1)
        found.append(Label(row["uid"], row["action"], index, row.get("asset_sha256") or "", "csv", label))
    return found


def labels_of_table(path: str | os.PathLike[str]) -> str:
    """The table that a file of labels says it is for; '' where it does not."""
    import json

    with contextlib.suppress(OSError, pa.ArrowException, ValueError):
        stored = (pq.read_schema(path).metadata or {}).get(METADATA_KEY)
        return str(json.loads(stored).get("labels_of", "")) if stored else ""
    return ""


@dataclass
class Voted:
    """What all reviewers together say of a clip."""

    label: str | None
    """accept or reject; None where they are of two minds, or only flagged it."""
    said: str
    """Who said what, for the audit."""


def votes(labels: Iterable[Label]) -> dict[Clip, Voted]:
    """Clip -> what most reviewers say; a flag is no vote."""
    found: dict[Clip, list[Label]] = {}
    for label in labels:
        if label.label is not None:
            found.setdefault(label.clip, []).append(label)
    return {clip: _vote(some) for clip, some in found.items()}


def _vote(labels: Sequence[Label]) -> Voted:
    counts = Counter(label.label for label in labels)
    difference = counts["accept"] - counts["reject"]
    label = "accept" if difference > 0 else "reject" if difference < 0 else None
    return Voted(label, ", ".join(f"{one.reviewer}: {one.label}" for one in labels))


def matched(table: pa.Table, labels: Iterable[Label]) -> tuple[dict[int, list[Label]], list[str]]:
    """Row of the table -> its labels, and notes on labels that no row takes: of clips that are not there, and
    of files that have changed since."""
    keys = zip(*(table[name].to_pylist() for name in ("uid", "action_index", "action", "asset_sha256")))
    by_index: dict[Clip, int] = {}
    by_name: dict[tuple[str, str], int] = {}
    contents = []
    for row, (uid, index, action, sha256) in enumerate(keys):
        by_index[uid, index or 0] = row
        by_name.setdefault((uid, action or ""), row)
        contents.append(sha256 or "")
    found: dict[int, list[Label]] = {}
    gone, changed = 0, 0
    for label in labels:
        # A label of a .csv knows the action by its name alone.
        named = (label.uid, label.action)
        place = by_index.get(label.clip) if label.action_index >= 0 else by_name.get(named)
        if place is None:
            gone += 1
        elif label.asset_sha256 and contents[place] and label.asset_sha256 != contents[place]:
            changed += 1
        else:
            found.setdefault(place, []).append(label)
    notes = [f"{gone} labels are of clips that the table does not hold"] if gone else []
    notes += (
        [f"{changed} labels are of files that have changed since; they are not heeded"] if changed else []
    )
    return found, notes


def apply_labels(table: pa.Table, labels: Sequence[Label]) -> tuple[pa.Table, list[str]]:
    """A decided table in which people have the last word, with the columns `label` and `label_audit`, and
    notes on what could not be heeded.

    An accepted clip loses its reasons but those of GUARDS; a rejected one gains the reason `label`. A clip
    that could not be measured stays what it is. Where as many accept as reject, the rules decide.
    """
    rows, notes = matched(table, [label for label in labels if label.label is not None])
    verdicts, reasons = table["verdict"].to_pylist(), table["reasons"].to_pylist()
    status = table["status"].to_pylist()
    chosen: list[str | None] = [None] * table.num_rows
    audit: list[str | None] = [None] * table.num_rows
    split, guarded, unmeasured = 0, 0, 0
    for row, some in rows.items():
        vote = _vote(some)
        audit[row] = f"rules: {verdicts[row]}{_why(reasons[row])}; {vote.said}"
        split += vote.label is None and any(label.label != "flag" for label in some)
        if vote.label is None:
            continue
        if status[row] != "measured":
            unmeasured += vote.label == "accept"
            continue
        chosen[row] = vote.label
        if vote.label == "reject":
            verdicts[row], reasons[row] = "rejected", [*reasons[row], REASON]
        else:
            reasons[row] = [code for code in reasons[row] if code.startswith(GUARDS)]
            verdicts[row] = "rejected" if reasons[row] else "accepted"
            guarded += bool(reasons[row])
    for count, text in (
        (split, "clips on which reviewers are of two minds: the rules decide"),
        (guarded, "accepted clips stay out for their licence or benchmark, which no look decides"),
        (unmeasured, "accepted clips could not be measured and stay out"),
    ):
        notes += [f"{count} {text}"] if count else []
    columns: tuple[tuple[str, Any], ...] = (
        ("verdict", pa.array(verdicts, pa.string())),
        ("reasons", pa.array(reasons, pa.list_(pa.string()))),
        ("label", pa.array(chosen, pa.string())),
        ("label_audit", pa.array(audit, pa.string())),
    )
    for name, values in columns:
        table = _put(table, name, values)
    return table, notes


_MEANINGS = {
    "label": "what people decided: accept or reject; null: nobody did, or they are of two minds",
    "label_audit": "what the rules said, and who said what",
}


def without_labels(table: pa.Table) -> pa.Table:
    """The table without what earlier labels put into it."""
    return table.drop_columns([name for name in COLUMNS if name in table.column_names])


def _put(table: pa.Table, name: str, values: Any) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), table.schema.field(name), values)
    return table.append_column(pa.field(name, values.type, metadata={"description": _MEANINGS[name]}), values)


def _why(reasons: Sequence[str]) -> str:
    return f" ({', '.join(reasons)})" if reasons else ""
