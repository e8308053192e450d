"""Commands on datasets: verify, stats, status, select, merge, import, export. They import when they run."""

from __future__ import annotations

import json
from typing import Any

import click

from orbit4d.datasets.commands.export_options import (
    GROUPS,
    MULTI_CAMERA,
    PLAIN,
    TRAINERS,
    export_options,
    settings_of,
)
from orbit4d.datasets.commands.geometry_options import (
    GEOMETRY_FORMATS,
    export_geometry_files,
    geometry_asked,
    geometry_options,
)
from orbit4d.datasets.commands.options import RESUMED, Command
from orbit4d.datasets.core.errors import WorkError


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--repair", is_flag=True, help="Remove what an interrupted run left and never committed.")
@click.pass_context
def verify(ctx: click.Context, dataset: str, repair: bool) -> None:
    """Check every byte of a dataset and print its digest.

    Hashes, counts, schema, cameras against rigs, orphans. Exit code 0 when all is well, 1 otherwise. The last
    line is `digest <sha256>`: equal for equal clips, however they were made and stored.

    \b
    Example: orbit4d verify out/dataset
             orbit4d verify s3://bucket/dataset --repair
    """
    from orbit4d.datasets.operations.verify import verify as check

    seen = check(dataset, repair)
    for name in seen.repaired:
        click.echo(f"removed: {name}")
    for finding in seen.findings:
        click.echo(f"{finding.kind}: {finding.file}: {finding.what}")
    if any(finding.kind == "uncommitted" for finding in seen.findings):
        click.echo("leftovers of an interrupted run: `orbit4d verify --repair` removes them")
    click.echo(
        f"{seen.assets} assets, {seen.clips} clips, {seen.shards} shards, {seen.bytes / 1e6:.1f} MB, "
        f"{seen.staged} staged, {seen.rejected} rejected: "
        + ("ok" if seen.ok else f"{len(seen.findings)} faults")
    )
    if seen.added:
        click.echo(f"{seen.added} passes of clips and actions beside them")
        click.echo(f"digest of the clips {seen.image_digest}")
    click.echo(f"digest {seen.digest}")
    if not seen.ok:
        ctx.exit(1)


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of a table.")
def stats(dataset: str, as_json: bool) -> None:
    """Counts, bytes, motion and licences of a dataset.

    \b
    Example: orbit4d stats out/dataset --json
    """
    from orbit4d.datasets.operations.stats import statistics, table_lines

    numbers = statistics(dataset)
    click.echo(json.dumps(numbers) if as_json else "\n".join(table_lines(numbers)))


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON, with all logs.")
@click.option("--all", "every", is_flag=True, help="All quarantined assets, not the first ten.")
@click.option("--log-lines", default=3, show_default=True, help="Last lines of each quarantined asset's log.")
@click.option(
    "--watch", type=float, metavar="SECONDS", help="Look again every so often, until the run ends or Ctrl-C."
)
@click.option(
    "--html", "page", metavar="FILE", help="Page (path or URI) to write and keep current during a run."
)
def status(
    dataset: str, as_json: bool, every: bool, log_lines: int, watch: float | None, page: str | None
) -> None:
    """Show how far a dataset is: done, rejected, quarantined with reason and log, pace and time left.

    Reads the dataset alone, so it works from any terminal or machine, while a run fills it and after.

    \b
    Example: orbit4d status s3://bucket/dataset
             orbit4d status s3://bucket/dataset --watch 30
             orbit4d status out/dataset --html status.html
    """
    import time

    from orbit4d.datasets.operations.status import StatusReader, status_lines

    reader = StatusReader(dataset)
    interval = watch if watch is not None else 10.0 if page else 0.0
    while True:
        seen = reader.look()
        if page:
            _write_page(page, seen, interval or 10.0)
        if as_json:
            click.echo(json.dumps(seen.as_json()))
        else:
            lines = status_lines(seen, len(seen.quarantined) if every else 10, log_lines)
            click.echo("\n".join(lines))
        if not seen.alive or interval <= 0:
            break
        time.sleep(interval)
    if page:
        click.echo(f"page {page}")


