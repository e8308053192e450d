"""`orbit4d render`: assets in, a dataset of clips out."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from orbit4d.datasets.commands.options import RESUMED, Command
from orbit4d.render.fleet.settings import FleetSettings, Limits

if TYPE_CHECKING:
    from orbit4d.render.dataset.summary import RenderSummary

EXAMPLE = """
\b
Example:
  orbit4d render curated.parquet --out dataset --preset default --workers 2
"""

PRESETS = ("default", "draft", "diffusion4d")


class Size(click.ParamType):
    """Bytes, written 512M, 8G or 1.5GiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; write 512M or 8G", param, ctx)
        power = " KMGT".index(match.group(2).upper() or " ")
        return int(float(match.group(1)) * 1024**power)


def size_text(n_bytes: int | None) -> str | None:
    """`Size` of a whole number of GiB as text, say 8G; None stays None, no size."""
    return None if n_bytes is None else f"{n_bytes >> 30}G"


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for name in re.split(r"[,\s]+", text) if name)


GROUPS = {
    "Input and output": "--out --preset --captions --shard-size --resume --retry-quarantined --seed",
    "Views": "--frames --rigs --orbits --azimuths --elevation --elevation-range --radius --fov --closed "
    "--normalise --window --window-shares",
    "Images": "--resolution --samples --passes --add-passes --environment --shadows --denoise --filter-width "
    "--transparent-bounces --backface-culling --transparent-glass --view-transform --device",
    "Workers": "--workers --threads-per-worker --gpus-per-worker --attempts --max-preemptions "
    "--asset-timeout --import-timeout --max-rss --recycle-after --order --shared-paths --address",
}


