"""`orbit4d generate`. Torch is imported only when a command runs."""

from __future__ import annotations

import click

from orbit4d.datasets.commands.options import Command, Place
from orbit4d.model.cli.options import NOT_THE_MODEL


@click.command(
    cls=Command,
    groups={
        "Conditions": "--image --text --static --motion --crop --matte",
        "Camera": "--azimuth --elevation",
        "Sampling": "--samples --seed --steps --w1 --w2 --w-motion --precision",
        "Output": "--out --overwrite --fps",
    },
)
@click.argument("run", type=Place(as_text=True, leave_out=NOT_THE_MODEL))
@click.option(
    "--image",
    type=Place(as_text=True),
    default="",
    help="Image of the object: any size, with or without alpha.",
)
@click.option("--text", default="", help="Text prompt.")
@click.option("--static", default="", help="Static orbit to animate (DATASET:uid[:action]).")
@click.option(
    "--motion",
    default="q0.5",
    show_default=True,
    help="Motion magnitude (0.004), its quantile (q0.9), or none.",
)
@click.option(
    "--out",
    required=True,
    type=Place("file", as_text=True),
    help="Video to write, *.mp4 (a path or a URI); frames and cameras go to a folder beside it.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing videos and their folders.")
@click.option("--samples", default=1, show_default=True, help="Number of videos, each with its own seed.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first sample.")
@click.option("--steps", type=click.IntRange(1, 1000), help="DDIM steps. Default: the run's.")
@click.option(
    "--w1", type=float, help="Guidance weight w1 (unconditional branch). Default: the run's (published: 7)."
)
@click.option(
    "--w2", type=float, help="Guidance weight w2 (frozen base branch). Default: the run's (published: 0.5)."
)
@click.option(
    "--w-motion", type=float, help="Guidance weight of motion (branch without it). Default: the run's."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp16", "bf16", "no"]),
    help="What a GPU computes in; auto is fp16, no float32. Default: the run's. A CPU computes in float32.",
)
@click.option("--azimuth", "azimuth0_deg", default=0.0, help="Starting azimuth, degrees; 0 is the front.")
@click.option("--elevation", "elevation_deg", type=float, help="Elevation, degrees. Default: as trained.")
@click.option("--crop/--no-crop", default=None, help="Crop the image to the object. Default: automatic.")
@click.option(
    "--matte", type=click.Choice(["flat", "rembg", "none"]), default="flat", show_default=True,
    help="Matting method for input without alpha: flat background, rembg (an extra), or none.",
)  # fmt: skip
@click.option("--fps", default=8.0, show_default=True, help="Frame rate of the video.")
def generate(run: str, out: str, overwrite: bool, **options) -> None:
    """Generate an orbit video with a trained RUN, from an image, a caption, or a static orbit.

    \b
    Examples:
      orbit4d generate runs/tiny --image fox.png --motion q0.9 --out fox.mp4
      orbit4d generate runs/tiny --static data/walkers:fox:Run --motion 0.004 --out fox.mp4
    """
    from orbit4d.datasets.core.remote import refuse_taken
    from orbit4d.model.sampling.generate import Request, outputs
    from orbit4d.model.sampling.generate import generate as run_generation

    request = Request(**options)
    for path in outputs(out, request.samples):
        refuse_taken(path, overwrite)
        refuse_taken(path.with_suffix(""), overwrite)
    for path in run_generation(run, out, request):
        print(f"wrote {path}")
