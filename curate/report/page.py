"""One HTML file that says what was kept, what was not, and why; everything is inside it.

Names and texts come from untrusted files, so whatever is written is escaped.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.curate.columns import COLUMNS, info_of
from orbit4d.curate.leaks import UNHASHED, counted
from orbit4d.curate.report.histograms import histogram_svg
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import meaning_of, rule_effects
from orbit4d.datasets.assets.inspection import REASONS as BAD_FILES
from orbit4d.datasets.core.atomic import write_text
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.remote import local_path

#: Measure -> (logarithmic axis, rules whose thresholds are drawn).
PLOTS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "motion_geometry": (True, ("min_motion", "max_motion")),
    "motion_nonrigid": (True, ("min_nonrigid",)),
    "motion_shape": (True, ()),
    "union_growth": (True, ("max_growth",)),
    "out_of_frame": (False, ("max_boundary",)),
    "coverage_mean": (False, ("min_coverage",)),
    "coverage_fit": (False, ("min_fit",)),
    "torn_edges": (False, ("max_torn",)),
    "speed_max": (True, ()),
    "jerk_rms": (True, ()),
    "turn_deg": (False, ()),
    "periodicity": (False, ()),
    "loop_gap": (False, ()),
    "seconds": (True, ()),
    "ssim_quarter": (False, ("max_ssim", "min_ssim")),
    "ssim_half": (False, ("max_ssim", "min_ssim")),
    "ssim_object_peak": (False, ("max_alike",)),
    "ssim_quarter_raw": (False, ("max_ssim", "min_ssim")),
    "ssim_half_raw": (False, ("max_ssim", "min_ssim")),
    "n_triangles": (True, ("max_triangles",)),
    "boundary_touch": (False, ("max_touch",)),
    "coverage": (False, ("min_coverage",)),
    "motion_magnitude": (True, ()),
}
_SHOWN = {"motion_geometry": "motion", "motion_nonrigid": "non-rigid", "union_growth": "growth",
          "out_of_frame": "outside", "coverage_mean": "coverage", "ssim_half": "SSIM", "torn_edges": "torn",
          "boundary_touch": "border", "motion_magnitude": "m"}  # fmt: skip
N_ACCEPTED, N_BORDERLINE, N_PER_REASON = 60, 36, 12


def write_report(table: pa.Table, folder: str | os.PathLike[str], rules: Rules | None = None) -> Path:
    """Write `folder`/index.html about a decided table and return its path.

    `rules` default to those stored with the table. Raises InputError for a table that was never decided.
    """
    stored = info_of(table).get("rules")
    if rules is None:
        if stored is None:
            raise InputError("this table was never decided; decide it before reporting on it")
        rules = Rules(**{**stored, "license": tuple(stored["license"])})
    page = _page(table, rules)
    target = local_path(folder) / "index.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, page, errors="surrogateescape")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error.strerror}); choose another folder"
        ) from error
    except OSError as error:
        raise WorkError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return target


def _page(table: pa.Table, rules: Rules) -> str:
    verdict = np.array(table["verdict"].to_pylist(), object)
    accepted = verdict == "accepted"
    style = files("orbit4d.curate.report").joinpath("report.css").read_text(encoding="utf-8")
    body = [
        _head(table, verdict),
        _reasons(table, rules),
        _plots(table, rules, accepted),
        _sheets(table, rules, verdict),
        _licences(table, accepted),
        _settings(table, rules),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><title>Curation report</title>'
        f"<style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _head(table: pa.Table, verdict: npt.NDArray[np.object_]) -> str:
    counts = Counter(verdict.tolist())
    n_assets = pc.count_distinct(table["uid"]).as_py()
    kept = pc.count_distinct(table.filter(pc.equal(table["verdict"], "accepted"))["uid"]).as_py()
    numbers = [
        (len(table), "actions"),
        (counts["accepted"], "accepted"),
        (counts["rejected"], "rejected"),
        (counts["failed"], "failed"),
        (n_assets, "assets"),
        (kept, "assets with an accepted action"),
    ]
    tiles = "".join(f"<div><b>{n:,}</b>{escape(text)}</div>" for n, text in numbers)
    return f'<h1>Curation report</h1><div class="counts">{tiles}</div>'


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    def cell(value: Any, tag: str) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = f"{value:,}" if isinstance(value, int) and number else escape(str(value))
        return f"<{tag}{' class=n' if number else ''}>{text}</{tag}>"

    body = "".join("<tr>" + "".join(cell(value, "td") for value in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(cell(name, "th") for name in head) + f"</tr>{body}</table>"


def _reasons(table: pa.Table, rules: Rules) -> str:
    effects = rule_effects(table, rules)
    rows = [(e["reason"], e["rows"], e["alone"], meaning_of(e["reason"])) for e in effects]
    rows.sort(key=lambda row: -row[1])
    part = "<h2>Why actions were not accepted</h2>" + _table(("reason", "rejects", "alone", "meaning"), rows)
    part += '<p class="soft">“Alone” counts what no other rule would have removed.</p>'
    part += _benchmarks(table)
    failures = Counter(value for value in table["failure"].to_pylist() if value)
    if failures:
        part += "<h3>Refused before Blender, or not measured</h3>"
        first: list[tuple[str, int, str]] = []
        failed = table.filter(pc.is_valid(table["failure"]))
        for reason, count in failures.most_common():
            one = failed.filter(pc.equal(failed["failure"], reason)).slice(0, 1).to_pylist()[0]
            first.append((reason, count, f"{one['uid']}: {one['detail'] or ''}"))
        part += _table(("code", "assets", "first of them"), first)
    return part


def _benchmarks(table: pa.Table) -> str:
    """How many objects of published benchmarks there are, and what the marks cannot see."""
    if UNHASHED not in (info := info_of(table)):
        return ""
    marked = ", ".join(f"{name} {count:,}" for name, count in counted(table).items()) or "none"
    unknown, listed = info[UNHASHED]
    return (
        f"<p>Objects of published benchmarks: {escape(marked)}. <span class=soft>Renamed copies of "
        f"{unknown:,} of {listed:,} listed uids cannot be found, since nobody knows their contents "
        "(--hashes).</span></p>"
    )


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return pc.fill_null(pc.cast(table[name], pa.float64()), float("nan")).to_numpy()


def _plots(table: pa.Table, rules: Rules, accepted: npt.NDArray[np.bool_]) -> str:
    figures = []
    for name, (log, names) in PLOTS.items():
        values = _numbers(table, name)
        thresholds = [(rule, getattr(rules, rule)) for rule in names if getattr(rules, rule) is not None]
        if "nonrigid" in name and rules.rigid == "keep":
            thresholds = []
        if name.startswith("ssim") and name.endswith("_raw") != (rules.ssim_frames == "raw"):
            thresholds = []
        svg = histogram_svg(values, accepted, thresholds, log, f"histogram of {name}")
        if svg:
            text = escape(COLUMNS[name][1])
            figures.append(
                f"<figure>{svg}<figcaption><b>{name}</b> <span class=soft>{text}</span></figcaption></figure>"
            )
    key = (
        '<p class="key soft">Actions per bin:<i style="background:var(--good)"></i>accepted'
        '<i style="background:var(--bad)"></i>rejected; dashed: the threshold. '
        "The outermost bins hold everything beyond them.</p>"
    )
    return f'<h2>Measures</h2>{key}<div class="plots">{"".join(figures)}</div>'


#: Rules on similarities, of which the lowest counts: one that differs is enough.
_SIMILARITIES = {
    "max_alike": ("ssim_object_quarter", "ssim_object_half", "ssim_object_peak"),
    "max_ssim": ("ssim_quarter", "ssim_half"),
    "min_ssim": ("ssim_quarter", "ssim_half"),
}


def margins(table: pa.Table, rules: Rules) -> npt.NDArray[np.float64]:
    """[rows]: how far each action is from the nearest threshold that is on, as |log10(value / threshold)|;
    of a similarity, its distance from 1 is the value.

    Infinite where nothing is known, or the value or threshold is 0.
    """
    distances = [np.full(table.num_rows, np.inf)]
    for name, (_, names) in PLOTS.items():
        for rule in names:
            if rule not in _SIMILARITIES and not (rule == "min_nonrigid" and rules.rigid == "keep"):
                distances.append(_distance(_numbers(table, name), getattr(rules, rule)))
    for rule, names in _SIMILARITIES.items():
        if (threshold := getattr(rules, rule)) is not None:
            suffix = "_raw" if rule != "max_alike" and rules.ssim_frames == "raw" else ""
            least = np.minimum.reduce([_numbers(table, name + suffix) for name in names])
            distances.append(_distance(1.0 - least, 1.0 - threshold))
    return np.minimum.reduce(distances)


def _distance(values: npt.NDArray[np.float64], threshold: float | None) -> npt.NDArray[np.float64]:
    distance = np.full(len(values), np.inf)
    if threshold is not None and threshold > 0:
        known = values > 0
        distance[known] = np.abs(np.log10(values[known] / threshold))
    return distance


def _sheets(table: pa.Table, rules: Rules, verdict: npt.NDArray[np.object_]) -> str:
    measured = np.array(table["status"].to_pylist(), object) == "measured"
    reasons = table["reasons"].to_pylist()
    near = margins(table, rules)
    parts = [
        "<h2>Borderline</h2>",
        "<p>Within a factor of two of a threshold, on either side; the nearest first.</p>",
    ]
    order = np.argsort(near, kind="stable")
    parts.append(_sheet(table, [i for i in order if measured[i] and near[i] < np.log10(2.0)][:N_BORDERLINE]))
    accepted = np.flatnonzero(verdict == "accepted")
    # Evenly over the whole table, so that a large input is not judged by its first folder.
    shown = (
        accepted[np.unique(np.linspace(0, max(len(accepted) - 1, 0), N_ACCEPTED).round().astype(int))]
        if len(accepted)
        else []
    )
    parts += [
        "<h2>Accepted</h2>",
        f"<p>{len(shown)} of {len(accepted):,}, evenly chosen.</p>",
        _sheet(table, shown),
    ]
    parts.append("<h2>Rejected</h2>")
    found: dict[str, list[int]] = {}
    for i, row in enumerate(reasons):
        for reason in row:
            found.setdefault(reason, []).append(i)
    for reason, rows in sorted(found.items(), key=lambda item: -len(item[1])):
        chosen = np.unique(np.linspace(0, len(rows) - 1, N_PER_REASON).round().astype(int))
        meaning = meaning_of(reason) or BAD_FILES.get(reason.removeprefix("bad_file:"))
        said = f"{meaning}, {len(rows):,}" if meaning else f"{len(rows):,}"
        parts.append(f"<h3>{escape(reason)} <span class=soft>{escape(said)}</span></h3>")
        parts.append(_sheet(table, [rows[i] for i in chosen]))
    return "".join(parts)


def _sheet(table: pa.Table, rows: Iterable[int]) -> str:
    rows = [int(i) for i in rows]
    if not rows:
        return "<p class=soft>None.</p>"
    names = ["uid", "action", "reasons", "detail", "preview", *_SHOWN]
    tiles = "".join(_tile(row) for row in table.select(names).take(rows).to_pylist())
    return f'<div class="sheet">{tiles}</div>'


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 0.0005 else "0"


def _tile(row: Mapping[str, Any]) -> str:
    title = escape(f"{row['uid']} {row['action'] or ''}".strip())
    if row["preview"]:
        data = base64.b64encode(row["preview"]).decode("ascii")
        pixels = f'<img loading="lazy" alt="{title}" src="data:image/webp;base64,{data}">'
    else:
        pixels = '<div class="none">no preview</div>'
    numbers = ", ".join(
        f"{text} {_short(row[name])}" for name, text in _SHOWN.items() if row[name] is not None
    )
    why = f'<div class="why">{escape(", ".join(row["reasons"]))}</div>' if row["reasons"] else ""
    detail = f"<div>{escape(row['detail'])}</div>" if row["detail"] else ""
    return (
        f'<div class="tile">{pixels}<div class="text"><b>{escape(row["uid"])}</b>'
        f'{escape(row["action"] or "")}{why}{detail}<div class="numbers">{numbers}</div></div></div>'
    )


def _licences(table: pa.Table, accepted: npt.NDArray[np.bool_]) -> str:
    names = [name or "(not named)" for name in table["license"].to_pylist()]
    total = Counter(names)
    kept = Counter(name for name, good in zip(names, accepted) if good)
    rows = [(name, count, kept[name]) for name, count in total.most_common()]
    return "<h2>Licences</h2>" + _table(("licence", "actions", "accepted"), rows)


def _settings(table: pa.Table, rules: Rules) -> str:
    from dataclasses import fields

    rows = []
    for entry in fields(rules):
        value = getattr(rules, entry.name)
        said = "off" if value in (None, ()) else ", ".join(value) if isinstance(value, tuple) else f"{value}"
        rows.append((entry.name, said, entry.metadata["text"]))
    info = info_of(table)
    part = "<h2>Rules and versions</h2>" + _table(("rule", "setting", "meaning"), rows)
    measure = {**info.get("measure", {}), "measure_version": info.get("measure_version", "")}
    known = [(name, f"{value}") for name, value in {**measure, **info.get("versions", {})}.items()]
    return part + _table(("measured with", ""), known)
