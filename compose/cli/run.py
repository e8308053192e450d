"""`orbit4d compose PROMPT`."""

from __future__ import annotations

from pathlib import Path

import click

from orbit4d.compose.cli.options import ENCODER, chat_settings, directing
from orbit4d.datasets.commands.options import RESUMED, Command, Place


@click.command(
    cls=Command,
    short_help="Compose a film from a sentence.",
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--out --cache --refresh --dry-run",
        "Library": "--library --license --strict --encoder",
        "Director": "--director --chat-url --chat-model --chat-timeout --chat-repairs --depth-model",
        "Scene": "--scene --refine --refine-model --tau-units --relight --rig-moment",
        "Film": "--frames --fps --size --seed",
    },
)
@click.argument("prompt")
@click.option(
    "--out", required=True, type=Place("run"), help="Folder; an existing run of the prompt resumes."
)
@click.option(
    "--library", "libraries", multiple=True, required=True,
    help="Dataset, folder of assets, or CSV of actions. Repeatable.",
)  # fmt: skip
@directing
@click.option(
    "--scene", default=None, help="procedural:NAME, a scene's folder, or none. Default: the prompt's."
)
@click.option(
    "--refine", type=click.Choice(["none", "geometry", "sd15"]), default="geometry", show_default=True,
    help="Bounded refinement of scale and places; sd15 needs weights.",
)  # fmt: skip
@click.option(
    "--license", "licences", default="", help="Accepted licences, comma-separated patterns: `CC0*`."
)
@click.option("--cache", type=Place("run"), help="Folder of fitted concepts. Default: OUT/concepts.")
@click.option("--strict", is_flag=True, help="Refuse what would only stand in.")
@ENCODER
@click.option(
    "--refine-model", default="sd15", show_default=True,
    help="Prior of --refine sd15: sd15, a hub name, or a folder of a diffusers pipeline.",
)  # fmt: skip
@click.option(
    "--tau-units", type=click.Choice(["scene", "height"]), default="scene", show_default=True,
    help="Refinement moves by at most 0.05 of these: metres of the scene, or an actor's height.",
)  # fmt: skip
@click.option(
    "--depth-model", type=Place(as_text=True), default="",
    help="Model of depth, folder or hub name, by which a chat director's pixels are lifted. Default: the "
    "scene's own depth.",
)  # fmt: skip
@click.option(
    "--relight", is_flag=True,
    help="Scale each actor's red, green and blue towards its ground's mean, by 0.5 to 2 each.",
)  # fmt: skip
@click.option(
    "--rig-moment", type=click.Choice(["auto", "rest", "first"]), default="auto", show_default=True,
    help="Pose in which an asset is fitted: rest (that of its file), first (the first time of its idle "
    "action), or auto (rest where no limbs touch in it, else first).",
)  # fmt: skip
@click.option(
    "--frames", default=0, show_default="48, or as the prompt says", help="Frames of the film."
)  # fmt: skip
@click.option("--fps", default=24.0, show_default=True, help="Frames per second.")
@click.option("--size", default=256, show_default=True, help="Width and height, pixels.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@click.option("--refresh", is_flag=True, help="Fit concepts and make the film anew where they are there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `compose plan` does.")
def run(
    prompt: str, out: Path, libraries: tuple[str, ...], director: str, scene: str | None, refine: str,
    licences: str, cache: Path | None, strict: bool, encoder: str, refine_model: str, tau_units: str,
    depth_model: str, relight: bool, rig_moment: str, frames: int, fps: float, size: int, seed: int,
    chat_url: str, chat_model: str, chat_timeout: float, chat_repairs: int, refresh: bool,
    dry_run: bool | str,
) -> None:  # fmt: skip
    """Compose a film from a sentence: find its actors in libraries, fit, place, refine and film them.

    \b
    Example: orbit4d compose "a fox walks from the left to the right" --library assets/ --out fox/
    """
    import os

    # Read when torch is first imported: its idle threads sleep instead of spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from orbit4d.compose.cli.production import Wanted, produce

    # A swap from another folder finds them too.
    found = tuple(str(Path(name).resolve()) if Path(name).exists() else name for name in libraries)
    if scene is not None and ":" not in scene and Path(scene).is_dir():
        scene = str(Path(scene).resolve())
    wanted = Wanted(
        prompt, found, director, scene, refine, tuple(p for p in licences.split(",") if p), strict,
        frames, fps, size, seed, encoder, refine_model, tau_units, depth_model,
        relight, rig_moment,
    )  # fmt: skip
    chat = chat_settings(chat_url, chat_model, chat_timeout, chat_repairs, seed)
    if dry_run:
        from orbit4d.compose.cli.planned import show_plan

        show_plan(wanted, out, chat, as_json=dry_run == "json")
        return
    for line in produce(wanted, out, cache, chat, refresh):
        click.echo(line)