def _write_page(page: str, seen: Any, refresh_s: float) -> None:
    from orbit4d.datasets.core.remote import is_remote, local_path, parent_and_name
    from orbit4d.datasets.core.storage import Store
    from orbit4d.datasets.operations.status_page import status_page

    where, name = (
        parent_and_name(page) if is_remote(page) else (str(local_path(page).parent), local_path(page).name)
    )
    Store(where).put(name, status_page(seen, refresh_s).encode())


@click.command("list", cls=Command)
@click.argument("dataset")
@click.option("--where", help="SQL expression on the index, e.g. \"rig = 'front_view'\".")
@click.option("--split", help="train, validation or test.")
@click.option("--uids", is_flag=True, help="Only the uids, one per line, as `orbit4d eval --ids` reads them.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per clip.")
def list_(dataset: str, where: str | None, split: str | None, uids: bool, as_json: bool) -> None:
    """List the clips of a dataset, one per line: uid, action, rig, orbit, split, frames and licence.

    Columns are separated by tabs. DATASET:uid:action names an asset's action elsewhere, for example in
    `orbit4d view` and `orbit4d recon4d`.

    \b
    Example: orbit4d list out/dataset --where "rig = 'dynamic_orbit' and motion_magnitude > 0.001"
             orbit4d list out/dataset --split test --uids > ids.txt
    """
    from orbit4d.datasets.operations.listing import COLUMNS, listed

    rows = listed(dataset, where, split)
    if not uids and not as_json:
        click.echo("\t".join(COLUMNS))
    seen: set[str] = set()
    for row in rows:
        if uids:
            if row["uid"] not in seen:
                seen.add(row["uid"])
                click.echo(row["uid"])
        else:
            line = json.dumps(row) if as_json else "\t".join(" ".join(str(v).split()) for v in row.values())
            click.echo(line)


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--where", help="SQL expression on the index, e.g. \"license = 'CC0-1.0'\".")
@click.option("--split", help="train, validation or test.")
@click.option("--table", help="Table of `orbit4d curate`: keep the actions that it accepts.")
@click.option("--out", required=True, help="Dataset to write.")
@click.option("--copy", is_flag=True, help="Copy the frames too, instead of pointing to the source's shards.")
def select(
    dataset: str, where: str | None, split: str | None, table: str | None, out: str, copy: bool
) -> None:
    """Keep the clips of a dataset that match an expression, or that curation accepts.

    Writes a view: an index whose frames stay in the source. With --copy the frames are copied, compactly.

    \b
    Example: orbit4d select out/dataset --where "motion_magnitude > 0.001 and license like 'CC0%'" --out calm
             orbit4d select out/dataset --split test --copy --out test-set
             orbit4d curate out/dataset --out looks.parquet
             orbit4d select out/dataset --table looks.parquet --out good
    """
    from orbit4d.datasets.operations.select import select_copy, select_view

    notes: list[str] = []
    run = select_copy if copy else select_view
    count = run(dataset, out, where=where, split=split, table=table, notes=notes)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{count} clips: {out}" + ("" if copy else f" (a view of {dataset})"))


@click.command(cls=Command, on_interrupt=RESUMED)
@click.argument("datasets", nargs=-1, required=True)
@click.option("--out", required=True, help="Dataset to write.")
@click.option("--force", is_flag=True, help="Merge datasets of different configurations too.")
def merge(datasets: tuple[str, ...], out: str, force: bool) -> None:
    """Join datasets; duplicate clips are kept once.

    A clip is known by (uid, action, rig, orbit); of several the first input's is kept.

    \b
    Example: orbit4d merge out/a out/b --out out/both
    """
    from orbit4d.datasets.operations.select import merge as join

    merged = join(datasets, out, force=force)
    for key, uri in merged.duplicates:
        click.echo(f"duplicate: {' '.join(map(str, key))}: kept from an earlier input, left out of {uri}")
    click.echo(f"{merged.clips} clips, {len(merged.duplicates)} duplicates left out: {out}")


