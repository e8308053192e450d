"""What the page asks for: clips filtered and sorted by any column, verdicts under moved thresholds, labels.

Rows are numbered as in the table. DuckDB answers expressions and orders; the answers are kept, so that
turning a page or saying a label costs little however long the table is.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orbit4d.curate.columns import COLUMNS
from orbit4d.curate.labels import LABELS, Label, LabelBook, matched
from orbit4d.curate.report.page import margins
from orbit4d.curate.review.agreement import agreement
from orbit4d.curate.review.opening import Opened
from orbit4d.curate.review.sliders import SLIDERS, described, moved, nearest, values_of
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import Columns, judged, meaning_of, reject_masks
from orbit4d.datasets.core.errors import InputError

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]

MOST_ROWS = 120
#: Answers kept of each kind.
_KEPT = 12
#: Columns of the page that the table does not have: they follow from the thresholds.
LIVE = {"verdict": "accepted, rejected or failed, by the thresholds as they stand",
        "reasons": "every reason code that applies",
        "margin": "how far from the nearest threshold, as a power of ten"}  # fmt: skip
#: Measures of a tile; the panel beside shows all.
TILE = ("motion_geometry", "motion_nonrigid", "union_growth", "coverage_fit", "coverage", "motion_magnitude",
        "ssim_object_peak", "seconds")  # fmt: skip
_VERDICTS = ("accepted", "rejected", "failed")


class _Decided:
    """Verdicts under one set of thresholds."""

    def __init__(self, columns: Columns, rules: Rules) -> None:
        table = columns.table
        self.masks = reject_masks(columns, rules)
        verdict, self.reasons = judged(table, self.masks)
        self.verdict = verdict.dictionary_encode()
        codes = {name: i for i, name in enumerate(self.verdict.dictionary.to_pylist())}
        own = self.verdict.indices.to_numpy()
        self.is_: dict[str, Mask] = {name: own == codes.get(name, -1) for name in _VERDICTS}
        self.margin = margins(table, rules)
        self.effects = self._effects()

    def _effects(self) -> list[dict[str, Any]]:
        """Reason codes with how many rows each rejects, and how many it alone."""
        if not self.masks:
            return []
        total = np.zeros(len(self.margin), np.int16)
        for mask in self.masks.values():
            total += mask
        found: list[dict[str, Any]] = [
            {"reason": name, "rows": int(mask.sum()), "alone": int((mask & (total == 1)).sum())}
            for name, mask in self.masks.items()
        ]
        return [{**one, "meaning": meaning_of(one["reason"])} for one in found if one["rows"]]


class Review:
    """An open source with its labels. Safe for many threads."""

    def __init__(self, opened: Opened, book: LabelBook) -> None:
        # In one chunk, so that single values are found at once.
        self.opened, self.book, self.table = opened, book, opened.table.combine_chunks()
        self.n = self.table.num_rows
        self._columns = Columns(self.table)
        self._lock = threading.RLock()
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}
        self._groups = _groups(self.table)
        self._labels: dict[str, npt.NDArray[np.int8]] = {}
        self._database = _connect()
        self._shown = {name: self._columns[name] for name in TILE if self._columns.known(name)}
        self.notes = [*opened.notes]
        found, notes = matched(self.table, book.all())
        self.notes += notes
        for row, labels in found.items():
            for label in labels:
                self._note(row, label)
        keys = zip(self.table["uid"].to_pylist(), self.table["action_index"].to_pylist())
        self._row_of = {(uid, index or 0): row for row, (uid, index) in enumerate(keys)}
        # So that the first page does not wait for it.
        self._decided(opened.rules)

    def _keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            if key not in kept:
                kept[key] = make()
                while len(kept) > _KEPT:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return kept[key]

    def _decided(self, rules: Rules) -> _Decided:
        return self._keep("decided", rules, lambda: _Decided(self._columns, rules))

    # What the page asks -----------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What does not change while the page is open."""
        names = [name for name in self.table.column_names if name not in LIVE]
        texts = {name: COLUMNS[name][1] if name in COLUMNS else "" for name in names}
        # Columns with nothing in them offer no choice.
        known = [name for name in names if self.table[name].null_count < self.n]
        return {
            "source": self.opened.source,
            "rows": self.n,
            "labels": str(self.book.path),
            "columns": [{"name": n, "text": {**texts, **LIVE}[n]} for n in (*LIVE, *known)],
            "sliders": described(self._columns, self.opened.rules),
            "rules": asdict(self.opened.rules),
            "notes": self.notes,
            "frames": self.opened.frames is not None,
        }

    def rows(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A page of clips under filters, an order and thresholds, and the counts under them.

        `asked`: rules {name: value}, verdict, reason, label, changed, search, where, sort, descending, start
        (place in the order), limit, reviewer, focus (a rule whose nearest clips are wanted).
        """
        rules = moved(self.opened.rules, _dict(asked.get("rules")))
        decided, stored = self._decided(rules), self._decided(self.opened.rules)
        reviewer = _text(asked.get("reviewer"))
        order = self._order(_text(asked.get("sort")), bool(asked.get("descending")), rules)
        mask = self._filter(asked, rules, reviewer)
        start, limit = _count(asked.get("start")), min(_count(asked.get("limit"), 60), MOST_ROWS)
        places = np.flatnonzero(mask[order])
        first = int(np.searchsorted(places, start))
        chosen = places[first : first + limit]
        more = first + limit < len(places)
        accepted, before = decided.is_["accepted"], stored.is_["accepted"]
        answer = {
            "total": len(places),
            "first": first,
            "next": int(places[first + limit]) if more else None,
            "rows": [self._tile(int(row), decided, reviewer) for row in order[chosen]],
            "counts": {name: int(decided.is_[name].sum()) for name in _VERDICTS},
            "gained": int((accepted & ~before).sum()),
            "lost": int((before & ~accepted).sum()),
            "reasons": decided.effects,
            **self.standing(reviewer),
        }
        if focus := _text(asked.get("focus")):
            answer["borderline"] = self._borderline(focus, rules, decided, reviewer)
        return answer

    def standing(self, reviewer: str) -> dict[str, Any]:
        """How many clips the reviewer has labelled, and how far reviewers agree."""
        with self._lock:
            mine = self._labels.get(reviewer, np.zeros(0, np.int8))
            labelled = {name: int((mine == i).sum()) for i, name in enumerate(LABELS, 1)}
        return {"labelled": labelled, "agreement": self._agreement()}

    def _agreement(self) -> list[dict[str, Any]]:
        return agreement(self.book.all()) if len(self._labels) > 1 else []

    def clip(self, row: int, rules: Mapping[str, Any], reviewer: str) -> dict[str, Any]:
        """Everything about one clip, and the clips of assets that look like its own."""
        self._check(row)
        decided = self._decided(moved(self.opened.rules, rules))
        values = self.table.slice(row, 1).to_pylist()[0]
        known = {
            name: value for name, value in values.items() if value not in (None, "", []) and name not in LIVE
        }
        alike = [r for r in self._groups.get(row, ()) if self.table["uid"][r].as_py() != values["uid"]]
        return {
            **self._tile(row, decided, reviewer),
            "values": known,
            "meanings": {code: meaning_of(code) for code in decided.reasons[row].as_py()},
            "alike": [self._tile(other, decided, reviewer) for other in alike[:24]],
            "others": self._others(row, reviewer),
        }

    def label(self, row: int, label: str | None, reviewer: str) -> dict[str, Any]:
        """Note what a reviewer says of a clip (None: takes it back); it is on the disk when this returns."""
        self._check(row)
        if not reviewer.strip():
            raise InputError("say who looks: a label needs a reviewer's name")
        decided = self._decided(self.opened.rules)
        uid, action, index, sha256 = (
            self.table[name][row].as_py() for name in ("uid", "action", "action_index", "asset_sha256")
        )
        blank = Label(uid, action or "", index or 0, sha256 or "", reviewer)
        verdict, reasons = decided.verdict[row].as_py(), decided.reasons[row].as_py()
        with self._lock:
            said = self.book.put(blank, label, verdict, reasons)
            self._note(row, said)
        return {
            "row": row,
            "label": said.label,
            "others": self._others(row, reviewer),
            **self.standing(reviewer),
        }

    def undo(self, reviewer: str) -> dict[str, Any]:
        """Take back the reviewer's latest label; `row` is None where there is nothing to take back."""
        with self._lock:
            said = self.book.undo(reviewer)
            row = self._row_of.get(said.clip) if said else None
            if said is not None and row is not None:
                self._note(row, said)
        name = f"{said.uid} {said.action}".strip() if said else ""
        found = {"row": row, "name": name, "label": said.label if said else None}
        return {**found, **self.standing(reviewer)}

    # How it is found --------------------------------------------------------------------------------------

    def _check(self, row: int) -> None:
        if not 0 <= row < self.n:
            raise InputError(f"row {row}: the table has rows 0 to {self.n - 1}")

    def _note(self, row: int, label: Label) -> None:
        mine = self._labels.setdefault(label.reviewer, np.zeros(self.n, np.int8))
        mine[row] = 0 if label.label is None else LABELS.index(label.label) + 1

    def _mine(self, reviewer: str) -> npt.NDArray[np.int8]:
        return self._labels.get(reviewer, np.zeros(self.n, np.int8))

    def _others(self, row: int, reviewer: str) -> dict[str, str]:
        """What others say of a clip; nothing until the reviewer has said something, who looks unswayed."""
        if not self._mine(reviewer)[row]:
            return {}
        codes = {who: int(some[row]) for who, some in self._labels.items() if who != reviewer}
        return {who: LABELS[code - 1] for who, code in codes.items() if code}

    def _tile(self, row: int, decided: _Decided, reviewer: str) -> dict[str, Any]:
        code = int(self._mine(reviewer)[row])
        table = self.table
        margin = float(decided.margin[row])
        return {
            "row": row,
            "uid": table["uid"][row].as_py(),
            "action": table["action"][row].as_py() or "",
            "verdict": decided.verdict[row].as_py(),
            "reasons": decided.reasons[row].as_py(),
            "margin": margin if np.isfinite(margin) else None,
            "label": LABELS[code - 1] if code else None,
            "others": self._others(row, reviewer),
            "alike": len(self._groups.get(row, ())),
            "preview": self.opened.previews.has(row),
            "frames": self.opened.frames is not None,
            "measures": {n: float(v[row]) for n, v in self._shown.items() if np.isfinite(v[row])},
        }

    def _borderline(self, focus: str, rules: Rules, decided: _Decided, reviewer: str) -> dict[str, Any]:
        slider = next((slider for slider in SLIDERS if slider.rule == focus), None)
        values = None if slider is None else values_of(slider, self._columns)
        threshold = getattr(rules, focus) if slider else None
        if values is None or threshold is None:
            return {"rule": focus, "rows": []}
        rows = nearest(values, threshold, 10)
        tiles = [{**self._tile(row, decided, reviewer), "value": float(values[row])} for row in rows]
        return {"rule": focus, "threshold": threshold, "rows": tiles}

    def _filter(self, asked: Mapping[str, Any], rules: Rules, reviewer: str) -> Mask:
        decided = self._decided(rules)
        mask = np.ones(self.n, bool)
        if verdict := _text(asked.get("verdict")):
            if verdict not in _VERDICTS:
                raise InputError(f"verdict {verdict!r}; it is one of {', '.join(_VERDICTS)}")
            mask &= decided.is_[verdict]
        if reason := _text(asked.get("reason")):
            mask &= decided.masks.get(reason, np.zeros(self.n, bool))
        if asked.get("changed"):
            mask &= decided.is_["accepted"] != self._decided(self.opened.rules).is_["accepted"]
        if label := _text(asked.get("label")):
            mask &= self._label_mask(label, reviewer, decided)
        if asked.get("alike"):
            mask &= self._keep("alike", None, self._alike_mask)
        if search := _text(asked.get("search")).lower():
            mask &= self._keep("search", search, lambda: self._search(search))
        if where := _text(asked.get("where")).strip():
            live = rules if _words(where) & set(LIVE) else None
            mask = mask & self._keep("where", (where, live), lambda: self._where(where, rules))
        return mask

    def _label_mask(self, label: str, reviewer: str, decided: _Decided) -> Mask:
        mine = self._mine(reviewer)
        if label == "none":
            return mine == 0
        if label in LABELS:
            return mine == LABELS.index(label) + 1
        if label == "against":  # the rules say otherwise
            accepted = decided.is_["accepted"]
            return ((mine == 1) & ~accepted) | ((mine == 2) & accepted)
        if label == "split":  # others say otherwise, as far as the reviewer has spoken
            some = [code for who, code in self._labels.items() if who != reviewer]
            apart = [((mine == 1) & (code == 2)) | ((mine == 2) & (code == 1)) for code in some]
            return np.logical_or.reduce(apart) if apart else np.zeros(self.n, bool)
        raise InputError(f"label {label!r}; it is none, against, split or one of {', '.join(LABELS)}")

    def _alike_mask(self) -> Mask:
        mask = np.zeros(self.n, bool)
        mask[list(self._groups)] = True
        return mask

    def _order(self, sort: str, descending: bool, rules: Rules) -> npt.NDArray[np.int64]:
        if not sort:
            return self._keep("order", None, lambda: np.arange(self.n))
        if sort not in LIVE and sort not in self.table.column_names:
            raise InputError(f"sort by {sort!r}: the table has no such column")
        key = (sort, descending, rules if sort in LIVE else None)
        return self._keep("order", key, lambda: self._sorted(sort, descending, rules))

    def _sorted(self, sort: str, descending: bool, rules: Rules) -> npt.NDArray[np.int64]:
        if sort == "margin":  # as the query below, in a third of the time: a moved slider waits for it
            margin = self._decided(rules).margin
            return np.argsort(np.where(np.isfinite(margin) & descending, -margin, margin), kind="stable")
        quoted = '"' + sort.replace('"', '""') + '"'
        way = "DESC" if descending else "ASC"
        # Ties in the table's order, so that a page never shows a clip twice; what is not known comes last.
        query = f"SELECT _row FROM part ORDER BY {quoted} {way} NULLS LAST, _row"
        return np.asarray(self._ask(query, {sort}, rules), np.int64)

    def _where(self, where: str, rules: Rules) -> Mask:
        mask = np.zeros(self.n, bool)
        mask[self._ask(f"SELECT _row FROM part WHERE ({where}\n)", _words(where), rules, where)] = True
        return mask

    def _search(self, text: str) -> Mask:
        mask = np.zeros(self.n, bool)
        joined = "concat_ws(' ', uid, action, caption, author, license)"
        query = f"SELECT _row FROM part WHERE contains(lower({joined}), $text)"
        names = {"uid", "action", "caption", "author", "license"}
        mask[self._ask(query, names, self.opened.rules, text=text)] = True
        return mask

    def _ask(
        self, query: str, words: set[str], rules: Rules, shown: str = "", **values: str
    ) -> npt.NDArray[np.int64]:
        """Rows that a query finds in the columns it names. Raises InputError for a broken expression."""
        import duckdb

        lowered = {word.lower() for word in words}
        arrays: dict[str, Any] = {"_row": pa.array(np.arange(self.n))}
        for name in self.table.column_names:
            for spelt in {name, name.removeprefix("tag:")}:
                if spelt.lower() in lowered and name not in LIVE:
                    arrays.setdefault(spelt, self.table[name])
        decided = self._decided(rules)
        live = {"verdict": decided.verdict, "reasons": decided.reasons}
        arrays |= {name: column for name, column in live.items() if name in lowered}
        if "margin" in lowered:
            arrays["margin"] = pa.array(decided.margin, mask=~np.isfinite(decided.margin))
        with self._database.cursor() as cursor:
            try:
                if len(cursor.extract_statements(query)) != 1:
                    raise InputError(f"{shown!r}: give one expression, not several statements")
                cursor.register("part", pa.table(arrays))
                found = cursor.execute(query, values or None).fetchnumpy()
            except duckdb.Error as error:
                raise InputError(f"{shown or query}: {str(error).splitlines()[0]}") from error
        return np.asarray(found["_row"], np.int64)


def _connect() -> Any:
    import duckdb

    connection = duckdb.connect(config={"threads": "2"})
    # Expressions are typed into a page; they must not reach files or the network.
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _groups(table: pa.Table) -> dict[int, list[int]]:
    """Row -> the first rows of all assets that look like its own, for rows of such assets."""
    if "duplicate_of" not in table.column_names:
        return {}
    first: dict[str, int] = {}
    roots: dict[str, str] = {}
    uids = table["uid"].to_pylist()
    for row, (uid, earlier) in enumerate(zip(uids, table["duplicate_of"].to_pylist())):
        first.setdefault(uid, row)
        roots[uid] = earlier or uid
    members: dict[str, list[int]] = {}
    for uid, root in roots.items():
        members.setdefault(root, []).append(first[uid])
    return {row: members[roots[uid]] for row, uid in enumerate(uids) if len(members[roots[uid]]) > 1}


def _words(expression: str) -> set[str]:
    bare = re.sub(r"'(?:[^']|'')*'", " ", expression.lower())
    # A quoted name may hold anything, say "tag:score".
    return {*re.findall(r"[a-z_][a-z0-9_]*", bare), *re.findall(r'"([^"]+)"', bare)}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 2000:
        raise InputError("a text of at most 2,000 letters is asked for")
    return value


def _dict(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError("rules are thresholds by their names")
    return value


def _count(value: Any, default: int = 0) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError("start and limit are whole numbers")
    return value


def rules_yaml(rules: Rules, given: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """The thresholds that differ from the defaults, as the file that `curate --rules` reads."""
    import yaml

    now, usual = asdict(moved(rules, given)), asdict(Rules())
    changed = {
        n: list(v) if isinstance(v, tuple) else v for n, v in now.items() if v != usual[n] or n in names
    }
    return yaml.safe_dump(changed, sort_keys=False) if changed else "{}\n"