@click.command(cls=Command, epilog=EXAMPLE, on_interrupt=RESUMED, groups=GROUPS)
@click.argument("sources", nargs=-1, required=True, metavar="TABLE|SOURCE...")
@click.option(
    "--out", required=True, metavar="DATASET", help="Dataset folder or URI; an existing one is resumed."
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="default",
    show_default=True,
    help="Preset; other options override it.",
)
@click.option("--frames", type=int, help="Frames per clip.")
@click.option("--resolution", type=int, help="Image size, pixels per side.")
@click.option("--samples", type=int, help="Cycles samples per pixel.")
@click.option(
    "--rigs", metavar="A,B", help="Rigs (views), comma-separated: static_orbit, dynamic_orbit, front_view."
)
@click.option("--orbits", type=int, help="Orbits per action; the first starts at the front.")
@click.option(
    "--azimuths", metavar="DEG,DEG", help="Starting azimuths of the orbits; further ones are random."
)
@click.option("--elevation", "elevation_deg", type=float, help="Camera elevation, degrees.")
@click.option(
    "--elevation-range", type=(int, int), help="Random elevation per asset, whole degrees LOW HIGH."
)
@click.option("--radius", type=float, help="Camera distance from the centre.")
@click.option("--fov", "fov_x_deg", type=float, help="Horizontal field of view, degrees.")
@click.option("--closed/--open", "closed", default=None, help="Whether the last view repeats the first.")
@click.option(
    "--normalise",
    type=click.Choice(["fit", "union_box", "first_frame"]),
    help="How assets are scaled.",
)
@click.option(
    "--window",
    type=click.Choice(["moving", "raw_frames"]),
    help="Part of an action that is rendered: where it moves, or its raw frames.",
)
@click.option(
    "--window-shares", metavar="A,B", help="Share of the window that each orbit plays; further ones play all."
)
@click.option(
    "--passes",
    metavar="A,B",
    help="Extra passes, comma-separated: depth, normal, mask, "
    "geometry, skeleton, albedo, roughness, metallic, emission.",
)
@click.option(
    "--add-passes",
    metavar="A,B",
    help="Add these passes to an existing dataset, whose clips stay as they are.",
)
@click.option("--environment", type=click.Path(), help="EXR or HDR panorama that lights the scene.")
@click.option("--shadows/--no-shadows", default=None, help="Whether the suns cast shadows.")
@click.option("--denoise/--no-denoise", default=None, help="Denoise with OpenImageDenoise.")
@click.option("--filter-width", type=float, help="Pixel filter in pixels; 0.01 samples the pixel's centre.")
@click.option(
    "--transparent-bounces", type=click.IntRange(0), help="Transparent layers that a ray passes; then black."
)
@click.option(
    "--backface-culling/--no-backface-culling",
    default=None,
    help="Whether single-sided surfaces are left out where they are seen from behind.",
)
@click.option(
    "--transparent-glass/--no-transparent-glass",
    default=None,
    help="Whether the background shows through glass.",
)
@click.option("--view-transform", help="Blender's view transform, such as Standard, Filmic, AgX.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "optix", "hip", "metal", "oneapi"]),
    help="Cycles device.",
)
@click.option("--seed", type=int, help="Random seed.")
@click.option("--captions", help="CSV of uid,caption.")
@click.option("--workers", type=int, help="Workers (Ray actors). Default: one per core.")
@click.option(
    "--threads-per-worker", type=int, help="Render threads per worker. Default: cores divided by workers."
)
@click.option("--gpus-per-worker", type=float, default=0.0, help="GPUs per worker (0.25: four share one).")
@click.option(
    "--attempts",
    type=int,
    default=Limits.attempts,
    show_default=True,
    help="Failed attempts per asset before quarantine.",
)
@click.option(
    "--max-preemptions",
    type=int,
    default=Limits.max_preemptions,
    show_default=True,
    help="Preempted attempts per asset before quarantine.",
)
@click.option(
    "--asset-timeout",
    type=float,
    default=Limits.asset_timeout,
    show_default=True,
    help="Seconds Blender may take for an action.",
)
@click.option(
    "--import-timeout",
    type=float,
    default=Limits.import_timeout,
    show_default=True,
    help="Seconds Blender may take to read it.",
)
@click.option(
    "--max-rss",
    "max_rss_bytes",
    type=Size(),
    default=size_text(Limits.max_rss_bytes),
    show_default=True,
    help="Memory at which a Blender is killed, say 8G.",
)
@click.option(
    "--recycle-after",
    type=int,
    default=Limits.recycle_after,
    show_default=True,
    help="Assets after which a Blender is replaced.",
)
@click.option(
    "--order",
    type=click.Choice(["largest_first", "given"]),
    default="largest_first",
    show_default=True,
    help="Order in which assets are rendered; large ones first shorten the end.",
)
@click.option(
    "--shard-size",
    "shard_bytes",
    type=Size(),
    default="256M",
    show_default=True,
    help="Size at which a shard is closed.",
)
@click.option("--retry-quarantined", is_flag=True, help="Give quarantined assets new attempts.")
@click.option(
    "--resume/--no-resume", default=True, help="Resume an existing dataset (the default), or refuse one."
)
@click.option(
    "--shared-paths", is_flag=True, help="Local paths are the same files on every machine of the cluster."
)
@click.option("--address", help="Ray address (`auto`: the running cluster). Default: a local Ray.")
def command(sources: tuple[str, ...], out: str, preset: str, **options: object) -> None:
    """Render orbits of animated assets into a dataset.

    SOURCE is a table made by `orbit4d curate`, a file, a folder, a glob, a text file of ids, or
    objaverse:animated. Assets that are done are skipped: the same command resumes after any stop.
    """
    from orbit4d.datasets.core.errors import InputError, WorkError
    from orbit4d.render.dataset.render_assets import render_assets
    from orbit4d.render.planning.settings import preset as make_preset

    taken = {
        name: options.pop(name)
        for name in (
            "workers",
            "threads_per_worker",
            "gpus_per_worker",
            "attempts",
            "max_preemptions",
            "asset_timeout",
            "import_timeout",
            "max_rss_bytes",
            "recycle_after",
            "order",
            "address",
            "shared_paths",
        )
    }
    fleet = FleetSettings(**taken)  # type: ignore[arg-type]
    captions, shard_bytes = options.pop("captions"), options.pop("shard_bytes")
    retry, resume = options.pop("retry_quarantined"), options.pop("resume")
    if not resume:
        _refuse_existing(out)
    if (asked := _names(str(options.pop("add_passes") or ""))) or ():
        _add_passes(sources, out, asked, fleet, shard_bytes, _changes(options))
        return
    settings = make_preset(preset, **_changes(options))
    if settings.frames == 1 and set(settings.rigs) != {"static_orbit"}:
        raise InputError("--frames 1: one frame shows no motion; give at least 2, or --rigs static_orbit")
    summary = render_assets(
        sources,
        out,
        settings,
        fleet,
        captions=captions,  # type: ignore[arg-type]
        shard_bytes=shard_bytes,  # type: ignore[arg-type]
        retry_quarantined=bool(retry),
    )
    _say_reasons(summary)
    rate = summary.pictures / max(summary.seconds, 1e-9)
    click.echo(
        f"{summary.rendered} assets, {summary.clips} clips, {summary.pictures} images "
        f"in {summary.seconds:.1f} s ({rate:.2f} images/s); "
        f"{summary.attempts} attempts, {summary.preemptions} preemptions"
    )
    click.echo(summary.line)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.input and not summary.done:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.reasons.items()))
        raise WorkError(f"{out}: no asset was rendered: {summary.line} ({reasons})")


