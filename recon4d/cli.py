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


@click.command(
    cls=Command,
    short_help="Turn an orbit video into explicit 4D Gaussians.",
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--out --static --mask --matte --rig --force",
        "Cameras": "--cameras --static-cameras --static-time --orbit --radius --fov --elevation",
        "Fitting": "--preset --resolution --steps --exposure --device --threads --seed",
    },
)
@click.argument(
    "source",
    type=Place(as_text=True, native=in_dataset),
    metavar="VIDEO|FOLDER|DATASET:uid[:action]",
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
@click.option("--mask", type=Place(), help="Folder of masks, one per frame.")
@click.option(
    "--matte", type=click.Choice(["flat", "rembg"]), default="flat", show_default=True,
    help="Matting method for input without alpha: flat background, or rembg (an extra).",
)  # fmt: skip
@click.option(
    "--rig", type=Place(as_text=True),
    help="Asset that DATASET:uid was rendered from: its static orbit is fitted and moved by the asset's own "
    "skeleton.",
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
    matte: str,
    rig: str | None,
    force: bool,
    preset: str,
    resolution: int | None,
    steps: int | None,
    exposure: bool | None,
    device: str,
    threads: int | None,
    seed: int,
) -> None:
    """Turn an orbit video into explicit 4D Gaussians, on a CPU too.

    The same command resumes after any stop. DATASET:uid brings its cameras, its static orbit and held-out
    views to compare with.

    \b
    Example: orbit4d recon4d orbit.mp4                    (writes orbit.scene beside it)
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
    from orbit4d.recon4d.fitting.reconstruction import reconstruct, with_steps
    from orbit4d.recon4d.inputs.loading import OrbitSpec

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
            source, rig, out, settings, seed, threads=threads, device=device, force=force
        )
        _tell(scene, out)
        return
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
    )
    _tell(scene, out)


def _tell(scene: Any, out: Path) -> None:
    for line in _summary(scene.metrics):
        click.echo(line)
    click.echo(f"scene {out}: {len(scene.gaussians)} Gaussians; look at it with `orbit4d view {out}`")


def _summary(metrics: dict[str, Any]) -> list[str]:
    lines = [f"training views  PSNR {metrics['psnr_train']:.2f} dB, SSIM {metrics['ssim_train']:.3f}"]
    if (exposed := metrics.get("exposure")) is not None:
        lines[0] += f" ({exposed['psnr_train']:.2f} dB with the gains fitted to them)"
    for name, scores in metrics.get("heldout", {}).items():
        line = f"held out {name:<7}PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"
        if "gain" in scores:
            line += f" ({scores['psnr_with_gain']:.2f} dB with its own gain of {scores['gain']:.3f})"
        lines.append(line)
    if (stopped := metrics.get("stopped")) is not None:
        lines.append(stopped)
    return lines


@click.command(cls=Command, short_help="Film a scene along a camera path.")
@click.argument("scene", type=Place())
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
@_DEVICE
def film(
    scene: Path, out: Path, overwrite: bool, rig: str, frames: int, size: int | None, fps: float,
    elevation: float | None, radius: float | None, time: float, device: str,
) -> None:  # fmt: skip
    """Film a scene along a camera path.

    \b
    Example: orbit4d film scene --rig bullet_time --out clip.mp4
    """
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.core.remote import refuse_taken
    from orbit4d.recon4d.composition import load_scene
    from orbit4d.recon4d.devices import choose_device
    from orbit4d.recon4d.filming import film as shoot

    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: give a file name that ends in .mp4")
    refuse_taken(out, overwrite)
    loaded = load_scene(scene, choose_device(device))
    if rig == "director":
        from orbit4d.recon4d.filming import film_directed

        shots = film_directed(loaded, scene, out, size)
        click.echo(f"{out}: {len(shots)} frames of {shots.shape[2]}x{shots.shape[1]}")
        return
    shots = shoot(loaded, out, rig, frames, size, fps, elevation_deg=elevation, radius=radius, time=time)
    click.echo(f"{out}: {len(shots)} frames of {shots.shape[2]}x{shots.shape[1]}")


@click.command(cls=Command, short_help="Inspect a scene or a dataset in the browser, with a time slider.")
@click.argument("source", type=Place(as_text=True, native=in_dataset), metavar="SCENE|DATASET[:uid[:action]]")
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
def view(source: str, port: int, host: str, frames: int) -> None:
    """Inspect a scene, or the views and cameras of a dataset, in the browser.

    \b
    Example: orbit4d view scene
             orbit4d view demo/dataset:dino
    """
    from orbit4d.recon4d.composition import load_scene
    from orbit4d.recon4d.viewer.clip_viewer import ClipViewer, is_dataset
    from orbit4d.recon4d.viewer.scene_viewer import Viewer, check_address

    check_address(host, port)
    viewer: ClipViewer | Viewer
    if is_dataset(source):
        viewer = ClipViewer(source, host, port)
        if viewer.left_out:
            click.echo(
                f"note: the first {len(viewer.picker.options)} clips, {viewer.left_out} more are left out; "
                "name an asset as DATASET:uid (`orbit4d list` names what is there)",
                err=True,
            )
    else:
        viewer = Viewer(load_scene(source), host, port, frames)
    click.echo(f"http://{host}:{viewer.port}  (Ctrl-C ends it)")
    try:
        viewer.serve()
    except KeyboardInterrupt:
        click.echo("closed")


@click.command(cls=Command, short_help="Write a scene in another layout.")
@click.argument("scene", type=Place())
@click.option("--out", required=True, type=Place("file"), help="Folder or URI; a file for splat and spz.")
@click.option(
    "--format", "format_", default="ply-sequence", show_default=True,
    type=click.Choice(["ply-sequence", "splat", "spz", "frames"]), help="Layout to write.",
)  # fmt: skip
@click.option("--frames", default=24, show_default=True, help="Times of ply-sequence, or views of frames.")
@click.option("--time", default=0.0, show_default=True, help="Time of splat and spz, in [0, 1].")
@click.option("--rig", default="dynamic_orbit", show_default=True, help="Camera path of --format frames.")
@click.option("--size", type=int, help="Longer side of --format frames, pixels. Default: as trained.")
@click.option(
    "--up", type=click.Choice(["y", "z"]), default="z", show_default=True,
    help="Axis of the written world that points up. Scenes have z; most viewers take y.",
)  # fmt: skip
def export_scene(
    scene: Path, out: Path, format_: str, frames: int, time: float, rig: str, size: int | None, up: str
) -> None:
    """Write a scene in another layout: a PLY per time, .splat, .spz, or frames of novel views.

    \b
    Example: orbit4d export scene --format splat --time 0.5 --up y --out scene.splat
    """
    from orbit4d.datasets.core.remote import refuse_taken, stands_in
    from orbit4d.recon4d.composition import load_scene
    from orbit4d.recon4d.export.formats import export_scene as write
    from orbit4d.recon4d.export.formats import unsaid

    loaded = load_scene(scene)
    if stands_in(out):
        refuse_taken(out)  # local ones are refused by `write`, which takes an empty folder
    written = write(loaded, out, format_, frames, time, rig, size, up)
    if (lost := unsaid(loaded, format_)) is not None:
        click.echo(lost)
    click.echo(f"{out}: {len(written)} file{'s' if len(written) != 1 else ''}")
    hint = ", which viewers that take +Y as up show from above: --up y turns it" if up == "z" else ""
    if format_ != "frames":
        click.echo(f"up is +{up.upper()}{hint}")
