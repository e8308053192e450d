"""From measures to a verdict: named thresholds, every reason that applies, nothing measured again.

A rule looks at one or two columns and says which rows it rejects. A null measure rejects nothing: what was
not measured does not count against an asset. All rules are monotone: a looser threshold never rejects more.
"""

from __future__ import annotations

import fnmatch
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.curate.columns import with_info
from orbit4d.curate.leaks import benchmark_masks, with_split
from orbit4d.curate.rule_settings import PRESETS, Rules
from orbit4d.curate.tags import keep_mask
from orbit4d.datasets.core.errors import InputError

Mask = npt.NDArray[np.bool_]


#: Times whose previews are compared with the one at the window's start.
MOMENTS = ("quarter", "half", "peak")
#: SSIM above which two previews are the same image: they are drawn with one seed, without noise of their own.
SAME_IMAGE = 1.0 - 1e-6

#: Every reason code with its meaning; `benchmark:<name>`, `bad_file:*` and the fleet's failures come on top.
REASONS = {
    "static": "the asset has no action, or this action never moves",
    "low_motion": "it moves too little",
    "drastic": "it moves too much",
    "flies_away": "it leaves the place where it starts",
    "boundary": "it reaches out of the frame",
    "empty": "next to nothing of the frame is covered",
    "small": "it is a speck once all that it does fits the frame",
    "unseen": "it looks the same at every time compared: it slides along its own surface, or what moves is"
    " hidden",
    "exploded": "the skin tears",
    "too_short": "the moving window is too short",
    "too_long": "the moving window is too long",
    "too_heavy": "too many triangles",
    "missing_textures": "textures are missing",
    "rigid": "it only moves as one rigid body",
    "flat": "it is seen in one single colour",
    "near_duplicate": "it looks like an earlier asset",
    "license": "the licence is not among those asked for",
    "keep": "the expression asked for is not true, or a value that it needs is missing",
    "ssim_still": "the published preview rule finds too little motion",
    "ssim_drastic": "the published preview rule finds too much motion",
    "label": "people looked at it and rejected it",
}