@click.command("import", cls=Command, on_interrupt=RESUMED)
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--from",
    "layout",
    type=click.Choice(["diffusion4d", "gobjaverse", *MULTI_CAMERA, "nerfstudio"]),
    default="diffusion4d",
    show_default=True,
    help="Layout of the sources.",
)
@click.option("--out", required=True, help="Dataset to write; an existing one is resumed.")
@click.option("--azimuth0", type=float, help="Azimuth of view 0 in degrees, for folders without camera JSON.")
@click.option("--captions", help="CSV with uid and caption (Cap3D's, or one with a header).")
def import_(
    sources: tuple[str, ...], layout: str, out: str, azimuth0: float | None, captions: str | None
) -> None:
    """Bring published orbit folders, or scenes of several cameras, into a dataset.

    SOURCES are folders, or tar and tar.gz archives, which are read without unpacking them.

    \b
    Example: orbit4d import dynamic4d.tar.gz --out published --captions Cap3D.csv
             orbit4d import gobjaverse/0 --from gobjaverse --out views
             orbit4d import MultiCamVideo-Dataset --from multicamvideo --out multicam
    """
    from orbit4d.datasets.layouts.diffusion4d import import_diffusion4d
    from orbit4d.datasets.layouts.gobjaverse import import_gobjaverse
    from orbit4d.datasets.layouts.multi_camera import READERS, import_scenes

    if layout in READERS:
        done = import_scenes(sources, out, layout, captions=captions)
    elif layout == "gobjaverse":
        done = import_gobjaverse(sources, out, captions=captions)
    else:
        done = import_diffusion4d(sources, out, azimuth0_deg=azimuth0, captions=captions)
    counts = (
        f"{done.assets} assets, {done.clips} clips, {done.rejected} folders rejected, "
        f"{done.already} assets were there: {out}"
    )
    if done.without_caption:
        click.echo(f"note: {captions}: no caption for {done.without_caption} of the new assets", err=True)
    click.echo(counts)
    if done.rejected and not done.assets and not done.already:
        raise WorkError(f"nothing was imported: {counts}")


@click.command(cls=Command, groups=GROUPS)
@click.argument("dataset")
@click.option(
    "--format",
    "layout",
    type=click.Choice([*PLAIN, *MULTI_CAMERA, *TRAINERS, *GEOMETRY_FORMATS]),
    required=True,
    help="transforms.json per clip; the published folders; plain PNG frames; a dataset card; multi-camera "
    "layouts; what a trainer reads; or what the geometry beside the clips says.",
)
@click.option("--out", required=True, help="Folder to write.")
@click.option("--where", help="SQL expression on the index.")
@click.option("--split", help="train, validation or test.")
@export_options
@geometry_options
def export(
    dataset: str,
    layout: str,
    out: str,
    where: str | None,
    split: str | None,
    geometry: dict[str, Any],
    **given: Any,
) -> None:
    """Write a dataset in another layout, as a trainer reads it, or what its geometry says.

    Exports for trainers and multi-camera layouts appear whole or not at all, and end with the command that
    starts the trainer (also in START.md).

    \b
    Example: orbit4d export out/dataset --format nerfstudio --where "rig = 'dynamic_orbit'" --out nerf
             orbit4d export out/dataset --format musubi --control depth --caption-prefix "orbit, " --out m
             orbit4d export out/dataset --format hf-card --out out/dataset
             orbit4d export out/dataset --format glb --where "rig = 'dynamic_orbit'" --out meshes
    """
    settings = settings_of(layout, given)
    if geometry_asked(layout, geometry):
        export_geometry_files(dataset, out, layout, where, split, geometry)
        return
    if layout in PLAIN:
        from orbit4d.datasets.layouts.exporting import export_dataset

        click.echo(f"{export_dataset(dataset, out, layout, where, split)} clips: {out}")
        return
    if layout in MULTI_CAMERA:
        from orbit4d.datasets.layouts.multi_camera import export_scenes

        count, notes = export_scenes(dataset, out, layout, settings, where, split)
        for note in notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"{count} clips: {out}")
        return
    from orbit4d.datasets.trainers.exporting import export_for_trainer

    done = export_for_trainer(dataset, out, layout, settings, where, split)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{done.clips} clips: {out}")
    click.echo(f"start: {done.start}")