def _say_reasons(summary: RenderSummary) -> None:
    """Why inputs, actions and passes are not there."""
    for reason, count in sorted(summary.reasons.items()):
        mend = " (--rigs static_orbit renders what does not move)" if reason == "still" else ""
        click.echo(f"  {reason}: {count}{mend}")
    for reason, count in sorted(summary.refused_passes.items()):
        click.echo(f"  {reason}: {count} actions, whose images were rendered without this pass")
    if summary.added is not None:
        click.echo(f"  {summary.added.line}")
    if summary.still_actions:
        click.echo(f"  actions reported and not rendered: {summary.still_actions}")


def _add_passes(
    sources: tuple[str, ...],
    out: str,
    kinds: tuple[str, ...],
    fleet: FleetSettings,
    shard_bytes: object,
    changes: dict[str, object],
) -> None:
    """What `--add-passes` does; the dataset's own settings hold, so that others are refused."""
    from orbit4d.datasets.core.errors import InputError, WorkError
    from orbit4d.render.dataset.add_passes import add_passes

    if changes:
        name = next(iter(changes)).replace("_", "-")
        raise InputError(f"--{name} with --add-passes: the dataset's own settings hold; leave it out")
    summary = add_passes(sources, out, kinds, fleet, shard_bytes)  # type: ignore[arg-type]
    for reason, count in sorted(summary.refused.items()):
        click.echo(f"  {reason}: refused for {count} actions, whose images are as they were")
    for reason, count in sorted(summary.failed.items()):
        click.echo(f"  {reason}: {count} assets failed")
    click.echo(f"{summary.rows} passes of clips and actions in {summary.seconds:.1f} s")
    click.echo(summary.line)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.failed and not summary.done:
        raise WorkError(f"{out}: no pass was added: {summary.line}")


def _changes(options: dict[str, object]) -> dict[str, object]:
    """The given options as fields of RenderSettings."""
    changes: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    for name in ("rigs", "passes"):
        if name in changes:
            changes[name] = _names(str(changes[name]))
    if "environment" in changes:
        given = str(changes["environment"])
        changes["environment"] = given if "://" in given else os.path.abspath(given)
    if "azimuths" in changes:
        changes["azimuths_deg"] = _numbers(str(changes.pop("azimuths")), "0,90")
    if "window_shares" in changes:
        changes["window_shares"] = _numbers(str(changes["window_shares"]), "1,0.25")
    if "elevation_range" in changes:
        changes["elevation_range_deg"] = changes.pop("elevation_range")
    return changes


def _numbers(text: str, example: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in re.split(r"[,\s]+", text) if part)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as {example}") from None


def _refuse_existing(out: str) -> None:
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.core.storage import Store

    if Store(out).entries():
        raise InputError(f"{out}: is not empty; leave out --no-resume to resume, or choose another --out")