class Columns:
    """Columns of a table as float64 with NaN for null, converted once."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.n = table, table.num_rows
        self._seen: dict[str, npt.NDArray[np.float64]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        if name not in self._seen:
            if name in self.table.column_names:
                column = pc.cast(self.table[name], pa.float64())
                values = pc.fill_null(column, float("nan")).to_numpy()
            else:
                values = np.full(self.n, np.nan)
            self._seen[name] = values
        return self._seen[name]

    def known(self, name: str) -> bool:
        return name in self.table.column_names and self.table[name].null_count < self.n


#: Which rows a rule rejects.
Test = Callable[[Columns], Mask]


def _compare(
    values: Callable[[Columns], npt.NDArray[np.float64]], operator: np.ufunc, threshold: float | None
) -> Test | None:
    # A comparison with NaN is false, so null rejects nothing.
    if threshold is None:
        return None
    limit = float(threshold)
    return lambda columns: operator(values(columns), limit)


def _column(name: str) -> Callable[[Columns], npt.NDArray[np.float64]]:
    return lambda columns: columns[name]


def _below(threshold: float | None, *names: str) -> Test | None:
    return _either(*(_compare(_column(name), np.less, threshold) for name in names))


def _above(threshold: float | None, *names: str) -> Test | None:
    return _either(*(_compare(_column(name), np.greater, threshold) for name in names))


def _both(*tests: Test | None) -> Test | None:
    on = [test for test in tests if test is not None]
    return (lambda columns: np.logical_and.reduce([test(columns) for test in on])) if on else None


def _all(*tests: Test | None) -> Test | None:
    """As `_both`, but off when one of its thresholds is."""
    return None if None in tests else _both(*tests)


def _either(*tests: Test | None) -> Test | None:
    on = [test for test in tests if test is not None]
    return (lambda columns: np.logical_or.reduce([test(columns) for test in on])) if on else None


def _static(columns: Columns) -> Mask:
    # Rows of rendered datasets have no window to speak of; geometry says whether one was looked for.
    return np.isnan(columns["window_start"]) & ~np.isnan(columns["motion_geometry"])


def _duplicates(table: pa.Table) -> Mask:
    return pc.is_valid(table["duplicate_of"]).to_numpy()


def _moving(test: Test | None) -> Test | None:
    # What does not move at all is `static`; saying `low_motion` as well would blur the counts.
    if test is None:
        return None
    return lambda columns: test(columns) & ~_static(columns)


def _staying(test: Test | None, max_growth: float | None) -> Test | None:
    # What flies away is small in the frame that holds all of its flight, and `flies_away` says so.
    if test is None or max_growth is None:
        return test
    limit = float(max_growth)
    return lambda columns: test(columns) & ~(columns["union_growth"] > limit)


def _window(columns: Columns) -> npt.NDArray[np.float64]:
    return columns["window_end"] - columns["window_start"]


def _shape_share(columns: Columns) -> npt.NDArray[np.float64]:
    moved = columns["motion_geometry"]
    return np.divide(columns["motion_shape"], moved, out=np.full(columns.n, np.nan), where=moved > 0)


def _unseen(rules: Rules) -> Test | None:
    # Where all previews are one and the same image nothing is seen to move, however much it does.
    same = None if rules.max_alike is None else max(rules.max_alike, SAME_IMAGE)
    alike, identical = (
        [_above(limit, f"ssim_object_{moment}") for moment in MOMENTS] for limit in (rules.max_alike, same)
    )
    return _either(_all(_compare(_shape_share, np.less, rules.min_shape), *alike), _all(*identical))


def _licensed(patterns: tuple[str, ...]) -> Test:
    """Rejects licences that match none of the patterns."""

    def test(columns: Columns) -> Mask:
        names = columns.table["license"].combine_chunks().dictionary_encode()
        wanted = [
            any(fnmatch.fnmatchcase((name or "").lower(), pattern.lower()) for pattern in patterns)
            for name in names.dictionary.to_pylist()
        ]
        codes = pc.fill_null(names.indices, -1).to_numpy()
        return ~np.append(np.array(wanted, bool), False)[codes]

    return test


def _previews(rules: Rules) -> tuple[str, str]:
    """The two columns of the published preview rule."""
    suffix = "_raw" if rules.ssim_frames == "raw" else ""
    return f"ssim_quarter{suffix}", f"ssim_half{suffix}"


class Rule(typing.NamedTuple):
    """One reason to reject a row."""

    reason: str
    """Its code, a key of REASONS."""
    test: Callable[[Rules], Test | None]
    """Which rows it rejects under given thresholds; None when they switch it off."""
    needs: Callable[[Rules], tuple[str, ...]] = lambda rules: ()
    """Columns it cannot do without."""


#: Every rule, in the order in which a row's reasons are listed.
RULES = (
    Rule("static", lambda r: _static if r.still == "drop" else None),
    Rule("low_motion", lambda r: _moving(_below(r.min_motion, "motion_geometry"))),
    Rule("drastic", lambda r: _above(r.max_motion, "motion_geometry")),
    Rule("flies_away", lambda r: _above(r.max_growth, "union_growth")),
    Rule("boundary", lambda r: _either(_above(r.max_boundary, "out_of_frame"),
                                       _above(r.max_touch, "boundary_touch"))),
    Rule("empty", lambda r: _either(_below(r.min_coverage, "coverage_mean", "alpha_coverage", "coverage"),
                                    None if r.min_coverage is None else _above(0.0, "blank_frames"))),
    Rule("small", lambda r: _staying(_below(r.min_fit, "coverage_fit"), r.max_growth)),
    Rule("unseen", lambda r: _moving(_unseen(r))),
    Rule("exploded", lambda r: _above(r.max_torn, "torn_edges")),
    Rule("too_short", lambda r: _compare(_window, np.less, r.min_seconds)),
    Rule("too_long", lambda r: _compare(_window, np.greater, r.max_seconds)),
    Rule("too_heavy", lambda r: _above(r.max_triangles, "n_triangles")),
    Rule("missing_textures", lambda r: _above(r.max_missing_textures, "n_missing_textures")),
    Rule("rigid",
         lambda r: _moving(_below(r.min_nonrigid, "motion_nonrigid")) if r.rigid == "drop" else None),
    Rule("flat", lambda r: _above(0.5, "flat") if r.flat == "drop" else None),
    Rule("near_duplicate",
         lambda r: (lambda columns: _duplicates(columns.table)) if r.duplicates == "drop" else None,
         lambda r: ("phash",)),
    Rule("license", lambda r: _licensed(r.license) if r.license else None, lambda r: ("license",)),
    Rule("ssim_still", lambda r: _both(*(_above(r.max_ssim, name) for name in _previews(r))), _previews),
    Rule("ssim_drastic", lambda r: _below(r.min_ssim, *_previews(r)), _previews),
)  # fmt: skip


def _tests(rules: Rules) -> list[tuple[str, Test, tuple[str, ...]]]:
    """(reason, which rows it rejects, columns it cannot do without) of every rule that is on."""
    on = [(rule.reason, rule.test(rules), rule.needs(rules)) for rule in RULES]
    return [(reason, test, needs) for reason, test, needs in on if test is not None]


def reject_masks(table: pa.Table | Columns, rules: Rules) -> dict[str, Mask]:
    """Reason -> [rows] which measured rows it rejects, for every rule that is on. Who asks again and again
    gives `Columns`, which are converted once.

    Raises InputError when a rule needs a measure that the table does not have at all.
    """
    columns = table if isinstance(table, Columns) else Columns(table)
    table = columns.table
    measured = pc.equal(table["status"], "measured").to_numpy()
    masks = {}
    for reason, test, needs in _tests(rules):
        for name in needs:
            if measured.any() and not columns.known(name):
                raise InputError(
                    f"the rule `{reason}` needs the measure {name}, which the table does not have; "
                    "measure again with --previews both, or switch the rule off"
                )
        masks[reason] = test(columns) & measured
    if rules.keep:
        masks["keep"] = ~keep_mask(table, rules.keep)[0] & measured
    if rules.benchmarks == "drop":
        masks |= {reason: mask & measured for reason, mask in benchmark_masks(table).items()}
    return masks


def meaning_of(reason: str) -> str:
    """What a reason code of a rule means; '' for any other code."""
    if reason.startswith("benchmark:"):
        return f"an object of the benchmark {reason.partition(':')[2]}, which is not to be trained on"
    return REASONS.get(reason, "")


def judged(table: pa.Table, masks: Mapping[str, Mask]) -> tuple[pa.Array, pa.Array]:
    """The columns `verdict` and `reasons` of a table whose rows `masks` reject."""
    n = table.num_rows
    failure = pc.fill_null(table["failure"], "").combine_chunks()
    has_failure = pc.not_equal(failure, "").to_numpy(zero_copy_only=False)
    # One column of reasons a rule, the failure first; row-major order of the hits is the lists' content.
    hits = np.column_stack([has_failure, *masks.values()]) if n else np.zeros((0, 1 + len(masks)), bool)
    rows, which = np.nonzero(hits)
    failures = failure.dictionary_encode()
    names = [*failures.dictionary.to_pylist(), *masks]
    own = failures.indices.to_numpy()
    codes = np.where(which == 0, own[rows], which - 1 + len(failures.dictionary)).astype(np.int32)
    values = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string())).cast(pa.string())
    offsets = np.concatenate([[0], np.cumsum(hits.sum(axis=1))]).astype(np.int32)
    reasons = pa.ListArray.from_arrays(pa.array(offsets), values)
    failed = pc.equal(table["status"], "failed").to_numpy()
    code = np.where(failed, 2, np.where(hits.any(axis=1), 1, 0)).astype(np.int8)
    verdicts = pa.array(["accepted", "rejected", "failed"])
    verdict = pa.DictionaryArray.from_arrays(pa.array(code), verdicts).cast(pa.string())
    return verdict, reasons


def decide(table: pa.Table, rules: Rules = PRESETS["default"]) -> pa.Table:
    """The table with `verdict` and `reasons` by `rules`; the rules are kept in its metadata."""
    verdict, reasons = judged(table, reject_masks(table, rules))
    for name, column in (("verdict", verdict), ("reasons", reasons)):
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(name), column)
    return with_info(with_split(table, rules.benchmarks), {"rules": asdict(rules)})


def rule_effects(table: pa.Table, rules: Rules) -> list[dict[str, Any]]:
    """For every reason: how many measured rows it rejects, and how many of them no other rule does."""
    masks = reject_masks(table, rules)
    if not masks:
        return []
    total = np.sum([mask.astype(np.int32) for mask in masks.values()], axis=0)
    return [
        {"reason": reason, "rows": int(mask.sum()), "alone": int((mask & (total == 1)).sum())}
        for reason, mask in masks.items()
    ]


def make_rules(
    preset: str = "default", config: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Rules:
    """A preset, then a YAML file, then single settings, each over the one before. Raises InputError."""
    if preset not in PRESETS:
        raise InputError(f"no preset {preset!r}; choose {' or '.join(PRESETS)}")
    rules = PRESETS[preset]
    if config is not None:
        rules = _replace(rules, _read_yaml(config), config)
    return _replace(rules, overrides or {}, "the command line")


def _read_yaml(path: str) -> Mapping[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:160]})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: rules are `name: value` lines, such as `min_motion: 0.02`")
    return content


def _replace(rules: Rules, changes: Mapping[str, Any], where: str) -> Rules:
    known = {entry.name for entry in fields(Rules)}
    unknown = sorted(str(name) for name in changes if name not in known)
    if unknown:
        raise InputError(f"{where}: no rule named {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return replace(rules, **{str(name): value for name, value in changes.items()})
