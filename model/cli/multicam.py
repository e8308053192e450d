"""`orbit4d multicam`. Torch is imported only when a command runs."""

from __future__ import annotations

import re
from typing import Any

import click

from orbit4d.datasets.commands.options import Command, Place
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.cli.options import NOT_THE_MODEL

_SIZE = re.compile(r"(\d+)x(\d+)")


@click.command(
    cls=Command,
    groups={
        "Cameras": "--rig --cameras --pick --metres-per-unit",
        "Conditions": "--text --negative --reference --motion",
        "Video": "--frames --size --fps",
        "Sampling": "--samples --seed --steps --shift --guidance --view-guidance --branches",
        "Weights": "--views-checkpoint",
        "Output": "--out --no-frames",
    },
)
@click.argument("run", type=Place(as_text=True, leave_out=NOT_THE_MODEL))
@click.option(
    "--rig", default="", help="Rig of the cameras: sync_basic, sync:6, hemi36_4m_15, ring:8@20, ..."
)
@click.option(
    "--cameras",
    type=Place(as_text=True),
    default="",
    help="File of the cameras: transforms.json, camera_extrinsics.json, cameras.json of a scene.",
)
@click.option("--pick", default="", metavar="N,N,..", help="Cameras by number; the first is the reference.")
@click.option("--text", default="", help="Text prompt of all views.")
@click.option("--negative", help="Negative prompt. Default: the model's.")
@click.option(
    "--reference", type=Place(as_text=True), default="", help="Video that the first camera has recorded."
)
@click.option(
    "--motion", default="none", show_default=True, help="Motion magnitude (0.004), quantile (q0.9)."
)
@click.option("--frames", type=click.IntRange(1), help="Frames a view. Default: the model's or reference's.")
@click.option("--size", metavar="WxH", help="Size of the videos. Default: the model's or the reference's.")
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), help="Frame rate. Default: the model's or reference's."
)
@click.option("--samples", default=1, show_default=True, help="Number of samples, each with its own seed.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first sample, and of a drawn rig.")
@click.option("--steps", type=click.IntRange(1, 1000), help="Steps of sampling. Default: the model's.")
@click.option(
    "--shift", type=click.FloatRange(0, min_open=True), help="Shift of the schedule. Default: the model's."
)
@click.option("--guidance", type=float, help="Guidance weight of the text. Default: 5; with --reference 7.5.")
@click.option(
    "--view-guidance", default=1.8, show_default=True, help="Guidance weight of the reference view."
)
@click.option(
    "--branches",
    type=click.Choice(["auto", "1", "2", "3"]),
    default="auto",
    show_default=True,
    help="Guidance branches in one batch; auto: all that fit.",
)
@click.option(
    "--metres-per-unit",
    type=click.FloatRange(0, min_open=True),
    help="Metres of a unit. Default: the model's.",
)
@click.option(
    "--views-checkpoint",
    type=Place(as_text=True),
    default="",
    help="View module for a Wan folder: step20000.ckpt, or a folder of the module alone.",
)
@click.option("--no-frames", is_flag=True, help="Write videos without a folder of frames each.")
@click.option("--out", required=True, type=Place("folder", as_text=True), help="Folder to write.")
def multicam(run: str, out: str, size: str | None, no_frames: bool, **options: Any) -> None:
    """Generate synchronised videos of one scene, one for each camera, with a RUN of a sync preset or a Wan
    folder.

    \b
    Examples:
      orbit4d multicam runs/sync --rig sync_basic --pick 3,1,7 --text "a dancer" --out dancer
      orbit4d multicam wan --views-checkpoint step20000.ckpt --rig sync_basic --pick 1,3 --text "a dancer" \\
        --out dancer
      orbit4d multicam runs/sync --reference clip.mp4 --cameras cams.json --text "a dancer" --out dancer
    """
    from orbit4d.model.sampling.multicam import MulticamRequest
    from orbit4d.model.sampling.multicam import multicam as run_multicam

    pixels = None
    if size is not None:
        match = _SIZE.fullmatch(size)
        if match is None:
            raise InputError(f"--size {size}: give width x height, such as 832x480")
        pixels = (int(match[1]), int(match[2]))
    for folder in run_multicam(run, out, MulticamRequest(size=pixels, write_frames=not no_frames, **options)):
        print(f"wrote {folder}")
