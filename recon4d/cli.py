"""`orbit4d recon4d`, `film`, `view`, and the scene side of `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Place, in_dataset
from orbit4d.recon4d.fitting.settings import PRESETS

_ORBIT = click.Choice(["open", "closed"])
_DEVICE = click.option(
    "--device", default="auto", show_default=True,
    help="auto (a GPU where gsplat can draw on one, else the CPU), cpu, cuda or cuda:INDEX.",
)  # fmt: skip

_INPUT_AXES = click.option(
    "--input-axes", type=click.Choice(["file", "z-up", "y-up", "rdf", "y-down-180"]),
    show_default="as the format has them",
    help="Axes of a file of splats (PLY, SPZ, SOG, .splat, .ksplat, GLB, USD, .4dgs), which is turned so.",
)  # fmt: skip
#: Layouts of `export`; listed here too, because their modules load torch.
EXPORTS = (
    "ply-sequence", "splat", "spz", "frames", "ply", "compressed-ply", "sog", "glb", "usd", "4dgs", "mp4",
    "webm", "mov", "html", "viewer", "mesh-glb", "mesh-usd", "mesh-alembic", "mesh-obj",
)  # fmt: skip


@click.command(
    cls=Command,
    short_help="Turn an orbit video into explicit 4D Gaussians.",
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--out --static --mask --matte --rig --rig-moment --force",
        "Several cameras": "--layout --ring --sync --hold-cameras --hold-times --allow-missing",
        "Cameras": "--cameras --static-cameras --static-time --orbit --radius --fov --elevation "
        "--refine-cameras",
        "Completion": "--complete --model --complete-views --complete-mode --confidence-hidden",
        "Fitting": "--preset --resolution --steps --exposure --device --threads --seed",
    },
)
@click.argument(
    "source",
    type=Place(as_text=True, native=in_dataset),
    metavar="VIDEO|FOLDER|CAPTURE|DATASET:uid[:action]",
)
@click.option(
    "--out",
    type=Place("run"),
    help="Scene folder or URI; an existing one is resumed. Default: `clip.scene` beside clip.mp4, "
    "`uid.scene` in the current folder for DATASET:uid.",
)
@click.option(
    "--static", type=Place(as_text=True), help="Video or folder of the static orbit, when there is one."
)
@click.option(
    "--cameras",
    type=Place(),
    help="transforms.json of the video. Default: the one in the folder or beside the video, else --orbit.",
)
@click.option("--static-cameras", type=Place(), help="transforms.json of the static orbit.")
@click.option("--static-time", default=0.0, show_default=True, help="Time in [0, 1] of the static orbit.")
@click.option(
    "--orbit",
    "kind",
    type=_ORBIT,
    default="open",
    show_default=True,
    help="`closed`: the last frame repeats the first view.",
)
@click.option("--radius", default=2.0, show_default=True, help="Camera distance from the centre.")
@click.option("--fov", default=39.5978, show_default=True, help="Horizontal field of view, degrees.")
@click.option("--elevation", default=0.0, show_default=True, help="Camera elevation, degrees.")
@click.option("--mask", type=Place(), help="Folder of masks, one per frame; of several cameras CAMERA/FRAME.")
@click.option(
    "--layout",
    type=click.Choice(["4danyone", "dnerf", "n3dv", "nerfstudio", "sv4d", "videos"]),
    help="Layout of a capture. Default: found by its files.",
)
@click.option(
    "--ring",
    metavar="DEG,DEG,...",
    help="Azimuths of cameras that are not known, counter-clockwise from the front.",
)
@click.option("--sync", metavar="RIG", help="Synchronised rig of DATASET:uid, such as ring_16.")
@click.option("--hold-cameras", metavar="A,B", help="Cameras that are never trained on, by label or number.")
@click.option(
    "--hold-times", metavar="T,T|every:K", help="Times in [0, 1] that are never trained on, or every K-th."
)
@click.option("--allow-missing", is_flag=True, help="Leave out what a camera lacks, instead of refusing.")
@click.option(
    "--matte", type=click.Choice(["flat", "rembg", "none"]), default="flat", show_default=True,
    help="Matting method for input without alpha: flat background, rembg (an extra), or none: several "
    "cameras keep their background (an open scene).",
)  # fmt: skip
@click.option(
    "--rig", type=Place(as_text=True),
    help="Asset that DATASET:uid was rendered from: its static orbit is fitted and moved by the asset's own "
    "skeleton.",
)  # fmt: skip
@click.option(
    "--rig-moment", default="first", show_default=True, metavar="first|auto|ACTION",
    help="Static orbit that --rig fits: the action's own (first), that of another action of the asset, or "
    "auto: the one in which its limbs touch least.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Take a --rig that is not the file that was rendered.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="Preset: speed against quality; published: the steps of the paper.",
)
@click.option(
    "--resolution", type=int, help="Longer side of the fitted images, pixels. Default: the preset's."
)
@click.option("--steps", type=int, help="Steps of the fine stage. Default: the preset's.")
@click.option(
    "--exposure/--no-exposure", default=None,
    help="Fit a grey gain per training view. Default: where --static is given, whose light may differ from "
    "the video's.",
)  # fmt: skip
@click.option(
    "--complete", is_flag=True,
    help="Complete unseen views (needs --model), and fit again; the first fit stays in first/.",
)  # fmt: skip
@click.option(
    "--model", type=Place(as_text=True), default="",
    help="Of --complete: a RUN of orbit4d, or SVD or Wan by folder or hub name.",
)  # fmt: skip
@click.option(
    "--complete-views", type=click.IntRange(1), default=8, show_default=True, help="Views to complete."
)
@click.option(
    "--complete-mode", default="dgs", show_default=True, help="Rule of guidance, as of `novel-view`."
)
@click.option(
    "--confidence-hidden", type=click.FloatRange(0, 1), default=0.3, show_default=True,
    help="Confidence of pixels of completed or novel views that no image shows.",
)  # fmt: skip
@click.option(
    "--refine-cameras/--no-refine-cameras", default=None,
    help="Search the orbit by silhouettes, and fit a free pose per camera. Default: the search alone, where "
    "the default orbit does not fit a video without cameras.",
)  # fmt: skip
@_DEVICE
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def recon4d(
    source: str,
    out: Path | None,
    static: str | None,
    cameras: Path | None,
    static_cameras: Path | None,
    static_time: float,
    kind: str,
    radius: float,
    fov: float,
    elevation: float,
    mask: Path | None,
    layout: str | None,
    ring: str | None,
    sync: str | None,
    hold_cameras: str | None,
    hold_times: str | None,
    allow_missing: bool,
    matte: str,
    rig: str | None,
    rig_moment: str,
    force: bool,
    preset: str,
    resolution: int | None,
    steps: int | None,
    exposure: bool | None,
    complete: bool,
    model: str,
    complete_views: int,
    complete_mode: str,
    confidence_hidden: float,
    refine_cameras: bool | None,
    device: str,
    threads: int | None,
    seed: int,
) -> None:
    """Turn an orbit video, or synchronised cameras, into explicit 4D Gaussians, on a CPU too.

    The same command resumes after any stop. DATASET:uid brings its cameras, its static orbit and held-out
    views to compare with.

    \b
    Example: orbit4d recon4d orbit.mp4                    (writes orbit.scene beside it)
             orbit4d recon4d views/ --hold-cameras 3      (a folder or video per camera, and their cameras)
             orbit4d recon4d demo/dataset:walker --out scene --preset fast
             orbit4d recon4d dataset:fox --rig fox.glb --out scene
    """
    import os
    from dataclasses import replace

    # Read when torch is first imported: its idle threads sleep instead of spinning. On a shared two-core
    # machine spinning cost 54 ms of CPU per step against 33.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from orbit4d.datasets.commands.default_out import default_scene
    from orbit4d.datasets.core.remote import named
    from orbit4d.recon4d.fitting.completion.slot import CompletionSettings
    from orbit4d.recon4d.fitting.reconstruction import reconstruct, with_steps
    from orbit4d.recon4d.inputs.loading import OrbitSpec
    from orbit4d.recon4d.inputs.open_views import ViewOptions

    if complete != bool(model):
        raise click.UsageError("--complete and --model go together")
    if out is None:
        out = Path(default_scene(named(source)))
    settings = with_steps(PRESETS[preset], None, steps)
    if resolution is not None:
        settings = replace(settings, resolution=resolution)
    if exposure is not None:
        settings = replace(settings, exposure=exposure)
    if rig is not None:
        from orbit4d.recon4d.fitting.rigging.fit import reconstruct_rigged, refuse_beside

        refuse_beside(static, cameras, static_cameras, mask, steps)
        scene = reconstruct_rigged(
            source, rig, out, settings, seed, threads=threads, device=device, force=force, moment=rig_moment
        )
        _tell(scene, out)
        return
    if rig_moment != "first":
        raise click.UsageError("--rig-moment goes with --rig")
    scene = reconstruct(
        source,
        out,
        static,
        cameras,
        static_cameras,
        static_time,
        preset,
        seed,
        spec=OrbitSpec(kind == "closed", radius, fov, elevation),
        mask=mask,
        matte=matte,
        settings=settings,
        threads=threads,
        device=device,
        views=ViewOptions(layout, _azimuths(ring), hold_cameras, hold_times, allow_missing, sync),
        completion=CompletionSettings(model, complete_views, complete_mode, confidence_hidden)
        if complete
        else None,
        refine_cameras=refine_cameras,
        confidence_hidden=confidence_hidden,
    )
    _tell(scene, out)


def _tell(scene: Any, out: Path) -> None:
    for line in _summary(scene.metrics):
        click.echo(line)
    click.echo(f"scene {out}: {len(scene.gaussians)} Gaussians; look at it with `orbit4d view {out}`")


def _azimuths(text: str | None) -> tuple[float, ...] | None:
    """Degrees of `--ring`."""
    from orbit4d.datasets.core.errors import InputError

    try:
        found = None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (float("nan"),)
    if found is not None and not all(-3600 <= degrees <= 3600 for degrees in found):
        raise InputError(f"--ring {text}: give degrees with commas, such as 0,90,180,270")
    return found


def _summary(metrics: dict[str, Any]) -> list[str]:
    lines = [f"training views  PSNR {metrics['psnr_train']:.2f} dB, SSIM {metrics['ssim_train']:.3f}"]
    if (exposed := metrics.get("exposure")) is not None:
        lines[0] += f" ({exposed['psnr_train']:.2f} dB with the gains fitted to them)"
    for name, scores in metrics.get("heldout", {}).items():
        line = f"held out {name:<7}PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"
        if "gain" in scores:
            line += f" ({scores['psnr_with_gain']:.2f} dB with its own gain of {scores['gain']:.3f})"
        lines.append(line)
    for row in metrics.get("per_camera", []):
        kind = "held out" if row["held_out"] else "training"
        lines.append(f"  camera {row['camera']:<10}{kind}  PSNR {row['psnr']:.2f} dB, {row['images']} images")
    if (completion := metrics.get("completion")) is not None:
        for name, far in (("all", ""), ("far", " far from every view")):
            if (was := completion["before"].get(name)) and (now := completion["after"].get(name)):
                lines.append(
                    f"completed {completion['completed']} views; held out{far}: PSNR {was['psnr']:.2f} -> "
                    f"{now['psnr']:.2f} dB, SSIM {was['ssim']:.3f} -> {now['ssim']:.3f}"
                )
    lines += [metrics[key] for key in ("stopped", "restarted", "failed") if key in metrics]
    return lines


@click.command(
    cls=Command,
    short_help="Film a scene along a camera path.",
    groups={
        "Input and output": "--out --overwrite --input-axes --device",
        "Camera path": "--rig --elevation --radius --time",
        "Video": "--frames --size --fps --credits",
    },
)
@click.argument("scene", type=Place(), metavar="SCENE|SPLATS")
@click.option("--out", required=True, type=Place("file"), help="Video file or URI, such as clip.mp4.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@click.option(
    "--rig", type=click.Choice(["front_view", "dynamic_orbit", "bullet_time", "director"]),
    default="front_view", show_default=True,
    help="Camera path; director: that of a film made by `orbit4d compose`.",
)  # fmt: skip
@click.option("--frames", default=48, show_default=True, help="Frames of the video.")
@click.option("--size", type=int, help="Longer side, pixels. Default: as trained.")
@click.option("--fps", default=16.0, show_default=True, help="Frame rate of the video.")
@click.option("--elevation", type=float, help="Camera elevation, degrees. Default: as trained.")
@click.option("--radius", type=float, help="Camera distance. Default: as trained.")
@click.option("--time", default=0.5, show_default=True, help="Time of bullet_time, in [0, 1].")
@click.option("--credits", is_flag=True, help="Add a closing card of who made what; with --rig director.")
@_INPUT_AXES
@_DEVICE
def film(
    scene: Path, out: Path, overwrite: bool, rig: str, frames: int, size: int | None, fps: float,
    elevation: float | None, radius: float | None, time: float, credits: bool, input_axes: str | None,
    device: str,
) -> None:  # fmt: skip
    """Film a scene, or static splats of others, along a camera path.

    \b
    Example: orbit4d film scene --rig bullet_time --out clip.mp4
    """
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.core.remote import refuse_taken
    from orbit4d.recon4d.devices import choose_device
    from orbit4d.recon4d.export.readers import open_scene
    from orbit4d.recon4d.filming import film as film_scene

    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: give a file name that ends in .mp4")
    if credits and rig != "director":
        raise InputError("--credits: those of a film made by `orbit4d compose`; add --rig director")
    refuse_taken(out, overwrite)
    loaded = open_scene(scene, choose_device(device), input_axes)
    if rig == "director":
        from orbit4d.recon4d.filming import film_directed

        made = film_directed(loaded, scene, out, size, credits=credits)
        click.echo(f"{out}: {len(made)} frames of {made.shape[2]}x{made.shape[1]}")
        return
    made = film_scene(loaded, out, rig, frames, size, fps, elevation_deg=elevation, radius=radius, time=time)
    click.echo(f"{out}: {len(made)} frames of {made.shape[2]}x{made.shape[1]}")


@click.command(cls=Command, short_help="Inspect a scene or a dataset in the browser, with a time slider.")
@click.argument(
    "source", type=Place(as_text=True, native=in_dataset), metavar="SCENE|SPLATS|DATASET[:uid[:action]]"
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port of the page; the next free one where it is in use.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Interface to serve on; 0.0.0.0: other machines may connect.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Steps of the time slider.",
)
@_INPUT_AXES
def view(source: str, port: int, host: str, frames: int, input_axes: str | None) -> None:
    """Inspect a scene, static splats of others, or the views and cameras of a dataset, in the browser.

    \b
    Example: orbit4d view scene
             orbit4d view demo/dataset:dino
    """
    from orbit4d.recon4d.export.readers import is_splats, open_scene
    from orbit4d.recon4d.viewer.clip_viewer import ClipViewer, is_dataset
    from orbit4d.recon4d.viewer.scene_viewer import Viewer, check_address

    check_address(host, port)
    viewer: ClipViewer | Viewer
    if not is_splats(source) and is_dataset(source):
        viewer = ClipViewer(source, host, port)
        if viewer.left_out:
            click.echo(
                f"note: the first {len(viewer.picker.options)} clips, {viewer.left_out} more are left out; "
                "name an asset as DATASET:uid (`orbit4d list` names what is there)",
                err=True,
            )
    else:
        loaded = open_scene(source, axes=input_axes)
        viewer = Viewer(loaded, host, port, 1 if loaded.field.config["kind"] == "still" else frames)
    click.echo(f"http://{host}:{viewer.port}  (Ctrl-C ends it)")
    try:
        viewer.serve()
    except KeyboardInterrupt:
        click.echo("closed")


@click.command(
    cls=Command,
    short_help="Write a scene in another layout.",
    groups={
        "Input and output": "--out --format",
        "What is written": "--frames --time --rig --size --fps",
        "Axes": "--up --axes --input-axes",
    },
)
@click.argument("scene", type=Place(), metavar="SCENE|SPLATS")
@click.option("--out", required=True, type=Place("file"), help="File or URI; a folder for some layouts.")
@click.option(
    "--format", "format_", default="ply-sequence", show_default=True, type=click.Choice(EXPORTS),
    help="Layout to write.",
)  # fmt: skip
@click.option(
    "--frames", default=24, show_default=True, help="Times, or views, of layouts that hold several."
)
@click.option("--time", default=0.0, show_default=True, help="Time of layouts that hold one, in [0, 1].")
@click.option(
    "--rig", default="dynamic_orbit", show_default=True, help="Camera path of frames, mp4, webm and mov."
)
@click.option("--size", type=int, help="Longer side of drawn frames, pixels. Default: as trained.")
@click.option("--fps", default=16.0, show_default=True, help="Times a second of layouts that play.")
@click.option(
    "--up", type=click.Choice(["y", "z"]),
    help="Axis of the written world that points up; default: z, but y for GLB and Alembic. Most take y.",
)  # fmt: skip
@click.option(
    "--axes", type=click.Choice(["file", "z-up", "y-up", "rdf", "y-down-180"]), default="file",
    show_default=True, help="Axes of the PLY family, splat and sog; y-down-180 stands upright in SuperSplat.",
)  # fmt: skip
@_INPUT_AXES
def export_scene(
    scene: Path, out: Path, format_: str, frames: int, time: float, rig: str, size: int | None, fps: float,
    up: str | None, axes: str, input_axes: str | None,
) -> None:  # fmt: skip
    """Write a scene, or static splats of others, in another layout.

    Splats of one time: ply, compressed-ply, splat, spz, sog, glb. Of several: ply-sequence, usd, 4dgs. Drawn
    views: frames, mp4 (on white), webm and mov (with alpha). A page that plays the scene: html (one file) and
    viewer (a script and its data, to be embedded). A textured mesh moved by the scene's nodes: mesh-glb,
    mesh-usd, mesh-alembic, mesh-obj.

    \b
    Example: orbit4d export scene --format splat --time 0.5 --up y --out scene.splat
    """
    from orbit4d.datasets.core.remote import refuse_taken, stands_in
    from orbit4d.recon4d.export.formats import default_up, shows_splats, unsaid
    from orbit4d.recon4d.export.formats import export_scene as write
    from orbit4d.recon4d.export.readers import open_scene

    notes: list[str] = []
    loaded = open_scene(scene, axes=input_axes, notes=notes)
    if stands_in(out):
        refuse_taken(out)  # local ones are refused by `write`, which takes an empty folder
    written = write(loaded, out, format_, frames, time, rig, size, up, axes, fps)
    for line in [*notes, unsaid(loaded, format_)]:
        if line is not None:
            click.echo(line)
    click.echo(f"{out}: {len(written)} file{'s' if len(written) != 1 else ''}")
    if not shows_splats(format_):
        return
    if axes != "file":
        click.echo(f"axes are {axes}")
        return
    up = up or default_up(format_)
    hint = ", which viewers that take +Y as up show from above: --up y turns it" if up == "z" else ""
    click.echo(f"up is +{up.upper()}{hint}")
