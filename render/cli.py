"""`orbit4d render`: assets in, a dataset of clips out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from orbit4d.datasets.commands.options import RESUMED, Command
from orbit4d.datasets.commands.settings_options import Size, options_of
from orbit4d.render.fleet.settings import FleetSettings

if TYPE_CHECKING:
    from orbit4d.render.dataset.summary import RenderSummary

EXAMPLE = """
\b
Example:
  orbit4d render curated.parquet --out dataset --preset default --workers 2
"""

PRESETS = ("default", "draft", "diffusion4d")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for name in re.split(r"[,\s]+", text) if name)


#: Options that are settings of the fleet, under the same names.
FLEET_OPTIONS = (
    *("workers", "threads_per_worker", "gpus_per_worker", "attempts", "max_preemptions", "asset_timeout"),
    *("import_timeout", "max_rss_bytes", "recycle_after", "order", "storage_patience", "shared_paths"),
    "address",
)

GROUPS = {
    "Input and output": "--out --preset --captions --shard-size --resume --retry-quarantined --seed",
    "Views": "--frames --rigs --cameras --draws --metres-per-unit --orbits --azimuths --azimuth --elevation "
    "--elevation-range --radius --fov --closed --path --key-poses --direction --turns --rise --easing --roll "
    "--aperture --normalise --window --window-shares",
    "Lights": "--lights --light-kind --environment --light-rotation --light-strength --environment-visible "
    "--shadows --shadow-catcher",
    "Images": "--resolution --samples --passes --add-passes --denoise --filter-width "
    "--transparent-bounces --backface-culling --transparent-glass --view-transform --device",
    "Workers": "--workers --threads-per-worker --gpus-per-worker --attempts --max-preemptions "
    "--asset-timeout --import-timeout --max-rss --recycle-after --order --storage-patience "
    "--shared-paths --address",
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
    "--rigs",
    metavar="A,B",
    help="Rigs (views), comma-separated: static_orbit, dynamic_orbit, front_view; synchronised cameras: "
    "sync[:n], sync_basic, hemi36_<d>m_<e>, sync_moving[:n], ring:<n>[@elev]; or a transforms.json.",
)
@click.option(
    "--cameras",
    "camera_files",
    multiple=True,
    type=click.Path(),
    help="transforms.json or cameras.json with cameras of your own, as a rig. Repeatable.",
)
@click.option("--draws", type=int, help="Random draws of the rigs sync and sync_moving per action.")
@click.option("--metres-per-unit", type=float, help="Metres per unit in rigs given in metres (2).")
@click.option("--orbits", type=int, help="Orbits per action; the first starts at the front.")
@click.option(
    "--azimuths", metavar="DEG,DEG", help="Starting azimuths of the orbits; further ones are random."
)
@click.option(
    "--azimuth",
    metavar="DEG|DRAW",
    help="Azimuth at which orbits start. A DRAW, as uniform:0:360, normal:0:5, "
    "choice:0:90, loguniform:A:B or integers:A:B, gives each orbit its own value.",
)
@click.option("--elevation", metavar="DEG|DRAW", help="Camera elevation, degrees, such as uniform:-10:40.")
@click.option(
    "--elevation-range", type=(int, int), help="Random elevation per asset, whole degrees LOW HIGH."
)
@click.option("--radius", metavar="UNITS|DRAW", help="Camera distance from the centre.")
@click.option("--fov", metavar="DEG|DRAW", help="Horizontal field of view, degrees.")
@click.option(
    "--path",
    type=click.Choice(["circle", "vertical", "spiral", "spline"]),
    help="How the camera of an orbit moves.",
)
@click.option("--key-poses", metavar="AZ,EL,R;...", help="Poses that a spline runs through.")
@click.option(
    "--direction", type=click.Choice(["ccw", "cw", "random"]), help="Sense of an orbit, seen from above."
)
@click.option("--turns", metavar="N|DRAW", help="Turns of an orbit per clip: its speed.")
@click.option("--rise", metavar="DEG|DRAW", help="Degrees that a spiral rises per clip (30).")
@click.option("--easing", metavar="A|DRAW", help="Above 0 an orbit starts fast, below 0 slowly.")
@click.option("--roll", metavar="DEG|DRAW", help="Turn of the camera about its viewing axis, degrees.")
@click.option(
    "--aperture",
    metavar="F|DRAW|lens",
    help="f-number: limits the depth of field, the centre is in focus; `lens`: as a rig's lens has it.",
)
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
    "geometry, skeleton, albedo, roughness, metallic, emission, position.",
)
@click.option(
    "--add-passes",
    metavar="A,B",
    help="Add these passes to an existing dataset, whose clips stay as they are.",
)
@click.option("--lights", "n_lights", type=int, help="Lightings of each clip (1); further ones are random.")
@click.option(
    "--light-kind",
    type=click.Choice(["preset", "suns", "points", "any"]),
    help="Lamps of a lighting: the preset's, or random suns or point lamps.",
)
@click.option(
    "--environment",
    metavar="FILE|FOLDER|builtin",
    help="EXR or HDR panorama that lights the scene beside the suns; or a folder of them, or `builtin`, that "
    "each lighting takes one from instead of suns.",
)
@click.option("--light-rotation", metavar="DEG|DRAW", help="Turn of a lighting about the vertical, degrees.")
@click.option("--light-strength", metavar="X|DRAW", help="Factor on the strength of a lighting.")
@click.option(
    "--environment-visible/--environment-hidden", default=None, help="Whether cameras see the environment."
)
@click.option(
    "--shadow-catcher/--no-shadow-catcher", default=None, help="Ground that shows the object's shadow alone."
)
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
@options_of(FleetSettings, *FLEET_OPTIONS)
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
def command(sources: tuple[str, ...], out: str, preset: str, **options: object) -> None:
    """Render orbits of animated assets into a dataset.

    SOURCE is a table made by `orbit4d curate`, a file, a folder, a glob, a text file of ids, or
    objaverse:animated. Assets that are done are skipped: the same command resumes after any stop.
    """
    from orbit4d.datasets.core.errors import InputError, WorkError
    from orbit4d.render.dataset.render_assets import render_assets
    from orbit4d.render.planning.settings import preset as make_preset

    fleet = FleetSettings(**{name: options.pop(name) for name in FLEET_OPTIONS})  # type: ignore[arg-type]
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
        fix = " (--rigs static_orbit renders what does not move)" if reason == "still" else ""
        if reason.startswith("quarantined:"):
            fix = " (--retry-quarantined gives new attempts; `orbit4d status` shows details and logs)"
        click.echo(f"  {reason}: {count}{fix}")
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
    from orbit4d.datasets.core.storage import Store
    from orbit4d.datasets.store.lease import Lease
    from orbit4d.render.dataset.add_passes import add_passes, stored_settings

    if changes:
        name = next(iter(changes)).replace("_", "-")
        raise InputError(f"--{name} with --add-passes: the dataset's own settings hold; leave it out")
    stored_settings(out)  # refuses what is no dataset before anything is written
    with Lease(Store(out)):
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
    from orbit4d.render.planning.asked import fields_of

    changes: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    for name in ("rigs", "passes"):
        if name in changes:
            changes[name] = _names(str(changes[name]))
    if "azimuths" in changes:
        changes["azimuths_deg"] = _numbers(str(changes.pop("azimuths")), "0,90")
    if "window_shares" in changes:
        changes["window_shares"] = _numbers(str(changes["window_shares"]), "1,0.25")
    if "elevation_range" in changes:
        changes["elevation_range_deg"] = changes.pop("elevation_range")
    return fields_of(changes)


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
