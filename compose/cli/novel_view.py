"""`orbit4d novel-view`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import Command, Place, in_dataset

_MODES = ["dgs", "posterior", "exact-likelihood", "worldforge", "repo-dgs", "repo-posterior", "none"]


class _Size(click.ParamType):
    """WIDTHxHEIGHT, or one number for a square."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or min(numbers) < 8:
            self.fail(f"{value}: write WIDTHxHEIGHT in pixels, such as 1024x576", param, ctx)
        return numbers[0], numbers[-1]


@click.command(
    cls=Command,
    short_help="Show a scene from views that nothing saw, without training.",
    groups={
        "Input": "--cameras --depth --depth-scale --depth-model --depth-centre",
        "Camera path": "--path --frames --size --elevation --radius --fov",
        "Model": "--model --steps --seed",
        "Guidance": "--mode --schedule --v --iterations --lr --omega --until --soften --warp --z",
        "Output": "--out --overwrite --fps --report --keep-warp",
    },
)
@click.argument(
    "inputs", nargs=-1, required=True, type=Place(as_text=True, native=in_dataset),
    metavar="INPUT...",
)  # fmt: skip
@click.option(
    "--model", required=True, type=Place(as_text=True),
    help="Folder or hub name of SVD, SVD-XT or Wan 2.1 image-to-video, or a RUN of orbit4d.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=Place("file"), help="Video to write, *.mp4; its frames go beside it."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing video, its folder and report.")
@click.option(
    "--cameras", type=Place(),
    help="A camera per input: transforms.json, or DTU's text files. Default: beside a video, else the start.",
)  # fmt: skip
@click.option(
    "--depth", type=Place(), help="Depth per input: a .npy, .exr, .pfm or 16-bit .png, or a folder."
)
@click.option("--depth-scale", default=0.001, show_default=True, help="Units of a 16-bit .png value.")
@click.option(
    "--depth-model", default="", help="Depth Anything by folder or hub name, where there is no depth."
)
@click.option(
    "--depth-centre", type=float, help="Depth of the object's median. Default: distance to the path's centre."
)
@click.option(
    "--path", default="",
    help="orbit, dynamic_orbit, bullet_time, front_view, ellipse:A,B,DEG, line:X,Y,Z, between, or a "
    "transforms.json. Default: orbit for an image, between for several, dynamic_orbit for a video.",
)  # fmt: skip
@click.option("--frames", type=click.IntRange(2), help="Frames of the video. Default: the model's.")
@click.option("--size", type=_Size(), help="WIDTHxHEIGHT, pixels. Default: the model's.")
@click.option("--elevation", "elevation_deg", type=float, help="Elevation, degrees. Default: the input's.")
@click.option("--radius", type=float, help="Distance from the centre. Default: the input's, else 2.")
@click.option(
    "--fov", "fov_x_deg", type=float, help="Horizontal field of view, degrees. Default: the input's."
)
@click.option("--mode", type=click.Choice(_MODES), default="dgs", show_default=True, help="Rule of guidance.")
@click.option(
    "--schedule", default="",
    help="closed, repo, none, infinite, constant:W or linear: how far steps trust the warp. Default: closed.",
)  # fmt: skip
@click.option(
    "--v", default="",
    help="V1,V2,V3 of closed and repo, or search. Default: search for a RUN of orbit4d, else 0.001,1000,10.",
)  # fmt: skip
@click.option("--iterations", default=5, show_default=True, help="Of exact-likelihood; 0 is PiGDM.")
@click.option("--lr", default=0.02, show_default=True, help="Step of posterior and repo-posterior.")
@click.option("--omega", default=4.0, show_default=True, help="Self-correction of worldforge.")
@click.option("--until", default=5.5, show_default=True, help="Noise level at which worldforge ends.")
@click.option(
    "--soften", type=click.FloatRange(0), default=0.0, show_default=True,
    help="Pixels over which worldforge fades what is seen towards its border; published: 15.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 1000), help="Sampling steps. Default: the model's.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@click.option("--fps", default=8.0, show_default=True, help="Frame rate of the video.")
@click.option(
    "--warp", type=click.Choice(["ours", "repo-single", "repo-video", "repo-two"]), default="ours",
    show_default=True, help="Rule of the warp: ours, or as released.",
)  # fmt: skip
@click.option(
    "--z", type=click.Choice(["hard", "soft"]), default="hard", show_default=True,
    help="How the nearer surface wins.",
)  # fmt: skip
@click.option("--report", type=Place("file"), help="JSON report. Default: <out>.json.")
@click.option("--keep-warp", is_flag=True, help="Also write the warped frames.")
def command(
    inputs: tuple[str, ...], out: Path, overwrite: bool, report: Path | None, fps: float, keep_warp: bool,
    iterations: int, lr: float, omega: float, until: float, soften: float, **options: Any,
) -> None:  # fmt: skip
    """Show what other cameras would see of images whose depth is known.

    INPUT is one image, several images, a video, a folder of frames, DATASET:uid[:action] (with a depth pass),
    or a SCENE of recon4d. Nothing is trained: the input is warped to each camera, and where the warp sees
    something the sampler of MODEL is pulled towards it; the rest is the model's guess.

    \b
    Examples:
      orbit4d novel-view data/walkers:fox --model runs/tiny --out fox.mp4
      orbit4d novel-view room.png --depth room.npy --model svd-xt --path ellipse:60,70,1 --out room.mp4
    """
    from orbit4d.compose.completion.novel_view import Request, make
    from orbit4d.compose.completion.writing import write
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.core.remote import refuse_taken
    from orbit4d.model.guided.modes import Settings

    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: give a file name that ends in .mp4")
    given = report or out.with_suffix(".json")
    for path in (out, out.with_suffix(""), given):
        refuse_taken(path, overwrite)
    settings = Settings(iterations, lr, omega=omega, until=until, soften=soften)
    made = make(Request(inputs=inputs, settings=settings, **options))
    write(made, out, given, fps, keep_warp)
    click.echo(f"wrote {out}")
