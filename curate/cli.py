"""`orbit4d curate` (also the script `curate`): measure, decide, write the table, report.

Heavy imports happen inside the command, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Place
from orbit4d.datasets.commands.settings_options import options_of
from orbit4d.render.fleet.settings import FleetSettings

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLE = """\b
Examples:
  orbit4d curate assets/ --out table.parquet --report report
  orbit4d curate 'objaverse:animated?limit=100' --license 'CC*' --out table.parquet
  orbit4d curate table.parquet --min-motion 0.05 --out stricter.parquet      (decides again, measures nothing)
  orbit4d curate fit assets.labels.parquet --out rules.yaml                  (rules from labels of people)
"""

#: Options that set a rule of the same name (`-` for `_`); a test holds this list against `Rules`.
RULE_OPTIONS: dict[str, tuple[Any, str]] = {
    "min_motion": (float, "Reject actions with motion_geometry below this (0.014)."),
    "max_motion": (float, "Reject actions with motion_geometry above this (1.5)."),
    "max_growth": (float, "Reject actions with union_growth above this (3): the asset flies away."),
    "max_boundary": (
        float,
        "Reject actions with a larger share of vertices outside the frame in any orbit view (1).",
    ),
    "max_touch": (float, "Rendered dataset: reject clips that cover a larger share of a frame's border (0)."),
    "min_coverage": (float, "Reject actions that cover a smaller share of the frame (0.005)."),
    "min_fit": (
        float,
        "Reject actions that cover a smaller share at the scale at which the whole action fits (0.02).",
    ),
    "min_shape": (
        float,
        "Of previews that look alike: reject motion_shape below this share of motion_geometry (0.16).",
    ),
    "max_alike": (float, "SSIM around the object above which previews look alike (0.7)."),
    "max_torn": (float, "Reject actions with a larger share of torn edges (0.1)."),
    "min_seconds": (float, "Reject windows shorter than this, s."),
    "max_seconds": (float, "Reject windows longer than this, s."),
    "max_triangles": (int, "Reject assets with more triangles."),
    "max_missing_textures": (int, "Reject assets with more missing textures."),
    "min_nonrigid": (float, "With --rigid drop: motion_nonrigid below this is rigid (0.005)."),
    "rigid": (click.Choice(["keep", "drop"]), "`drop`: reject actions that move only as one rigid body."),
    "flat": (click.Choice(["keep", "drop"]), "`drop`: reject assets of one single colour."),
    "duplicates": (click.Choice(["keep", "drop"]), "`drop`: reject near duplicates of an earlier asset."),
    "keep": (str, 'Expression over tags and measures, e.g. "score >= 2 and not is_scene"; null rejects.'),
    "benchmarks": (
        click.Choice(["drop", "keep", "test"]),
        "Objects of published benchmarks: `drop` (default), `keep`, or `test`: into the split test only.",
    ),
    "license": (str, "Accepted licences, comma-separated patterns, e.g. `CC0*`."),
    "max_ssim": (float, "Reject actions with both preview SSIM above this: too little motion."),
    "min_ssim": (float, "Reject actions with either preview SSIM below this: too much motion."),
    "ssim_frames": (click.Choice(["window", "raw"]), "Frames that the preview SSIM compares."),
    "still": (click.Choice(["keep", "drop"]), "`drop`: reject actions that do not move at all."),
}


def _rule_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, (kind, text) in reversed(RULE_OPTIONS.items()):
        function = click.option(f"--{name.replace('_', '-')}", name, type=kind, default=None, help=text)(
            function
        )
    return function


#: Options that are settings of the fleet, under the same names.
FLEET_OPTIONS = (
    *("workers", "threads_per_worker", "attempts", "max_preemptions", "asset_timeout", "import_timeout"),
    *("max_rss_bytes", "order", "storage_patience", "shared_paths", "address"),
)

GROUPS = {
    "Input and output": "--out --report --labels --captions --tags --benchmark-list --hashes --preset "
    "--rules",
    "Rules": " ".join(f"--{name.replace('_', '-')}" for name in RULE_OPTIONS),
    "Measuring": "--previews --preview-size --preview-samples --remeasure",
    "Workers": "--workers --threads-per-worker --attempts --max-preemptions --asset-timeout --import-timeout "
    "--max-rss --order --storage-patience --shared-paths --address",
}


class Curate(Command):
    """`curate SOURCE...`, and `curate fit LABELS` where no file or folder is called `fit`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the words name."""
        if args and args[0] == "fit" and not os.path.exists("fit"):
            from orbit4d.curate.commands.fit import command as fit

            return fit.make_context(f"{info_name} fit", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run what `make_context` chose."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command("curate", cls=Curate, epilog=EXAMPLE, on_interrupt=RESUMED, groups=GROUPS)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--out",
    default=None,
    help="Table to write (.parquet, local or URI). Default: `assets.curated.parquet` beside assets/, or in "
    "the current folder for a SOURCE that is no local path; an existing one is resumed under the same rules.",
)
@click.option(
    "--report", "report_dir", type=Place("folder"), default=None, help="Folder or URI for an HTML report."
)
@click.option(
    "--labels",
    "label_files",
    type=Place(as_text=True),
    multiple=True,
    help="Labels given by people (`orbit4d review`), the last word over all rules; repeatable.",
)
@click.option("--captions", default=None, help="Captions by uid or sha256: .csv, .parquet or .json.")
@click.option(
    "--tags",
    multiple=True,
    help="Table (.csv, .parquet, .json) or list of ids (.txt) whose columns are joined by uid or sha256; "
    "repeatable.",
)
@click.option(
    "--benchmark-list",
    "benchmark_lists",
    multiple=True,
    help="More benchmark objects: a table with benchmark and key, or a list of keys; repeatable.",
)
@click.option(
    "--hashes", help="Table of fileIdentifier (or uid) and sha256: finds renamed benchmark objects."
)
@click.option(
    "--preset", default="default", help="Rules to start from: default or diffusion4d (the paper's)."
)
@click.option(
    "--rules",
    "rules_file",
    type=Place(as_text=True),
    default=None,
    help="YAML file of rules; options win over it.",
)
@_rule_options
@click.option("--previews", default=None, type=click.Choice(["none", "window", "raw", "both"]),
              help="Preview images per action (window; both where rules compare raw frames).")  # fmt: skip
@click.option("--preview-size", default=128, show_default=True, help="Size of a preview, pixels per side.")
@click.option(
    "--preview-samples", default=4, show_default=True, help="Cycles samples per pixel of a preview."
)
@click.option("--remeasure", is_flag=True, help="Measure again what the table holds.")
@options_of(FleetSettings, *FLEET_OPTIONS)
def command(sources: tuple[str, ...], out: str | None, report_dir: Path | None, **options: Any) -> int:
    """Measure animated assets and decide which are fit for training.

    SOURCE is a file, a folder, a glob, a list of ids, objaverse:animated[?limit=N], a table that curate wrote
    (decided again without Blender), or a rendered dataset (measured on its images).
    """
    from orbit4d.curate.journal import remove_journal
    from orbit4d.curate.rules import decide, make_rules
    from orbit4d.curate.tables import check_writable, write_table
    from orbit4d.datasets.core.errors import InputError, WorkError

    given = {name: options[name] for name in RULE_OPTIONS if options[name] is not None}
    if "license" in given:
        given["license"] = tuple(part.strip() for part in given["license"].split(",") if part.strip())
    rules = make_rules(options["preset"], options["rules_file"], given)
    if out is None:
        out = _default_out(sources, rules)
    if not out.endswith(".parquet"):
        raise InputError(f"{out}: the table is a Parquet file; end its name in .parquet")
    check_writable(out)
    table, accounting, journal = _measured(sources, out, rules, options)
    table = _marked(table, out, options)
    table = _tagged(table, rules.keep, options["tags"])
    table = _labelled(decide(table, rules), options["label_files"])
    write_table(table, out)
    if journal is not None:
        remove_journal(journal)
    if report_dir is not None:
        from orbit4d.curate.report.page import write_report

        write_report(table, report_dir, rules)
    _print_counts(table, accounting)
    click.echo(f"table {out}")
    if report_dir is not None:
        click.echo(f"report {report_dir / 'index.html'}")
    if "accepted" not in table["verdict"].to_pylist():
        raise WorkError(f"{out}: no action was accepted; {accounting}")
    return 0


def _marked(table: pa.Table, out: str, options: dict[str, Any]) -> pa.Table:
    """The table with the marks of benchmarks, by the lists given and what an earlier table at `out` knows."""
    from orbit4d.curate.columns import info_of
    from orbit4d.curate.leaks import HASHES, mark_benchmarks
    from orbit4d.curate.tables import read_measured
    from orbit4d.datasets.sources.benchmarks import load_benchmarks

    known = load_benchmarks(options["benchmark_lists"], options["hashes"])
    earlier = read_measured(out)
    if earlier is not None:
        known = known.knowing(info_of(earlier).get(HASHES, {}))
    return mark_benchmarks(table, known)


def _tagged(table: pa.Table, keep: str, paths: tuple[str, ...]) -> pa.Table:
    """The table with the tags of `paths`; says which assets have none, and on which --keep cannot tell."""
    from orbit4d.curate.tags import keep_mask, with_tags

    table, notes = with_tags(table, paths)
    if keep:
        unknown = keep_mask(table, keep)[1]
        if unknown:
            notes.append(f"--keep {keep!r}: a value is missing in {unknown} rows, which are rejected")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return table


def _labelled(table: pa.Table, paths: tuple[str, ...]) -> pa.Table:
    """The decided table with the labels of `paths` as the last word; says what could not be heeded."""
    from orbit4d.curate.labels import COLUMNS, apply_labels, read_labels, without_labels

    had = any(name in table.column_names for name in COLUMNS)
    table = without_labels(table)
    if not paths:
        if had:
            click.echo("note: the table's labels are not reused: give --labels FILE again", err=True)
        return table
    table, notes = apply_labels(table, [label for path in paths for label in read_labels(path)])
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return table


def _default_out(sources: tuple[str, ...], rules: Any) -> str:
    from orbit4d.curate.tables import check_same_rules
    from orbit4d.datasets.commands.default_out import default_table

    if len(sources) > 1:
        raise click.UsageError("give --out TABLE.parquet where there is more than one SOURCE")
    out = default_table(sources[0])
    check_same_rules(out, rules)
    return out


def _measured(
    sources: tuple[str, ...], out: str, rules: Any, options: dict[str, Any]
) -> tuple[pa.Table, str, str | None]:
    """(undecided table, the line that accounts for every input, a journal to remove once all is written)."""
    from orbit4d.curate.columns import info_of
    from orbit4d.curate.tables import is_dataset, known_rows, read_measured, unheeded
    from orbit4d.datasets.core.errors import InputError

    if len(sources) == 1 and (table := read_measured(sources[0])) is not None:
        if options["captions"] or options["previews"] or options["remeasure"]:
            raise InputError(f"{sources[0]}: is measured already; captions and previews belong to measuring")
        if not info_of(table):
            click.echo(f"note: {sources[0]}: known by its columns; how it was measured is lost", err=True)
        return table, f"{table.num_rows} measured rows decided again", None
    if any(is_dataset(source) for source in sources):
        from orbit4d.curate.rendered import measure_rendered

        if len(sources) > 1:
            raise InputError("curate takes one rendered dataset at a time")
        table = measure_rendered(sources[0])
        return table, f"{table.num_rows} rendered actions measured", None

    from orbit4d.curate.measuring import MeasureSettings, measure_sources

    compares = rules.max_ssim is not None or rules.min_ssim is not None
    default = "both" if compares and rules.ssim_frames == "raw" else "window"
    settings = MeasureSettings(
        options["previews"] or default, options["preview_size"], options["preview_samples"]
    )
    fleet = FleetSettings(**{name: options[name] for name in FLEET_OPTIONS})
    for source in filter(os.path.isfile, sources):
        if (note := unheeded(source)) is not None:
            click.echo(f"note: {note}", err=True)
    known = {} if options["remeasure"] else known_rows(out, settings)
    journal = f"{out}.journal"
    measured = measure_sources(sources, options["captions"], settings, fleet, known, journal)
    if measured.interrupted:
        raise KeyboardInterrupt
    resolved = measured.resolved
    for note in resolved.notes:
        click.echo(f"note: {note}", err=True)
    status: dict[str, str] = {}
    for uid, kind in zip(measured.table["uid"].to_pylist(), measured.table["status"].to_pylist()):
        # An asset of which some actions were measured is a measured one.
        status[uid] = "measured" if "measured" in (kind, status.get(uid)) else kind
    counts = {
        kind: sum(value == kind for value in status.values()) for kind in ("measured", "refused", "failed")
    }
    reused = f" ({measured.reused} known already)" if measured.reused else ""
    accounting = (
        f"input {resolved.n_inputs} = measured {counts['measured']}{reused} + rejected {counts['refused']} "
        f"+ failed {counts['failed']} + duplicate {len(resolved.duplicates)}"
    )
    return measured.table, accounting, journal


def _print_counts(table: pa.Table, accounting: str) -> None:
    from collections import Counter

    from orbit4d.curate.columns import info_of
    from orbit4d.curate.leaks import UNHASHED, counted

    click.echo(accounting)
    verdicts = Counter(table["verdict"].to_pylist())
    click.echo(
        "actions: " + ", ".join(f"{name} {verdicts[name]}" for name in ("accepted", "rejected", "failed"))
    )
    reasons = Counter(reason for row in table["reasons"].to_pylist() for reason in row)
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        click.echo(f"  {reason:<24} {count}")
    if marked := counted(table):
        unknown, listed = info_of(table)[UNHASHED]
        click.echo(
            "objects of benchmarks: "
            + ", ".join(f"{name} {count}" for name, count in marked.items())
            + f" (renamed copies of {unknown} of {listed} listed uids cannot be found: --hashes knows more)"
        )
